//! Tests of the source half: real second processes as applications, and a destination that replays chunks and frames.

mod app;
mod rig;

mod drops;
mod fences;
mod measure;
mod moves;
mod preflights;
mod restarts;
mod rollback;
mod standing;
