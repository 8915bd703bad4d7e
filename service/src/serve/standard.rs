//! The services every Causeway server has besides its own: health, and reflection in both versions.

use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::Error;

/// Tells callers of `grpc.health.v1.Health` how this process is.
#[derive(Debug, Clone)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<String>,
}

impl Health {
    /// Say whether this process serves, for the whole and for each of its services.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in std::iter::once("").chain(self.services.iter().map(String::as_str)) {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

/// Add grpc.health.v1 and server reflection (v1 and v1alpha) to `routes`.
///
/// `descriptors` is the encoded file descriptor set of the process's own services, `services` their full names, such as
/// `causeway.v1.Coordinator`; they are all reported as serving from the start.
pub async fn with_standard_services(
    routes: Routes,
    descriptors: &'static [u8],
    services: &[&str],
) -> Result<(Routes, Health), Error> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = Health { reporter, services: services.iter().map(|name| (*name).to_owned()).collect() };
    health.set_serving(true).await;

    let reflection = || {
        let mut builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // Clients such as grpcurl show the details of an error only if they can look its types up.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET);
        // The set describes the services of every process; only those served here are to be listed.
        for name in services {
            builder = builder.with_service_name(*name);
        }
        builder.with_service_name("grpc.health.v1.Health")
    };
    let failed = |error: tonic_reflection::server::Error| Error::Reflection(error.to_string());
    let v1 = reflection().with_service_name("grpc.reflection.v1.ServerReflection").build_v1().map_err(failed)?;
    let v1alpha =
        reflection().with_service_name("grpc.reflection.v1alpha.ServerReflection").build_v1alpha().map_err(failed)?;
    Ok((routes.add_service(health_service).add_service(v1).add_service(v1alpha), health))
}
