//! What is on its way between two processes.
//!
//! The network is the set of all that was ever sent. Whatever is in it may be delivered at any later moment, in any order,
//! any number of times, or never: that is loss, repetition, delay and reordering at once, and the strongest network
//! there is.

use handover::{
    Attempt, CommandVersion, dest_role, operation,
    source_role::{self, DestAnswer},
};

/// An attempt in one byte: states are many.
pub type N = u8;
/// A version of the coordinator's record in one byte.
pub type V = u8;
/// A position in the source's log: how many transactions are before it.
pub type At = u8;

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Message {
    /// A coordinator's command to the source.
    ToSource(ToSource),
    /// A coordinator's command to the destination.
    ToDest(ToDest),
    /// The source agent's own Abort, after its fence timeout or its restart.
    Asks(N),
    /// The answer to it.
    Answered(N, DestAnswer),
    /// In band: the fence or mark of an attempt lies at this position of the log.
    Marker(N, At),
    /// An agent's answer to a coordinator.
    Reply(Reply),
}

/// Commands to the source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, reason = "named as in the protocol")]
pub enum ToSource {
    Begin(V),
    Fence(V, N),
    Mark(V, N),
    Unfence(V, N),
    Release(V, N),
    Cleanup(V),
}

/// Commands to the destination.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, reason = "named as in the protocol")]
pub enum ToDest {
    Prepare(V),
    Promote(V, N),
    Abort(V, N),
    Discard(V),
    Finish(V),
    Forget(V),
    /// Not a command: how it stands, asked before the source is dropped.
    GetStatus,
}

/// What agents answer, as far as something follows from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reply {
    /// To Prepare.
    Prepared,
    /// To Begin.
    Begun,
    /// To Promote.
    Promoted(N),
    /// To Fence, Mark and Promote: the attempt is closed there.
    Stale(N),
    /// To Abort.
    Decided(N, DestAnswer),
    /// To Discard.
    Discarded(DestAnswer),
    /// To Unfence.
    Unfenced(N),
    /// To GetStatus: it is primary.
    StillPrimary,
    /// To Release.
    Released,
    /// To Finish.
    Finished,
    /// To Cleanup.
    Clean,
    /// To Forget.
    Forgotten,
}

/// The attempt of a small number.
pub fn attempt(n: N) -> Attempt {
    Attempt(u32::from(n))
}

/// The version of a small number.
pub fn version(v: V) -> CommandVersion {
    CommandVersion(u64::from(v))
}

/// A version as a small number.
pub fn small(version: CommandVersion) -> V {
    V::try_from(version.0).expect("the bounds keep versions far below 256")
}

/// An attempt as a small number. A floor of all attempts counts as the highest.
pub fn nth(attempt: Attempt) -> N {
    N::try_from(attempt.0).unwrap_or(N::MAX)
}

impl ToSource {
    /// The command as the role's event; nothing for Begin, which makes the role.
    pub fn event(self) -> Option<source_role::Event> {
        use source_role::Event;
        Some(match self {
            ToSource::Begin(_) => return None,
            ToSource::Fence(v, n) => Event::Fence(version(v), attempt(n)),
            ToSource::Mark(v, n) => Event::Mark(version(v), attempt(n)),
            ToSource::Unfence(v, n) => Event::Unfence(version(v), attempt(n)),
            ToSource::Release(v, n) => Event::Release(version(v), attempt(n)),
            ToSource::Cleanup(v) => Event::Cleanup(version(v)),
        })
    }
}

impl ToDest {
    /// The command as the role's event; nothing for Prepare, which makes the role, and for a question.
    pub fn event(self) -> Option<dest_role::Event> {
        use dest_role::Event;
        Some(match self {
            ToDest::Prepare(_) | ToDest::GetStatus => return None,
            ToDest::Promote(v, n) => Event::Promote(version(v), attempt(n)),
            ToDest::Abort(v, n) => Event::Abort(Some(version(v)), attempt(n)),
            ToDest::Discard(v) => Event::Discard(version(v)),
            ToDest::Finish(v) => Event::Finish(version(v)),
            ToDest::Forget(v) => Event::Forget(version(v)),
        })
    }
}

impl Reply {
    /// Whether the performer of this action waits for the answer. One that is performed no more hears nothing.
    pub fn is_for(self, action: &operation::Action) -> bool {
        use operation::Action;
        match self {
            Reply::Prepared | Reply::Begun => *action == Action::Prepare,
            Reply::Promoted(n) | Reply::Stale(n) => *action == Action::CutOver(attempt(n)),
            Reply::Decided(n, _) => *action == Action::AbortDest(attempt(n)),
            Reply::Discarded(_) => *action == Action::Discard,
            Reply::Unfenced(n) => *action == Action::Unfence(attempt(n)),
            Reply::StillPrimary | Reply::Released => matches!(action, Action::Release(_)),
            Reply::Finished => *action == Action::Finish,
            Reply::Clean => *action == Action::CleanSource,
            Reply::Forgotten => *action == Action::ForgetDest,
        }
    }
}

/// The set of all messages.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Net(Vec<Message>);

impl Net {
    /// Sends a message.
    pub fn send(&mut self, message: Message) {
        if let Err(at) = self.0.binary_search(&message) {
            self.0.insert(at, message);
        }
    }

    /// All messages.
    pub fn iter(&self) -> impl Iterator<Item = Message> {
        self.0.iter().copied()
    }

    /// Drops what does not pass.
    pub fn retain(&mut self, keep: impl Fn(Message) -> bool) {
        self.0.retain(|message| keep(*message));
    }

    /// Takes one message out, the commands first. Only the drain does that.
    pub fn take(&mut self) -> Option<Message> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }
}
