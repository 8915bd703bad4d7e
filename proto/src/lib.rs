//! The wire: `causeway.v1` as prost and tonic make it, and its conversion to and from the types of `handover`.

pub mod convert;

/// The messages, clients and servers of package `causeway.v1`. Their documentation stands in `causeway/v1/*.proto`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("causeway.v1");
}

/// What is spoken to etcd, as far as the coordinator's store uses it. The documentation stands in `etcd/*.proto`.
#[allow(missing_docs, clippy::all)]
pub mod etcd {
    /// Keys, values and events.
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    /// Requests, answers and clients.
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
}

/// The encoded descriptors of all services, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/causeway.bin"));

/// The version of the transfer protocol; both agents must agree.
pub const PROTOCOL: u32 = 1;

/// The largest message any service takes, in bytes: a chunk or log record of 1 MiB, which incompressible rows or a large
/// frame header may exceed a little, with room to spare.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The largest frame of a transfer. Frames are cut at about a megabyte, but a row in the log is never cut, and PostgreSQL's rows
/// have up to a gigabyte.
pub const FRAME_BYTES_MAX: usize = (1 << 30) + (1 << 20);
