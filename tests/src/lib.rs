//! A cluster of real processes on this machine, and the verbs with which the tests tell what happens to it.
//!
//! A [`Cluster`] is a coordinator and the agents of two instances, "west" and "east", with real mutual TLS, in a
//! directory of its own. Everything here blocks and panics with what it awaited: it is for tests and benches only.

pub mod application;
pub mod binaries;
pub mod builder;
pub mod cluster;
pub mod content;
pub mod etcd;
pub mod faults;
pub mod links;
pub mod network;
pub mod operation;
pub mod operator;
pub mod place;
pub mod postgres;
pub mod proxy;
pub mod server;
pub mod wait;

pub use application::Application;
pub use builder::{Builder, DEST, Engine, POSTGRES, Party, SOURCE};
pub use cluster::Cluster;
pub use operation::Op;
pub use proto::v1::{self, Kind, State};
