//! `causeway.v1.Transfer`: lanes, and the probe of a preflight.

use super::errors;
use crate::session::{self, Registry};
use futures::{StreamExt as _, stream::BoxStream};
use proto::v1::{DestFrame, ProbeRequest, ProbeResponse, SourceFrame, transfer_server::Transfer};
use service::serve::peer_of;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Answers that wait for a source that does not read: acknowledgements and digests, a few hundred KiB at the most.
const ANSWERS_MAX: usize = 32;

/// The transfer service.
pub(crate) struct Lanes {
    registry: Registry,
}

impl Lanes {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry }
    }
}

#[tonic::async_trait]
impl Transfer for Lanes {
    type ReplicateStream = BoxStream<'static, Result<DestFrame, Status>>;

    async fn replicate(
        &self,
        request: Request<Streaming<SourceFrame>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let caller = peer_of(&request);
        let inbound = request.into_inner().map(|frame| frame.map_err(|status| errors::inbound(&status))).boxed();
        let (out, answers) = mpsc::channel(ANSWERS_MAX);
        // A task of its own: engine calls must not be dropped in the middle when the source goes away.
        self.registry.env().spawn("lane", session::run_lane(self.registry.clone(), caller, inbound, out));
        let answers = ReceiverStream::new(answers).map(|answer| answer.map_err(errors::status)).boxed();
        Ok(Response::new(answers))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse {
            instance: self.registry.instance().as_str().to_owned(),
            engine: self.registry.engine().name().to_owned(),
            protocol: proto::PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }
}
