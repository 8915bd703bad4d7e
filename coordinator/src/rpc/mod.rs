//! The Coordinator service: the only place where it speaks gRPC to users.

mod databases;
mod decide;
mod error;
mod explain;
mod fields;
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
use service::serve::{ServeOptions, Services, peer_of};
use tonic::{Request, Response, Status, service::Routes};

use crate::core::Core;

pub use error::Error;

/// What a coordinator serves.
pub fn services(core: Arc<Core>) -> Services {
    let server = CoordinatorServer::new(Api { core }).max_decoding_message_size(proto::MESSAGE_BYTES_MAX);
    Services {
        routes: Routes::new(server),
        descriptors: proto::FILE_DESCRIPTOR_SET,
        names: &["causeway.v1.Coordinator"],
        options: ServeOptions::default(),
    }
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
        let peer = peer_of(&request);
        answer(instances::register(&self.core, &peer, request.into_inner()).await)
    }

    async fn list_instances(&self, _: Request<v1::ListInstancesRequest>) -> Answer<v1::ListInstancesResponse> {
        answer(instances::list(&self.core).await)
    }

    async fn remove_instance(&self, request: Request<v1::RemoveInstanceRequest>) -> Answer<v1::RemoveInstanceResponse> {
        let peer = peer_of(&request);
        answer(instances::remove(&self.core, &peer, request.into_inner()).await)
    }

    async fn list_databases(&self, request: Request<v1::ListDatabasesRequest>) -> Answer<v1::ListDatabasesResponse> {
        answer(databases::list(&self.core, request.into_inner()).await)
    }

    async fn purge_database(&self, request: Request<v1::PurgeDatabaseRequest>) -> Answer<v1::PurgeDatabaseResponse> {
        let peer = peer_of(&request);
        answer(databases::purge(&self.core, &peer, request.into_inner()).await)
    }

    async fn start_operation(&self, request: Request<v1::StartOperationRequest>) -> Answer<v1::StartOperationResponse> {
        let peer = peer_of(&request);
        answer(Box::pin(start::start(&self.core, &peer, request.into_inner())).await)
    }

    async fn get_operation(&self, request: Request<v1::GetOperationRequest>) -> Answer<v1::GetOperationResponse> {
        answer(list::get(&self.core, request.into_inner()).await)
    }

    async fn explain_operation(
        &self,
        request: Request<v1::ExplainOperationRequest>,
    ) -> Answer<v1::ExplainOperationResponse> {
        answer(explain::explain(&self.core, request.into_inner()).await)
    }

    async fn list_operations(&self, request: Request<v1::ListOperationsRequest>) -> Answer<v1::ListOperationsResponse> {
        answer(list::list(&self.core, request.into_inner()).await)
    }

    type WatchOperationsStream = BoxStream<'static, Result<v1::WatchOperationsResponse, Status>>;

    async fn watch_operations(
        &self,
        request: Request<v1::WatchOperationsRequest>,
    ) -> Answer<Self::WatchOperationsStream> {
        answer(watch::watch(&self.core, request.into_inner()).await)
    }

    async fn complete_operation(
        &self,
        request: Request<v1::CompleteOperationRequest>,
    ) -> Answer<v1::CompleteOperationResponse> {
        let peer = peer_of(&request);
        answer(decide::complete(&self.core, &peer, request.into_inner()).await)
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Answer<v1::CancelOperationResponse> {
        let peer = peer_of(&request);
        answer(decide::cancel(&self.core, &peer, request.into_inner()).await)
    }

    async fn forget_operation(
        &self,
        request: Request<v1::ForgetOperationRequest>,
    ) -> Answer<v1::ForgetOperationResponse> {
        let peer = peer_of(&request);
        answer(overrides::forget(&self.core, &peer, request.into_inner()).await)
    }

    async fn force_unfence(&self, request: Request<v1::ForceUnfenceRequest>) -> Answer<v1::ForceUnfenceResponse> {
        let peer = peer_of(&request);
        answer(overrides::force_unfence(&self.core, &peer, request.into_inner()).await)
    }

    async fn force_promote(&self, request: Request<v1::ForcePromoteRequest>) -> Answer<v1::ForcePromoteResponse> {
        let peer = peer_of(&request);
        answer(overrides::force_promote(&self.core, &peer, request.into_inner()).await)
    }
}
