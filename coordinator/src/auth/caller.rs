//! The caller of one request: who it is, and what was asked and decided about it, for the audit log.

use std::fmt;
use std::sync::{Arc, Mutex};

use handover::OperationId;
use service::serve::Peer;

use super::{
    Auth,
    names::{Action, Name, Principal},
    policy::Verdict,
    resource::Resource,
};

/// Most checks and operations of one request that are written down: a start of 100 databases comes to 201.
const NOTES_MAX: usize = 300;

/// Who sent a request.
#[derive(Clone)]
pub struct Caller {
    pub(super) principal: Arc<Principal>,
    /// Nothing where nobody was recognised.
    pub(super) auth: Option<Arc<Auth>>,
    pub(super) trail: Arc<Mutex<Trail>>,
    peer: Peer,
}

/// What happened with a request.
#[derive(Default, Debug, Clone)]
pub(super) struct Trail {
    pub(super) checks: Vec<Check>,
    pub(super) operations: Vec<String>,
    /// What was left out of the answer because the caller may not read it.
    pub(super) hidden: u64,
}

/// A question to the policies, and the answer.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) action: Action,
    pub(super) resource: String,
    pub(super) verdict: Verdict,
}

impl Caller {
    pub(super) fn new(principal: Principal, auth: Arc<Auth>, peer: Peer) -> Self {
        Self { principal: Arc::new(principal), auth: Some(auth), trail: Arc::default(), peer }
    }

    /// Where nobody was recognised: nothing is allowed.
    pub fn nobody() -> Self {
        Self { principal: Arc::new(Principal::nobody()), auth: None, trail: Arc::default(), peer: Peer::default() }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.principal.name
    }

    /// All about it.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What decides.
    pub fn auth(&self) -> Option<&Arc<Auth>> {
        self.auth.as_ref()
    }

    /// Whether what it proved itself with has run out since, at a stream that lives long.
    pub fn expired(&self, now: service::Timestamp) -> bool {
        self.principal.expires.is_some_and(|expires| now > expires)
    }

    /// Which policies hold now; see [`Auth::policy_version`].
    pub fn policy_version(&self) -> u64 {
        self.auth.as_ref().map_or(0, |auth| auth.policy_version())
    }

    /// Note in the audit log that the request was about this operation.
    pub fn concerns(&self, operation: &OperationId) {
        self.note(|trail| {
            let id = operation.as_str();
            if trail.operations.len() < NOTES_MAX && !trail.operations.iter().any(|noted| noted == id) {
                trail.operations.push(id.to_owned());
            }
        });
    }

    /// Note in the audit log that something was left out of the answer.
    pub(super) fn hides(&self) {
        self.note(|trail| trail.hidden += 1);
    }

    /// Ask the policies about somebody, without a note.
    pub fn judge(&self, who: &Principal, action: Action, resource: &Resource) -> Verdict {
        match &self.auth {
            Some(auth) => auth.judge(who, action, resource),
            None => Verdict { allowed: false, policies: Vec::new() },
        }
    }

    /// The same about the caller.
    pub(super) fn may(&self, action: Action, resource: &Resource) -> Verdict {
        self.judge(&self.principal, action, resource)
    }

    /// Ask the policies, and note the answer.
    pub(super) fn check(&self, action: Action, resource: &Resource) -> bool {
        let verdict = self.may(action, resource);
        let allowed = verdict.allowed;
        self.note(|trail| {
            if trail.checks.len() < NOTES_MAX {
                trail.checks.push(Check { action, resource: resource.to_string(), verdict });
            }
        });
        allowed
    }

    fn note(&self, write: impl FnOnce(&mut Trail)) {
        write(&mut self.trail.lock().expect("no holder of this lock panics"));
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer.addr {
            Some(addr) => write!(f, "{} ({addr})", self.principal.name),
            None => write!(f, "{}", self.principal.name),
        }
    }
}
