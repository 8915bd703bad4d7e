//! Joining what the destination holds with what this side still has.

use super::{Mode, Worker};
use crate::{
    Error, Result,
    source::{Held, Plan},
    sqlite::{source::seed, wire::Point},
};

impl Worker {
    pub(super) fn plan(&mut self, held: &Held) -> Result<Plan> {
        let resume = match self.resume_point(held) {
            Ok(resume) => resume,
            Err(Error::LogLost(why)) => {
                tracing::info!(operation = %self.setting.role.operation, why, "a new generation of the seed begins");
                self.regenerate(held.generation)?;
                self.seed_state()?.generation.start()?
            }
            Err(e) => return Err(e),
        };
        let generation = self.seed_state()?.generation;
        if let Some(Mode::Rollback(passes)) = &mut self.mode {
            passes.seeded |= held.seeded && held.generation == generation.generation;
        }
        Ok(Plan {
            generation: generation.generation,
            parts: seed::parts(&generation.header, self.setting.role.database.as_str()),
            // A destination that has nothing has nothing to compare.
            verify: held.generation != 0 && generation.generation > 1,
            log_start: generation.log_start.clone(),
            log_resume: resume.position(),
            header: generation.header.encode(),
        })
    }

    /// Where the log goes on for this destination.
    fn resume_point(&self, held: &Held) -> Result<Point> {
        let generation = self.seed_state()?.generation;
        if held.generation > generation.generation {
            return Err(Error::LogLost("the destination knows a later generation".to_owned()));
        }
        let point = match &held.log {
            Some(log) if held.generation == generation.generation => Point::parse(log)?,
            _ => generation.start()?,
        };
        match self.setting.feed.holds(point) {
            true => Ok(point),
            false => Err(Error::LogLost(format!("nothing is retained after {point}"))),
        }
    }
}
