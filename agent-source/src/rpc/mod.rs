//! The `SourceAgent` service: reads requests, calls the session, writes answers.

mod commands;
mod errors;
mod preflight;

use crate::session::Registry;
use commands::Commands;
use proto::v1::source_agent_server::SourceAgentServer;
use service::serve::{ServeOptions, Services};
use tonic::service::Routes;

/// What a source agent serves.
pub fn services(registry: &Registry) -> Services {
    Services {
        routes: Routes::new(SourceAgentServer::new(Commands::new(registry.clone()))),
        descriptors: proto::FILE_DESCRIPTOR_SET,
        names: &["causeway.v1.SourceAgent"],
        options: ServeOptions::default(),
    }
}
