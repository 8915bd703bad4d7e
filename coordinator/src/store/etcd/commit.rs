//! A commit as a transaction of etcd: what it compares, what it does, and what a refusal means.

use proto::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op, response_op,
};

use super::super::{Error, Txn};
use super::{Keys, versions::Versions};

/// etcd's default limit of comparisons, and of operations, of one transaction (`--max-txn-ops`).
pub(super) const OPS_MAX: usize = 128;
/// Comparisons beside those of the commit's own checks: the lead, the base, and the range of a large commit.
const OTHERS: usize = 3;

/// A commit, ready to be sent.
pub(super) struct Plan {
    pub(super) request: TxnRequest,
    /// The keys of the checks in the order of the answers of a refusal, after those of lead and base.
    keys: Vec<String>,
}

/// Why a transaction was refused.
pub(super) enum Refusal {
    /// We do not lead any more.
    Deposed,
    /// A base was put that we did not know.
    NewBase,
    /// A key is not as it should be.
    Conflict(String),
    /// Other keys were changed since `seen`.
    Moved,
}

/// The lead as it must stand, or nothing for a store that nobody else writes: the revision at which its key was made.
pub(super) type Fence = Option<i64>;

impl Plan {
    /// `seen` is given for a commit whose absent keys are too many to be compared one by one: they were looked for, and nothing
    /// under our keys may have been put since that revision.
    pub(super) fn new(
        keys: &Keys,
        fence: Fence,
        versions: &Versions,
        txn: &Txn,
        last: i64,
        seen: Option<i64>,
    ) -> Result<Self, Error> {
        let mut compare = Vec::new();
        let mut failure = vec![get(keys.leader()), get(keys.base(versions.count()))];
        if let Some(created) = fence {
            compare.push(equal(keys.leader(), CompareTarget::Create, TargetUnion::CreateRevision(created)));
        }
        compare.push(equal(keys.base(versions.count()), CompareTarget::Create, TargetUnion::CreateRevision(0)));
        let mut checked = Vec::new();
        for (key, wanted) in &txn.checks {
            let name = keys.data(key);
            match wanted {
                None if seen.is_some() => continue,
                None => compare.push(equal(name.clone(), CompareTarget::Create, TargetUnion::CreateRevision(0))),
                Some(version) => {
                    // A version that never was is that of no key.
                    let theirs = versions.theirs(*version).filter(|theirs| *theirs > 0);
                    let theirs = theirs.ok_or_else(|| Error::Conflict { key: key.clone() })?;
                    compare.push(equal(name.clone(), CompareTarget::Mod, TargetUnion::ModRevision(theirs)));
                }
            }
            failure.push(get(name));
            checked.push(key.clone());
        }
        if let Some(seen) = seen {
            let (result, target) = (CompareResult::Less.into(), CompareTarget::Mod.into());
            let target_union = Some(TargetUnion::ModRevision(seen.saturating_add(1)));
            compare.push(Compare { result, target, key: keys.data(""), target_union, range_end: keys.data_end() });
        }
        let mut success: Vec<RequestOp> = Vec::new();
        success.extend(txn.puts.iter().map(|(key, value)| put(keys.data(key), value.clone(), 0)));
        success.extend(txn.deletes.iter().map(|key| delete(keys.data(key))));
        if let Some(base) = versions.needed(last, txn.above) {
            success.push(put(keys.base(versions.count()), base.to_string().into_bytes(), 0));
        }
        let success = nested(success, compare.len())?;
        Ok(Self { request: TxnRequest { compare, success, failure }, keys: checked })
    }

    /// Whether a commit is beyond what one flat transaction can compare.
    pub(super) fn is_large(txn: &Txn) -> bool {
        txn.checks.len() + OTHERS > OPS_MAX
    }

