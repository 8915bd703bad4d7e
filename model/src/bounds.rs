//! How far a model goes: what it explores, it explores exhaustively.

use handover::Kind;

/// The bounds of one model.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about, in a sentence.
    pub about: &'static str,
    /// Copy or move.
    pub kind: Kind,
    /// It begins before either agent knows the operation, not when both replicate.
    pub from_start: bool,
    /// Attempts at completing.
    pub attempts: u8,
    /// Transactions that clients commit at the source.
    pub writes: u8,
    /// A second coordinator that may be stale.
    pub two_coordinators: bool,
    /// How often another process takes the source's lock over while the one before sleeps.
    pub source_takeovers: u8,
    /// The same at the destination.
    pub dest_takeovers: u8,
    /// The destination may be restored from a backup that knows nothing of the operation.
    pub restore: bool,
    /// One side may be lost for ever, and an operator uses the overrides that are made for it.
    pub loss: bool,
    /// How often the source loses its log, so that the seed is verified again.
    pub seeds_again: u8,
    /// How often a ready operation falls behind.
    pub lags: u8,
}

/// The least from which the others differ: a move that is ready, one attempt, one transaction, one coordinator.
pub const SMALL: Bounds = Bounds {
    name: "small",
    about: "one attempt of a move that is ready",
    kind: Kind::Move,
    from_start: false,
    attempts: 1,
    writes: 1,
    two_coordinators: false,
    source_takeovers: 0,
    dest_takeovers: 0,
    restore: false,
    loss: false,
    seeds_again: 0,
    lags: 0,
};

/// A copy.
pub const SMALL_COPY: Bounds =
    Bounds { name: "small-copy", about: "two attempts of a copy", kind: Kind::Copy, attempts: 2, ..SMALL };
/// Each half's lock taken over once.
pub const SMALL_TAKEOVERS: Bounds = Bounds {
    name: "small-takeovers",
    about: "each agent superseded once",
    source_takeovers: 1,
    dest_takeovers: 1,
    ..SMALL
};
/// From the first command.
pub const SMALL_START: Bounds = Bounds {
    name: "small-start",
    about: "from the first command, the destination agent superseded once",
    from_start: true,
    dest_takeovers: 1,
    ..SMALL
};
/// Two coordinators, from the first command.
pub const SMALL_TWO: Bounds = Bounds {
    name: "small-two",
    about: "from the first command, two coordinators",
    from_start: true,
    writes: 0,
    two_coordinators: true,
    ..SMALL
};
/// A destination that is restored.
pub const SMALL_RESTORE: Bounds =
    Bounds { name: "small-restore", about: "the destination restored from a backup", restore: true, ..SMALL };

/// A side that is lost for ever.
pub const SMALL_LOSS: Bounds = Bounds {
    name: "small-loss",
    about: "one side lost for ever, and an operator's overrides",
    writes: 0,
    loss: true,
    ..SMALL
};

/// What `cargo test` explores: seconds.
pub const SMALL_ONES: [&Bounds; 7] =
    [&SMALL, &SMALL_COPY, &SMALL_TAKEOVERS, &SMALL_START, &SMALL_TWO, &SMALL_RESTORE, &SMALL_LOSS];

/// What `make model` explores: minutes.
pub const ALL: [Bounds; 10] = [
    Bounds { name: "move", about: "a move with three attempts", attempts: 3, ..SMALL },
    Bounds {
        name: "writes",
        about: "a move while clients write between its attempts",
        attempts: 3,
        writes: 3,
        ..SMALL
    },
    Bounds {
        name: "coordinators",
        about: "a move with a stale coordinator",
        attempts: 2,
        two_coordinators: true,
        ..SMALL
    },
    Bounds {
        name: "takeovers",
        about: "a move whose agents are each superseded while they sleep",
        attempts: 2,
        source_takeovers: 1,
        dest_takeovers: 1,
        ..SMALL
    },
    Bounds {
        name: "copy",
        about: "a copy whose agents are each superseded while they sleep",
        kind: Kind::Copy,
        attempts: 2,
        writes: 2,
        source_takeovers: 1,
        dest_takeovers: 1,
        ..SMALL
    },
    Bounds {
        name: "copy-coordinators",
        about: "three attempts of a copy with a stale coordinator, while clients write",
        kind: Kind::Copy,
        attempts: 3,
        writes: 2,
        two_coordinators: true,
        ..SMALL
    },
    Bounds {
        name: "start",
        about: "a move from its first command: the seed sent again, passing lag, a superseded destination",
        from_start: true,
        dest_takeovers: 1,
        seeds_again: 1,
        lags: 1,
        ..SMALL
    },
    Bounds {
        name: "start-coordinators",
        about: "a move from its first command: the seed sent again, a stale coordinator, a superseded destination",
        from_start: true,
        two_coordinators: true,
        dest_takeovers: 1,
        seeds_again: 1,
        ..SMALL
    },
    Bounds {
        name: "restore",
        about: "a move of two attempts whose destination is restored from a backup",
        attempts: 2,
        restore: true,
        ..SMALL
    },
    Bounds {
        name: "loss",
        about: "a move of two attempts one of whose sides is lost for ever, with an operator's overrides",
        attempts: 2,
        writes: 0,
        loss: true,
        ..SMALL
    },
];
