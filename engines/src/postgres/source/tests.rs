//! The source half against a real server.

mod begins;
mod ends;
mod fences;
mod logs;
mod preflights;
mod rig;
mod seeds;
