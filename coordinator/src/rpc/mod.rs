//! The Coordinator service: the only place where it speaks gRPC to users.

mod access;
mod adopt;
mod databases;
mod decide;
mod error;
mod explain;
mod fields;
mod forward;
mod guard;
mod instances;
mod list;
mod overrides;
mod page;
mod select;
mod start;
mod watch;
mod wire;

use std::sync::Arc;

use futures::stream::BoxStream;
use proto::v1::{
    self,
    coordinator_server::{Coordinator, CoordinatorServer},
};
use service::serve::{ServeOptions, Services};
use tonic::{Request, Response, Status, service::Routes};

use service::{Tls, dial::Dialer};

use crate::{auth::Auth, core::Core, office::Office};

use forward::Forwarder;
use guard::{Guard, caller_of};

pub use error::Error;

/// A request names a hundred databases at the most, of 255 bytes each.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// What a coordinator serves, to whom `auth` lets in; while another leads, requests are passed on through `dialer`.
pub fn services(office: Office, auth: Arc<Auth>, dialer: Dialer, tls: Option<&Tls>) -> Services {
    // Health and reflection stand before the guard: they tell nothing that is not public.
    let options = ServeOptions { open: auth.takes_tokens(), ..ServeOptions::default() };
    Services {
        routes: Routes::new(Guard::new(office, auth, Forwarder::new(dialer, tls))),
        descriptors: proto::FILE_DESCRIPTOR_SET,
        names: &["causeway.v1.Coordinator"],
        options,
    }
}

/// The service over what this coordinator leads with.
fn server(core: Arc<Core>) -> CoordinatorServer<Api> {
    CoordinatorServer::new(Api { core }).max_decoding_message_size(REQUEST_BYTES_MAX)
}

struct Api {
    core: Arc<Core>,
}

type Answer<T> = Result<Response<T>, Status>;

/// The answer, or the error by the table of [`error`]. Errors of the coordinator itself are logged here, once.
fn answer<T>(result: Result<T, Error>) -> Answer<T> {
    result.map(Response::new).map_err(|error| {
        if error.is_ours() {
            tracing::error!(%error, "a request fails");
        }
        Status::from(error)
    })
}

#[tonic::async_trait]
impl Coordinator for Api {
    async fn register_instance(
        &self,
        request: Request<v1::RegisterInstanceRequest>,
    ) -> Answer<v1::RegisterInstanceResponse> {
        let caller = caller_of(&request);
        answer(instances::register(&self.core, &caller, request.into_inner()).await)
    }

    async fn list_instances(&self, request: Request<v1::ListInstancesRequest>) -> Answer<v1::ListInstancesResponse> {
        answer(instances::list(&self.core, &caller_of(&request)).await)
    }

    async fn remove_instance(&self, request: Request<v1::RemoveInstanceRequest>) -> Answer<v1::RemoveInstanceResponse> {
        let caller = caller_of(&request);
        answer(instances::remove(&self.core, &caller, request.into_inner()).await)
    }

    async fn list_databases(&self, request: Request<v1::ListDatabasesRequest>) -> Answer<v1::ListDatabasesResponse> {
        let caller = caller_of(&request);
        answer(databases::list(&self.core, &caller, request.into_inner()).await)
    }

    async fn purge_database(&self, request: Request<v1::PurgeDatabaseRequest>) -> Answer<v1::PurgeDatabaseResponse> {
        let caller = caller_of(&request);
        answer(databases::purge(&self.core, &caller, request.into_inner()).await)
    }

    async fn start_operation(&self, request: Request<v1::StartOperationRequest>) -> Answer<v1::StartOperationResponse> {
        let caller = caller_of(&request);
        answer(Box::pin(start::start(&self.core, &caller, request.into_inner())).await)
    }

    async fn get_operation(&self, request: Request<v1::GetOperationRequest>) -> Answer<v1::GetOperationResponse> {
        let caller = caller_of(&request);
        answer(list::get(&self.core, &caller, request.into_inner()).await)
    }

    async fn explain_operation(
        &self,
        request: Request<v1::ExplainOperationRequest>,
    ) -> Answer<v1::ExplainOperationResponse> {
        let caller = caller_of(&request);
        answer(explain::explain(&self.core, &caller, request.into_inner()).await)
    }

    async fn list_operations(&self, request: Request<v1::ListOperationsRequest>) -> Answer<v1::ListOperationsResponse> {
        let caller = caller_of(&request);
        answer(list::list(&self.core, &caller, request.into_inner()).await)
    }

    type WatchOperationsStream = BoxStream<'static, Result<v1::WatchOperationsResponse, Status>>;

    async fn watch_operations(
        &self,
        request: Request<v1::WatchOperationsRequest>,
    ) -> Answer<Self::WatchOperationsStream> {
        let caller = caller_of(&request);
        answer(watch::watch(&self.core, &caller, request.into_inner()).await)
    }

    async fn complete_operation(
        &self,
        request: Request<v1::CompleteOperationRequest>,
    ) -> Answer<v1::CompleteOperationResponse> {
        let caller = caller_of(&request);
        answer(decide::complete(&self.core, &caller, request.into_inner()).await)
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Answer<v1::CancelOperationResponse> {
        let caller = caller_of(&request);
        answer(decide::cancel(&self.core, &caller, request.into_inner()).await)
    }

    async fn forget_operation(
        &self,
        request: Request<v1::ForgetOperationRequest>,
    ) -> Answer<v1::ForgetOperationResponse> {
        let caller = caller_of(&request);
        answer(overrides::forget(&self.core, &caller, request.into_inner()).await)
    }

    async fn force_unfence(&self, request: Request<v1::ForceUnfenceRequest>) -> Answer<v1::ForceUnfenceResponse> {
        let caller = caller_of(&request);
        answer(overrides::force_unfence(&self.core, &caller, request.into_inner()).await)
    }

    async fn force_promote(&self, request: Request<v1::ForcePromoteRequest>) -> Answer<v1::ForcePromoteResponse> {
        let caller = caller_of(&request);
        answer(overrides::force_promote(&self.core, &caller, request.into_inner()).await)
    }

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIResponse> {
        answer(Ok(access::who_am_i(&caller_of(&request))))
    }

    async fn check_access(&self, request: Request<v1::CheckAccessRequest>) -> Answer<v1::CheckAccessResponse> {
        let caller = caller_of(&request);
        answer(access::check(&self.core, &caller, request.into_inner()).await)
    }

    async fn adopt_operations(
        &self,
        request: Request<v1::AdoptOperationsRequest>,
    ) -> Answer<v1::AdoptOperationsResponse> {
        let caller = caller_of(&request);
        answer(Box::pin(adopt::adopt(&self.core, &caller, request.into_inner())).await)
    }
}
