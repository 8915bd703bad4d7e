//! The in-memory engine as it is on a real machine: each call may take its time, fail before or after its effect, and be the
//! last thing that the process does.

mod dest;
mod source;

pub use dest::SimDest;
pub use source::SimSource;

use crate::{
    machine::{Effect, Process},
    planted::Planted,
};
use engines::{Error, Result};

/// A seed is cut into small chunks, and the log into small batches, so that there are many of them to be interrupted.
const BYTES_MAX: usize = 2000;

#[derive(Clone)]
struct Gate {
    process: Process,
    planted: Option<Planted>,
}

impl Gate {
    /// Lets a call happen, or not.
    async fn pass<T>(&self, call: &'static str, effect: Effect, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.process.point(call, effect).await.map_err(|error| Error::io(call, error))?;
        let outcome = work.await;
        // The effect stands; whether anybody is told is another matter.
        let told = match self.process.point(call, Effect::Reads).await {
            Ok(()) => outcome,
            Err(error) => Err(Error::io(call, error)),
        };
        match (&told, effect) {
            (Ok(_), Effect::Reads) => {}
            (Ok(_), Effect::Writes) => self.process.note(format_args!("{call}")),
            (Err(error), _) => self.process.note(format_args!("{call}: {}", error.code())),
        }
        told
    }

    fn planted(&self, fault: Planted) -> bool {
        self.planted == Some(fault)
    }
}
