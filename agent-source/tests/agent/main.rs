//! What a source agent does over real sockets, on an engine in memory.

mod fields;
mod life;
mod rig;
