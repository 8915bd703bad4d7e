//! The role of the source instance in one operation, as one pure function.
//!
//! The engine keeps the record durably; the agent calls [`step`], records what it answers, and then acts.

use crate::{Attempt, CommandVersion, DatabaseName, Incarnation, Kind, OperationId, Position, Token};
use serde::{Deserialize, Serialize};

/// What the source instance knows durably about one operation.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SourceRole {
    /// The operation.
    pub operation: OperationId,
    /// Copy or move.
    pub kind: Kind,
    /// The database that is copied or moved.
    pub database: DatabaseName,
    /// The secret shared with the destination agent.
    pub token: Token,
    /// Where the destination agent listens, `host:port`; needed to ask it after a restart.
    pub dest_address: String,
    /// The certificate identity of the destination agent; not looked at without TLS.
    pub dest_identity: String,
    /// Cap for retained log in bytes; 0 leaves it to the engine's configuration.
    pub log_budget_bytes: u64,
    /// What the database was when the operation began.
    pub incarnation: Incarnation,
    /// The highest version of any command obeyed.
    pub version: CommandVersion,
    /// The highest closed attempt; an attempt at or below it can never be fenced again.
    pub floor: Attempt,
    /// Where the source stands.
    pub phase: Phase,
}

/// Where the source stands. Every phase is durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Set by Begin, and by every way back from a fence: clients write, the log is retained and streamed.
    Replicating,
    /// Set by Fence before the first client is refused; `saved` is what the engine will have to restore.
    Fencing {
        /// The attempt.
        attempt: Attempt,
        /// Opaque to all but the engine.
        saved: String,
    },
    /// Set once no client can write any more, also after a restart of agent or instance.
    Fenced {
        /// The attempt.
        attempt: Attempt,
        /// Opaque to all but the engine.
        saved: String,
        /// The one position of this attempt.
        position: Position,
    },
    /// Set by Release before the database is dropped (move) or its log retention ended (copy). Point of no return.
    Releasing {
        /// The attempt that became primary.
        attempt: Attempt,
    },
    /// Set once dropped (move) or no longer replicating (copy).
    Released {
        /// The attempt that became primary.
        attempt: Attempt,
    },
    /// Set by Cleanup before retention, fence and helpers are removed; the record itself goes last.
    CleaningUp {
        /// What a fence that may still stand has to restore; empty if there was none.
        saved: String,
    },
}

/// What may happen to the source.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The coordinator commands to fence for an attempt (move only).
    Fence(CommandVersion, Attempt),
    /// The engine reports the fence durable at this position.
    FenceDurable(Attempt, Position),
    /// The engine could not fence and has left the database open.
    FenceGaveUp(Attempt),
    /// The coordinator commands to mark a consistent point for an attempt (copy only).
    Mark(CommandVersion, Attempt),
    /// The coordinator commands to reopen; it has the destination's `Aborted` for this attempt.
    Unfence(CommandVersion, Attempt),
    /// The engine reports the database open again.
    Reopened(Attempt),
    /// The destination answered this agent's own question about an attempt.
    DestAnswered(Attempt, DestAnswer),
    /// The coordinator commands to drop (move) or to stop replicating (copy); the destination is durably primary.
    Release(CommandVersion, Attempt),
    /// The engine reports the release done.
    ReleaseDone,
    /// The coordinator commands to remove every trace; the destination has discarded its half.
    Cleanup(CommandVersion),
    /// An operator commands to reopen without the destination's answer, having been asked twice.
    ForceUnfence(CommandVersion),
}

/// How the destination answers `Abort(n)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DestAnswer {
    /// The attempt is closed and can never be promoted.
    Aborted,
    /// The destination is primary; everybody rolls forward.
    Promoted,
    /// It is prepared for this attempt; whoever asked without aborting has nothing to do.
    Prepared,
    /// It has no record of the operation, or of another incarnation: nothing follows from that.
    Unknown,
}

/// What the agent does after it has recorded the next role.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Close the database to clients for the attempt. Undo: [`Action::Reopen`]. The engine records `Fencing`, with what
    /// it saves, in the same transaction as the closing where it has one.
    Close(Attempt),
    /// Tell the destination in band that the attempt is fenced there. Undo: none needed, the destination decides.
    AnnounceFenced(Attempt, Position),
    /// Take a consistent point for the attempt and announce it in band. Undo: none needed.
    TakeMark(Attempt),
    /// Open the database again; the engine records the next role in the same transaction where it has one.
    Reopen(Attempt),
    /// Go on streaming after an aborted mark.
    ResumeStream(Attempt),
    /// Drop the database (move) or end its log retention (copy). Point of no return.
    Release(Attempt),
    /// Remove fence, retention and helpers, and then the record.
    RemoveAll,
}

