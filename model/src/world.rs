//! Everything there is in one state: what is durable, what processes remember, what is on its way.

use crate::{
    bounds::Bounds,
    message::{At, N, Net, V, version},
    record::Record,
};
use handover::{
    Attempt, CommandVersion, DatabaseName, Epoch, Incarnation, InstanceName, Kind, OperationId, Position, Side, Token,
    dest_role::{self, DestRole},
    operation::{Operation, Options, Reason, State, Times},
    source_role::{self, SourceRole},
};

/// One state of the world.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// The coordinator's record, durable.
    pub store: Stored,
    /// What each coordinator process remembers of it; the second may be stale for as long as it likes.
    pub coordinators: [Option<Stored>; 2],
    /// The source instance and its agent.
    pub source: Source,
    /// The destination instance and its agent.
    pub dest: Dest,
    /// What is on its way.
    pub net: Net,
    /// What happened, for the properties alone: no party knows it.
    pub history: History,
    /// What may still happen so and so often.
    pub left: Left,
    /// The side that is lost for ever: its instance, its agent, and all they held.
    pub lost: Option<Side>,
}

/// An operation and the version of its record.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Stored {
    /// Grows with every change.
    pub version: V,
    /// The record.
    pub operation: Record<Operation>,
}

/// The source.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// Its role record, durable.
    pub role: Option<Record<SourceRole>>,
    /// The highest version with which the record was removed, durable.
    pub watermark: V,
    /// Transactions acknowledged to clients.
    pub written: At,
    /// The database was reopened while the record still says otherwise: an engine without transactions died between.
    pub lifted: bool,
    /// The database is dropped.
    pub dropped: bool,
    /// The agent's process is fencing right now; other commands wait for it.
    pub fencing: bool,
    /// The agent's process sends log up to here and the attempt's marker after it, as often as it connects.
    pub halt: Option<(N, At)>,
    /// A process that lost the lock while it slept, with the role it remembers.
    pub asleep: Option<Asleep<SourceRole>>,
}

/// The destination.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Dest {
    /// Its role record, durable.
    pub role: Option<Record<DestRole>>,
    /// The highest version with which the record was removed, durable.
    pub watermark: V,
    /// Transactions applied. While the role is Prepared or Primary they are durable.
    pub applied: At,
    /// A process that lost the lock while it slept, with the role it remembers.
    pub asleep: Option<Asleep<DestRole>>,
}

/// What a process remembers that lost its lock.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Asleep<T>(pub Option<Record<T>>);

/// What happened, as one who sees everything would tell it. Attempts are bits.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct History {
    /// Attempts with which the destination opened to clients.
    pub opened: u8,
    /// Attempts that the destination told somebody are closed.
    pub closed: u8,
    /// The destination opened without a transaction that had been acknowledged, or with one that is none of its.
    pub torn: bool,
    /// The source was dropped while the destination was not primary.
    pub dropped_early: bool,
    /// The destination was restored from a backup.
    pub restored: bool,
    /// It had been opened before that.
    pub undone: bool,
    /// The source was dropped, or about to be, when the destination was lost or restored: nothing could be saved.
    pub beyond_help: bool,
    /// An operator reopened the source at the agent, which the operation does not know yet.
    pub unfenced: bool,
    /// An operator opened the destination at the agent, which the operation does not know yet.
    pub promoted: bool,
}

/// What may still happen so and so often.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Left {
    /// See [`Bounds::source_takeovers`].
    pub source_takeovers: u8,
    /// See [`Bounds::dest_takeovers`].
    pub dest_takeovers: u8,
    /// See [`Bounds::restore`].
    pub restores: u8,
    /// See [`Bounds::loss`].
    pub losses: u8,
    /// See [`Bounds::seeds_again`].
    pub seeds_again: u8,
    /// See [`Bounds::lags`].
    pub lags: u8,
}

/// When the operation's window ends.
pub const DEADLINE_MS: i64 = 1_000;
/// Before it.
pub const NOW_MS: i64 = 1;

/// The bit of an attempt.
pub fn bit(attempt: Attempt) -> u8 {
    1u8.checked_shl(attempt.0).unwrap_or(0)
}

/// The bits of all attempts up to one.
pub fn bits_to(attempt: Attempt) -> u8 {
    (0..=attempt.0.min(7)).fold(0, |bits, n| bits | bit(Attempt(n)))
}

/// A position as the engine writes it.
pub fn position(at: At) -> Position {
    Position::parse(&at.to_string()).expect("digits")
}

/// The position of an engine's text.
pub fn at(position: &Position) -> At {
    position.as_str().parse().expect("made by position()")
}

