//! Faults put into the rules on purpose. They live here, around the functions of `handover`, not in them.

use crate::{Bounds, bounds};

/// One deliberate fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Mutation {
    /// The destination promotes what never had its marker.
    PromoteUnprepared,
    /// The destination answers Promoted, and clients are served, before its role is durable.
    ActBeforeRecordAtDest,
    /// Aborted is answered, but the attempt not closed for ever.
    AbortWithoutFloor,
    /// Abort is answered by Aborted also by a primary.
    AbortIgnoresPrimary,
    /// Discard removes a primary, and a cancel does not close the attempt before.
    DiscardIgnoresPrimary,
    /// A marker is taken before the log up to it is applied.
    MarkerBeforeLog,
    /// A copy's source goes on sending log beyond its mark.
    LogBeyondMark,
    /// Prepared is recorded before what was applied is durable.
    PreparedBeforeDurable,
    /// A sleeping destination agent that lost its lock still writes when it wakes.
    EpochIgnoredAtDest,
    /// A sleeping source agent that lost its lock still writes when it wakes.
    EpochIgnoredAtSource,
    /// The marker is sent when the fence begins, not when it is durable.
    MarkerBeforeFence,
    /// After its fence timeout the source opens without asking the destination.
    ReopenWithoutAsking,
    /// The source opens although the destination knows nothing.
    ReopenOnUnknown,
    /// The source obeys a Fence of an attempt that is closed, under a version that is stale.
    LateFenceObeyed,
    /// A late Begin or Prepare is obeyed after everything was removed.
    WatermarkIgnored,
    /// The coordinator opens the source without the destination's Aborted.
    UnfenceWithoutAbort,
    /// The coordinator takes "I know nothing" for Aborted.
    UnknownMeansAborted,
    /// The coordinator lets the source drop the database before the flip is known.
    ReleaseAtCutover,
    /// The coordinator does not ask again, before the source is dropped, whether the destination is still primary.
    ReleaseUnasked,
    /// A cancel cleans the source before the destination has decided.
    CleanBeforeDiscard,
    /// The destination forgets, and the operation ends, before the source is clean.
    ForgetBeforeClean,
    /// The coordinator gives the commands of a state before it has stored it.
    ActBeforeStore,
    /// A stale coordinator repeats an old command under the newest version, whatever the operation has become.
    AdoptAnyVersion,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 23] = [
        Mutation::PromoteUnprepared,
        Mutation::ActBeforeRecordAtDest,
        Mutation::AbortWithoutFloor,
        Mutation::AbortIgnoresPrimary,
        Mutation::DiscardIgnoresPrimary,
        Mutation::MarkerBeforeLog,
        Mutation::LogBeyondMark,
        Mutation::PreparedBeforeDurable,
        Mutation::EpochIgnoredAtDest,
        Mutation::EpochIgnoredAtSource,
        Mutation::MarkerBeforeFence,
        Mutation::ReopenWithoutAsking,
        Mutation::ReopenOnUnknown,
        Mutation::LateFenceObeyed,
        Mutation::WatermarkIgnored,
        Mutation::UnfenceWithoutAbort,
        Mutation::UnknownMeansAborted,
        Mutation::ReleaseAtCutover,
        Mutation::ReleaseUnasked,
        Mutation::CleanBeforeDiscard,
        Mutation::ForgetBeforeClean,
        Mutation::ActBeforeStore,
        Mutation::AdoptAnyVersion,
    ];

    /// The bounds within which the fault shows, and the property that it breaks.
    pub fn shown_by(self) -> (&'static Bounds, &'static str) {
        use crate::properties::{DROPPED, ENDS, LOST, TAKEN_BACK, TRACE, TWO_OUTCOMES, TWO_PRIMARIES};
        match self {
            Mutation::PromoteUnprepared
            | Mutation::AbortWithoutFloor
            | Mutation::AbortIgnoresPrimary
            | Mutation::ReopenWithoutAsking
            | Mutation::UnfenceWithoutAbort
            | Mutation::CleanBeforeDiscard => (&bounds::SMALL, TWO_PRIMARIES),
            Mutation::ActBeforeRecordAtDest => (&bounds::SMALL, TWO_OUTCOMES),
            Mutation::DiscardIgnoresPrimary => (&bounds::SMALL, TAKEN_BACK),
            Mutation::MarkerBeforeLog | Mutation::PreparedBeforeDurable | Mutation::MarkerBeforeFence => {
                (&bounds::SMALL, LOST)
            }
            Mutation::ReleaseUnasked => (&bounds::SMALL_LOSS, ENDS),
            Mutation::LogBeyondMark => (&bounds::SMALL_COPY, LOST),
            Mutation::EpochIgnoredAtDest | Mutation::EpochIgnoredAtSource => (&bounds::SMALL_TAKEOVERS, TWO_PRIMARIES),
            Mutation::ReopenOnUnknown | Mutation::UnknownMeansAborted => (&bounds::SMALL_START, TWO_PRIMARIES),
            Mutation::LateFenceObeyed | Mutation::ActBeforeStore => (&bounds::SMALL, ENDS),
            Mutation::WatermarkIgnored => (&bounds::SMALL_START, TRACE),
            Mutation::ReleaseAtCutover => (&bounds::SMALL, DROPPED),
            Mutation::ForgetBeforeClean => (&bounds::SMALL, TRACE),
            Mutation::AdoptAnyVersion => (&bounds::SMALL_TWO, TRACE),
        }
    }
}
