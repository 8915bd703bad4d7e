//! How much log may be retained here, and whether that is enough to begin with.

use super::{super::budget, Inner, error, warning};
use crate::{Result, postgres::sql::Sql};
use handover::Finding;

/// Below this much free disk no log is retained at all: a few segments and a checkpoint fill it.
const FREE_MIN: u64 = 256 << 20;

/// The cap for an operation that asks for nothing else.
pub(super) async fn judge(inner: &Inner, sql: &Sql, findings: &mut Vec<Finding>) -> Result<u64> {
    let asked = inner.config.setup().log_budget_bytes;
    let cap = budget::cap(inner, sql, 0, 0).await?;
    match inner.disk.free_bytes(inner, sql).await? {
        None => findings.push(warning(
            "LOG_SPACE_NOT_CHECKED",
            format!("the disk of pg_wal cannot be seen from the source's agent: retained log is bounded by {asked} bytes alone"),
            "set --log-budget-bytes to what that disk can spare, or let the agent see the server's data directory",
        )),
        Some(free) if free < FREE_MIN => findings.push(error(
            "LOG_SPACE",
            format!("the disk of pg_wal has {free} bytes free, too few to retain any log"),
            "free space on that disk",
        )),
        Some(_) if cap < asked => findings.push(warning(
            "LOG_SPACE_SMALL",
            format!("retained log may take {cap} bytes here, less than the configured {asked}"),
            "free space on the disk of pg_wal, or keep the destination's outages short",
        )),
        Some(_) => {}
    }
    Ok(cap)
}
