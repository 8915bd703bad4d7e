//! The role of the destination instance in one operation, as one pure function.
//!
//! Its record `Primary` is the commit point of the whole operation: nobody else decides.

use crate::{
    Attempt, CommandVersion, DatabaseName, Epoch, Incarnation, Kind, OperationId, Position, Token,
    operation::HookOutcome, source_role::DestAnswer,
};
use serde::{Deserialize, Serialize};

/// What the destination instance knows durably about one operation.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct DestRole {
    /// The operation.
    pub operation: OperationId,
    /// Copy or move.
    pub kind: Kind,
    /// The database being made; it keeps the source's name.
    pub database: DatabaseName,
    /// The secret shared with the source agent.
    pub token: Token,
    /// The certificate identity of the source agent; empty when the operation runs without TLS.
    pub source_identity: String,
    /// What the source database was at the first Hello; a source that changed since is refused.
    pub incarnation: Option<Incarnation>,
    /// The highest epoch of a source agent seen in a Hello; an older agent is refused.
    pub source_epoch: Epoch,
    /// The highest version of any command obeyed.
    pub version: CommandVersion,
    /// The highest closed attempt; an attempt at or below it can never be promoted.
    pub floor: Attempt,
    /// Outcome of the `on_online` hook once it ran, so that it runs once however often Finish is repeated.
    pub hook: Option<HookOutcome>,
    /// Where the destination stands.
    pub phase: Phase,
}

/// Where the destination stands. Every phase is durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Set by Prepare, and again when a lost log makes the seed be verified anew.
    Seeding,
    /// Set when the seed is loaded and what was logged meanwhile is applied: the log is applied as it comes.
    Replica,
    /// Set when the in-band marker of an attempt arrived and everything up to it is applied and durable.
    Prepared {
        /// The attempt.
        attempt: Attempt,
        /// Its marker.
        position: Position,
    },
    /// Set by Promote, in the transaction that opens the database. **The flip.**
    Primary {
        /// The attempt that was promoted.
        attempt: Attempt,
    },
    /// Set by Discard before anything is removed. Point of no return.
    Discarding,
    /// Set once nothing but this record is left.
    Discarded,
}

/// What may happen to the destination.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The engine reports the seed loaded and the log up to now applied.
    SeedLoaded,
    /// The source cannot continue its log: the seed is verified anew from here.
    SeedAgain,
    /// The marker of an attempt arrived in band and everything up to it is durable.
    Marker(Attempt, Position),
    /// Somebody wants the attempt closed. A version is given by the coordinator, none by the source agent.
    Abort(Option<CommandVersion>, Attempt),
    /// The coordinator commands to open the database to clients.
    Promote(CommandVersion, Attempt),
    /// The coordinator commands to remove everything.
    Discard(CommandVersion),
    /// The engine reports everything removed.
    DiscardDone,
    /// The coordinator commands to drop helpers and run the hook.
    Finish(CommandVersion),
    /// The coordinator commands to forget the operation; the source has confirmed that it is released or cleaned up.
    Forget(CommandVersion),
    /// An operator commands to open without a marker, having been asked twice.
    ForcePromote(CommandVersion, Attempt),
}

/// What the agent does after it has recorded the next role.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Open the database to clients; idempotent roll-forward of the durable `Primary`. Point of no return.
    Open,
    /// Remove the half-made database and every helper. Point of no return.
    RemoveAll,
    /// Drop helpers, gather statistics, run the hook. Undo: none needed.
    Finish,
    /// Remove the record.
    RemoveRecord,
}

/// What the one who asked is told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// The event had its effect, or had it already.
    Done,
    /// To a marker: it is at or below the floor, or not the first one of its attempt.
    Skipped,
    /// To Abort, Discard and Promote.
    Decided(DestAnswer),
}

/// The answer of [`step`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// To be recorded durably before any action and before the answer.
    pub next: DestRole,
    /// To be performed in this order; each is idempotent.
    pub actions: Vec<Action>,
    /// What to tell the one who asked.
    pub answer: Answer,
}

/// Why a command changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A newer command has been obeyed.
    #[error("command version {given} is older than {known}, which was obeyed already")]
    StaleVersion {
        /// The version given.
        given: CommandVersion,
        /// The highest version known.
        known: CommandVersion,
    },
    /// The attempt is closed.
    #[error("attempt {given} is closed, the floor is {floor}")]
    StaleAttempt {
        /// The attempt given.
        given: Attempt,
        /// The highest closed attempt.
        floor: Attempt,
    },
    /// The destination is not prepared for the attempt (yet).
    #[error("the destination is {phase}, not prepared for attempt {given}")]
    NotPrepared {
        /// The attempt given.
        given: Attempt,
        /// The phase, in a word.
        phase: &'static str,
    },
    /// The command does not fit the phase.
    #[error("{command} does not fit a destination that is {phase}")]
    WrongPhase {
        /// The command.
        command: &'static str,
        /// The phase, in a word.
        phase: &'static str,
    },
}

impl Phase {
    /// The phase in a word, as shown to people.
    pub fn as_str(&self) -> &'static str {
        match self {
            Phase::Seeding => "seeding",
            Phase::Replica => "replica",
            Phase::Prepared { .. } => "prepared",
            Phase::Primary { .. } => "primary",
            Phase::Discarding => "discarding",
            Phase::Discarded => "discarded",
        }
    }

    /// The attempt that it is about, if it is about one.
    pub fn attempt(&self) -> Option<Attempt> {
        match self {
            Phase::Prepared { attempt, .. } | Phase::Primary { attempt } => Some(*attempt),
            Phase::Seeding | Phase::Replica | Phase::Discarding | Phase::Discarded => None,
        }
    }
}