/// The answer of [`step`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// To be recorded durably before any action.
    pub next: SourceRole,
    /// To be performed in this order; each is idempotent.
    pub actions: Vec<Action>,
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
    /// The command does not fit the phase.
    #[error("{command} does not fit a source that is {phase}")]
    WrongPhase {
        /// The command.
        command: &'static str,
        /// The phase, in a word.
        phase: &'static str,
    },
    /// The command is for the other kind of operation.
    #[error("{command} does not fit a {kind}")]
    WrongKind {
        /// The command.
        command: &'static str,
        /// The kind of this operation.
        kind: Kind,
    },
}

impl Phase {
    /// The phase in a word, as shown to people.
    pub fn as_str(&self) -> &'static str {
        match self {
            Phase::Replicating => "replicating",
            Phase::Fencing { .. } => "fencing",
            Phase::Fenced { .. } => "fenced",
            Phase::Releasing { .. } => "releasing",
            Phase::Released { .. } => "released",
            Phase::CleaningUp { .. } => "cleaning up",
        }
    }

    /// The attempt that it is about, if it is about one.
    pub fn attempt(&self) -> Option<Attempt> {
        match self {
            Phase::Fencing { attempt, .. }
            | Phase::Fenced { attempt, .. }
            | Phase::Releasing { attempt }
            | Phase::Released { attempt } => Some(*attempt),
            Phase::Replicating | Phase::CleaningUp { .. } => None,
        }
    }
}

impl SourceRole {
    /// The attempt whose outcome this side cannot know by itself, if there is one: an agent that starts with such a
    /// role asks the destination before it does anything else.
    pub fn in_doubt(&self) -> Option<Attempt> {
        match &self.phase {
            Phase::Fencing { attempt, .. } | Phase::Fenced { attempt, .. } => Some(*attempt),
            Phase::Replicating | Phase::Releasing { .. } | Phase::Released { .. } | Phase::CleaningUp { .. } => None,
        }
    }

    /// Whether the fence may stand, so that clients may be refused.
    pub fn may_be_fenced(&self) -> bool {
        !matches!(self.phase, Phase::Replicating)
    }

    fn with(&self, phase: Phase) -> SourceRole {
        SourceRole { phase, ..self.clone() }
    }

    fn closed(&self, attempt: Attempt) -> SourceRole {
        SourceRole { floor: self.floor.max(attempt), phase: Phase::Replicating, ..self.clone() }
    }

    fn obeying(&self, version: CommandVersion) -> Result<SourceRole, Refusal> {
        if version < self.version {
            return Err(Refusal::StaleVersion { given: version, known: self.version });
        }
        Ok(SourceRole { version, ..self.clone() })
    }
}

