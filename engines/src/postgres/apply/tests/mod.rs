//! The applier, fed by a real walsender, against a real destination.

mod crashes;
mod kinds;
mod rig;
mod speed;