impl DestRole {
    fn with(&self, phase: Phase) -> DestRole {
        DestRole { phase, ..self.clone() }
    }

    fn obeying(&self, version: CommandVersion) -> Result<DestRole, Refusal> {
        if version < self.version {
            return Err(Refusal::StaleVersion { given: version, known: self.version });
        }
        Ok(DestRole { version, ..self.clone() })
    }

    /// What this side would answer to a question about an attempt, without closing it.
    pub fn answer(&self, attempt: Attempt) -> DestAnswer {
        match &self.phase {
            Phase::Primary { .. } => DestAnswer::Promoted,
            Phase::Prepared { attempt: n, .. } if *n == attempt => DestAnswer::Prepared,
            _ if attempt <= self.floor => DestAnswer::Aborted,
            _ => DestAnswer::Unknown,
        }
    }
}

/// What `event` makes of `role`. A refusal changes nothing; the same command given twice has the effect of one.
pub fn step(role: &DestRole, event: &Event) -> Result<Step, Refusal> {
    use Phase::*;
    let done = |next: DestRole| Ok(Step { next, actions: vec![], answer: Answer::Done });
    let act = |next: DestRole, action| Ok(Step { next, actions: vec![action], answer: Answer::Done });
    let decide = |next: DestRole, actions, answer| Ok(Step { next, actions, answer: Answer::Decided(answer) });
    let wrong = |command| Err(Refusal::WrongPhase { command, phase: role.phase.as_str() });

    match event {
        Event::SeedLoaded => match role.phase {
            Seeding | Replica => done(role.with(Replica)),
            _ => wrong("SeedLoaded"),
        },
        Event::SeedAgain => match role.phase {
            Seeding | Replica => done(role.with(Seeding)),
            _ => wrong("SeedAgain"),
        },
        Event::Marker(n, position) => match &role.phase {
            _ if *n <= role.floor => Ok(Step { next: role.clone(), actions: vec![], answer: Answer::Skipped }),
            Replica => done(role.with(Prepared { attempt: *n, position: position.clone() })),
            // The first marker of an attempt is its only one.
            Prepared { attempt, .. } if attempt == n => {
                Ok(Step { next: role.clone(), actions: vec![], answer: Answer::Skipped })
            }
            Seeding | Prepared { .. } | Primary { .. } | Discarding | Discarded => wrong("Marker"),
        },
        Event::Abort(version, n) => {
            if let Primary { .. } = role.phase {
                return decide(role.clone(), vec![], DestAnswer::Promoted);
            }
            // The source agent asks without a version: its token is for this operation alone.
            let role = match version {
                Some(version) => role.obeying(*version)?,
                None => role.clone(),
            };
            let floor = role.floor.max(*n);
            match &role.phase {
                Prepared { attempt, .. } if attempt <= n => {
                    decide(DestRole { floor, ..role.with(Replica) }, vec![], DestAnswer::Aborted)
                }
                Seeding | Replica | Prepared { .. } | Primary { .. } | Discarding | Discarded => {
                    decide(DestRole { floor, ..role }, vec![], DestAnswer::Aborted)
                }
            }
        }
        Event::Promote(version, n) => {
            if let Primary { .. } = role.phase {
                return decide(role.clone(), vec![Action::Open], DestAnswer::Promoted);
            }
            let role = role.obeying(*version)?;
            if *n <= role.floor {
                return Err(Refusal::StaleAttempt { given: *n, floor: role.floor });
            }
            match &role.phase {
                Prepared { attempt, .. } if attempt == n => {
                    decide(role.with(Primary { attempt: *n }), vec![Action::Open], DestAnswer::Promoted)
                }
                phase => Err(Refusal::NotPrepared { given: *n, phase: phase.as_str() }),
            }
        }
        Event::Discard(version) => match &role.phase {
            Primary { .. } => decide(role.clone(), vec![], DestAnswer::Promoted),
            Discarded => decide(role.clone(), vec![], DestAnswer::Aborted),
            Seeding | Replica | Prepared { .. } | Discarding => {
                let role = role.obeying(*version)?;
                let next = DestRole { floor: Attempt(u32::MAX), ..role.with(Discarding) };
                decide(next, vec![Action::RemoveAll], DestAnswer::Aborted)
            }
        },
        Event::DiscardDone => match role.phase {
            Discarding | Discarded => done(role.with(Discarded)),
            _ => wrong("DiscardDone"),
        },
        Event::Finish(version) => {
            let role = role.obeying(*version)?;
            match role.phase {
                Primary { .. } => act(role, Action::Finish),
                _ => wrong("Finish"),
            }
        }
        Event::Forget(version) => {
            let role = role.obeying(*version)?;
            match role.phase {
                Primary { .. } | Discarded => act(role, Action::RemoveRecord),
                _ => wrong("Forget"),
            }
        }
        Event::ForcePromote(version, n) => {
            let role = role.obeying(*version)?;
            match role.phase {
                Primary { .. } => decide(role, vec![Action::Open], DestAnswer::Promoted),
                Replica | Prepared { .. } => {
                    decide(role.with(Primary { attempt: *n }), vec![Action::Open], DestAnswer::Promoted)
                }
                // Half a database is worse than none.
                _ => wrong("ForcePromote"),
            }
        }
    }
}