impl World {
    /// The state in which a model begins.
    pub fn begin(bounds: &Bounds) -> Self {
        let ready = !bounds.from_start;
        let state = if ready { State::Ready } else { State::Preparing };
        let stored = Stored { version: 1, operation: Record::new(operation(bounds.kind, state)) };
        World {
            coordinators: [Some(stored.clone()), bounds.two_coordinators.then(|| stored.clone())],
            store: stored,
            source: Source {
                role: ready.then(|| Record::new(source_role(bounds.kind, version(1)))),
                watermark: 0,
                written: 0,
                lifted: false,
                dropped: false,
                fencing: false,
                halt: None,
                asleep: None,
            },
            dest: Dest {
                role: ready.then(|| {
                    Record::new(DestRole { phase: dest_role::Phase::Replica, ..dest_role(bounds.kind, version(1)) })
                }),
                watermark: 0,
                applied: 0,
                asleep: None,
            },
            net: Net::default(),
            history: History::default(),
            left: Left {
                source_takeovers: bounds.source_takeovers,
                dest_takeovers: bounds.dest_takeovers,
                restores: u8::from(bounds.restore),
                losses: u8::from(bounds.loss),
                seeds_again: bounds.seeds_again,
                lags: bounds.lags,
            },
            lost: None,
        }
    }

    /// Whether a client's write at the source succeeds.
    pub fn source_open(&self) -> bool {
        use source_role::Phase;
        let Some(role) = &self.source.role else {
            return !self.source.dropped && self.lost != Some(Side::Source);
        };
        match (&role.phase, role.kind) {
            _ if self.source.dropped || self.lost == Some(Side::Source) => false,
            (_, Kind::Copy) => true,
            // While the fence comes about clients may still be writing; while it is removed they may be again.
            (Phase::Replicating | Phase::Fencing { .. } | Phase::CleaningUp { .. }, Kind::Move) => true,
            (Phase::Fenced { .. }, Kind::Move) => self.source.lifted,
            (Phase::Releasing { .. } | Phase::Released { .. }, Kind::Move) => false,
        }
    }

    /// Whether a client's write at the destination succeeds.
    pub fn dest_open(&self) -> bool {
        match &self.dest.role {
            _ if self.lost == Some(Side::Dest) => false,
            Some(role) => matches!(role.phase, dest_role::Phase::Primary { .. }),
            // A database stays when its record is forgotten, and goes when an older backup takes its place.
            None => self.history.opened != 0,
        }
    }
}

fn operation(kind: Kind, state: State) -> Operation {
    let times = match state {
        State::Ready => Times { ready_ms: Some(0), deadline_ms: Some(DEADLINE_MS), ..Times::default() },
        _ => Times::default(),
    };
    Operation {
        id: id(),
        batch: "b".to_owned(),
        kind,
        source: InstanceName::parse("west").expect("a name"),
        destination: InstanceName::parse("east").expect("a name"),
        database: database(),
        token: token(),
        options: Options { log_budget_bytes: 0, window_ms: DEADLINE_MS - NOW_MS },
        state,
        attempt: Attempt(0),
        findings: vec![],
        reason: None,
        times,
        hook: None,
        freeze_ms: None,
        overrides: vec![],
    }
}

/// The role that Begin makes.
pub fn source_role(kind: Kind, version: CommandVersion) -> SourceRole {
    SourceRole {
        operation: id(),
        kind,
        database: database(),
        token: token(),
        dest_address: "e:1".to_owned(),
        dest_identity: String::new(),
        log_budget_bytes: 0,
        incarnation: Incarnation::parse("1").expect("printable"),
        version,
        floor: Attempt(0),
        phase: source_role::Phase::Replicating,
    }
}

/// The role that Prepare makes.
pub fn dest_role(kind: Kind, version: CommandVersion) -> DestRole {
    DestRole {
        operation: id(),
        kind,
        database: database(),
        token: token(),
        source_identity: String::new(),
        incarnation: Some(Incarnation::parse("1").expect("printable")),
        source_epoch: Epoch(1),
        version,
        floor: Attempt(0),
        hook: None,
        phase: dest_role::Phase::Seeding,
    }
}

/// The reason of everything: no rule looks at it, so that it only would tell equal states apart.
pub fn reason() -> Reason {
    Reason::new("R", "", "")
}

fn id() -> OperationId {
    OperationId::parse("o").expect("an id")
}
fn database() -> DatabaseName {
    DatabaseName::parse("d").expect("a name")
}
fn token() -> Token {
    Token::parse("0123456789abcdef0123456789abcdef").expect("a token")
}