    /// Why etcd refused, by what it found.
    pub(super) fn refusal(
        &self,
        fence: Fence,
        answers: &[ResponseOp],
        theirs: impl Fn(&str) -> Option<i64>,
    ) -> Refusal {
        let found: Vec<Option<(i64, i64)>> = answers.iter().map(revisions).collect();
        let at = |place: usize| found.get(place).copied().flatten();
        if fence.is_some() && at(0).map(|(created, _)| created) != fence {
            return Refusal::Deposed;
        }
        if at(1).is_some() {
            return Refusal::NewBase;
        }
        for (place, key) in self.keys.iter().enumerate() {
            if at(place + 2).map(|(_, changed)| changed) != theirs(key) {
                return Refusal::Conflict(key.clone());
            }
        }
        Refusal::Moved
    }
}

/// Operations in transactions within the transaction, if they are more than one may have: etcd counts those of each by itself,
/// less what the one around it has. All of it is one change with one revision all the same.
fn nested(ops: Vec<RequestOp>, compares: usize) -> Result<Vec<RequestOp>, Error> {
    if ops.len() <= OPS_MAX {
        return Ok(ops);
    }
    let (inner, outer) = (1..OPS_MAX)
        .rev()
        .map(|inner| (inner, ops.len().div_ceil(inner)))
        .find(|(inner, outer)| inner + (*outer).max(compares) <= OPS_MAX)
        .ok_or_else(|| Error::TooLarge { reason: format!("{} changes with {compares} conditions", ops.len()) })?;
    let mut nested = Vec::with_capacity(outer);
    let mut ops = ops.into_iter().peekable();
    while ops.peek().is_some() {
        let success = ops.by_ref().take(inner).collect();
        let request = TxnRequest { compare: Vec::new(), success, failure: Vec::new() };
        nested.push(RequestOp { request: Some(request_op::Request::RequestTxn(request)) });
    }
    Ok(nested)
}

/// The revisions at which a key was made and changed, of an answer to [`get`]; nothing if there is no key.
pub(super) fn revisions(answer: &ResponseOp) -> Option<(i64, i64)> {
    range_of(answer)?.kvs.first().map(|kv| (kv.create_revision, kv.mod_revision))
}

pub(super) fn range_of(answer: &ResponseOp) -> Option<&RangeResponse> {
    match &answer.response {
        Some(response_op::Response::ResponseRange(range)) => Some(range),
        _ => None,
    }
}

/// Whether there is a key, and of which revision; not its value.
pub(super) fn get(key: Vec<u8>) -> RequestOp {
    let request = RangeRequest { key, keys_only: true, ..RangeRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestRange(request)) }
}

pub(super) fn put(key: Vec<u8>, value: Vec<u8>, lease: i64) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestPut(PutRequest { key, value, lease })) }
}

fn delete(key: Vec<u8>) -> RequestOp {
    let request = DeleteRangeRequest { key, range_end: Vec::new() };
    RequestOp { request: Some(request_op::Request::RequestDeleteRange(request)) }
}

pub(super) fn equal(key: Vec<u8>, target: CompareTarget, value: TargetUnion) -> Compare {
    let (result, target) = (CompareResult::Equal.into(), target.into());
    Compare { result, target, key, target_union: Some(value), range_end: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_stays_within_what_etcd_takes() {
        for (ops, compares) in [(1, 1), (128, 128), (129, 2), (302, 3), (303, 103), (1000, 3)] {
            let all = nested((0..ops).map(|_| get(b"k".to_vec())).collect(), compares).expect("it fits");
            let taken = all.len().max(compares);
            assert!(taken <= OPS_MAX, "{ops} {compares}");
            let mut within = 0;
            for op in &all {
                match &op.request {
                    Some(request_op::Request::RequestTxn(inner)) => {
                        assert!(inner.success.len() <= OPS_MAX - taken, "{ops} {compares}");
                        within += inner.success.len();
                    }
                    _ => within += 1,
                }
            }
            assert_eq!(within, ops);
        }
        assert!(matches!(nested((0..5000).map(|_| get(Vec::new())).collect(), 100), Err(Error::TooLarge { .. })));
    }
}