/// What `event` makes of `role`. A refusal changes nothing; the same command given twice has the effect of one.
pub fn step(role: &SourceRole, event: &Event) -> Result<Step, Refusal> {
    use Phase::*;
    let stay = |role: SourceRole| Ok(Step { next: role, actions: vec![] });
    let go = |next: SourceRole, action: Action| Ok(Step { next, actions: vec![action] });
    let wrong = |command| Err(Refusal::WrongPhase { command, phase: role.phase.as_str() });

    match event {
        Event::Fence(version, n) => {
            let role = role.obeying(*version)?;
            if role.kind != Kind::Move {
                return Err(Refusal::WrongKind { command: "Fence", kind: role.kind });
            }
            if *n <= role.floor {
                return Err(Refusal::StaleAttempt { given: *n, floor: role.floor });
            }
            match &role.phase {
                Replicating => {
                    let next = role.with(Fencing { attempt: *n, saved: String::new() });
                    go(next, Action::Close(*n))
                }
                Fencing { attempt, .. } if attempt == n => stay(role),
                Fenced { attempt, position, .. } if attempt == n => {
                    let announce = Action::AnnounceFenced(*n, position.clone());
                    go(role, announce)
                }
                Fencing { .. } | Fenced { .. } | Releasing { .. } | Released { .. } | CleaningUp { .. } => {
                    wrong("Fence")
                }
            }
        }
        Event::FenceDurable(n, position) => match &role.phase {
            Fencing { attempt, saved } if attempt == n => {
                let next = role.with(Fenced { attempt: *n, saved: saved.clone(), position: position.clone() });
                go(next, Action::AnnounceFenced(*n, position.clone()))
            }
            _ => wrong("FenceDurable"),
        },
        Event::FenceGaveUp(n) => match &role.phase {
            // The fence was never durable, so the frame that lets the destination prepare was never sent.
            Fencing { attempt, .. } if attempt == n => stay(role.closed(*n)),
            _ => wrong("FenceGaveUp"),
        },
        Event::Mark(version, n) => {
            let role = role.obeying(*version)?;
            if role.kind != Kind::Copy {
                return Err(Refusal::WrongKind { command: "Mark", kind: role.kind });
            }
            if *n <= role.floor {
                return Err(Refusal::StaleAttempt { given: *n, floor: role.floor });
            }
            match role.phase {
                Replicating => go(role, Action::TakeMark(*n)),
                _ => wrong("Mark"),
            }
        }
        Event::Unfence(version, n) => {
            let role = role.obeying(*version)?;
            match &role.phase {
                Replicating => go(role.closed(*n), Action::ResumeStream(*n)),
                Fencing { attempt, .. } | Fenced { attempt, .. } if attempt == n => go(role, Action::Reopen(*n)),
                // A newer attempt stands: the command is late and its attempt long closed.
                Fencing { attempt, .. } | Fenced { attempt, .. } if attempt > n => stay(role),
                Fencing { .. } | Fenced { .. } | Releasing { .. } | Released { .. } | CleaningUp { .. } => {
                    wrong("Unfence")
                }
            }
        }
        Event::Reopened(n) => match &role.phase {
            Fencing { attempt, .. } | Fenced { attempt, .. } if attempt == n => {
                go(role.closed(*n), Action::ResumeStream(*n))
            }
            Replicating => stay(role.clone()),
            _ => wrong("Reopened"),
        },
        Event::DestAnswered(n, answer) => match (&role.phase, answer) {
            (Fencing { attempt, .. } | Fenced { attempt, .. }, DestAnswer::Aborted) if attempt == n => {
                go(role.clone(), Action::Reopen(*n))
            }
            // Prepared and Promoted: the coordinator rolls forward or aborts. Unknown: nothing follows, stay fenced.
            (_, DestAnswer::Aborted | DestAnswer::Promoted | DestAnswer::Prepared | DestAnswer::Unknown) => {
                stay(role.clone())
            }
        },
        Event::Release(version, n) => {
            let role = role.obeying(*version)?;
            match (&role.phase, role.kind) {
                (Fenced { attempt, .. }, Kind::Move) if attempt == n => {
                    go(role.with(Releasing { attempt: *n }), Action::Release(*n))
                }
                (Replicating, Kind::Copy) if *n > role.floor => {
                    go(role.with(Releasing { attempt: *n }), Action::Release(*n))
                }
                (Releasing { attempt }, _) if attempt == n => go(role, Action::Release(*n)),
                (Released { .. }, _) => stay(role),
                _ => wrong("Release"),
            }
        }
        Event::ReleaseDone => match &role.phase {
            Releasing { attempt } | Released { attempt } => stay(role.with(Released { attempt: *attempt })),
            _ => wrong("ReleaseDone"),
        },
        Event::Cleanup(version) => {
            let role = role.obeying(*version)?;
            match &role.phase {
                Replicating => go(role.with(CleaningUp { saved: String::new() }), Action::RemoveAll),
                Fencing { saved, .. } | Fenced { saved, .. } => {
                    let next = role.with(CleaningUp { saved: saved.clone() });
                    go(next, Action::RemoveAll)
                }
                CleaningUp { .. } => go(role, Action::RemoveAll),
                // Nothing is left to clean but the record.
                Released { .. } => go(role, Action::RemoveAll),
                Releasing { .. } => wrong("Cleanup"),
            }
        }
        Event::ForceUnfence(version) => {
            let role = role.obeying(*version)?;
            match &role.phase {
                Replicating => stay(role),
                Fencing { attempt, .. } | Fenced { attempt, .. } => {
                    let n = *attempt;
                    go(role, Action::Reopen(n))
                }
                Releasing { .. } | Released { .. } | CleaningUp { .. } => wrong("ForceUnfence"),
            }
        }
    }
}
