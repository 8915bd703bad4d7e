//! The services as gRPC sees them: who may call, what is asked, and how answers and refusals look on the wire.

mod commands;
mod errors;
mod first;
mod status;
mod transfer;

use crate::session::Registry;
use commands::Commands;
use first::FirstSmall;
use proto::v1::{dest_agent_server::DestAgentServer, transfer_server::TransferServer};
use service::serve::{ServeOptions, Services};
use tonic::service::Routes;
use transfer::Lanes;

/// What a destination agent serves.
pub(crate) fn services(registry: &Registry, tls: bool) -> Services {
    let commands = DestAgentServer::new(Commands::new(registry.clone(), tls));
    let lanes = TransferServer::new(Lanes::new(registry.clone())).max_decoding_message_size(proto::FRAME_BYTES_MAX);
    Services {
        routes: Routes::new(commands).add_service(FirstSmall::new(lanes)),
        descriptors: proto::FILE_DESCRIPTOR_SET,
        names: &["causeway.v1.DestAgent", "causeway.v1.Transfer"],
        options: ServeOptions::transfer(),
    }
}
