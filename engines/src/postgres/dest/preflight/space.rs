//! Whether the database fits on the destination's disk, where that can be seen.

use super::{super::memo::Memo, Shared, error, warning};
use crate::{
    Result, host,
    postgres::{
        disk,
        payload::Requirements,
        sql::{Sql, failed},
    },
};
use handover::{Finding, OperationId};

/// WAL of the load, sorting for indexes and the log that is applied need room besides the data: a quarter of them at least.
const RESERVE_SHARE: u64 = 4;
const RESERVE_MIN: u64 = 256 << 20;

pub(super) async fn judge(
    shared: &Shared,
    sql: &Sql,
    wanted: &Requirements,
    operation: Option<&OperationId>,
) -> Result<Option<Finding>> {
    let needed = wanted.size_bytes.saturating_add((wanted.size_bytes / RESERVE_SHARE).max(RESERVE_MIN));
    let directory = disk::data_directory(&shared.config, sql).await?;
    let free = directory.and_then(|directory| host::free_bytes(&directory).ok());
    let Some(free) = free else {
        let message = format!(
            "the free space of the destination's disk cannot be seen from its agent; about {} MiB are needed",
            needed.div_ceil(1 << 20)
        );
        return Ok(Some(warning("SPACE_NOT_CHECKED", message, "make sure that the disk has room")));
    };
    let held = held_bytes(shared, sql, operation).await?;
    if free.saturating_add(held) >= needed {
        return Ok(None);
    }
    let message = format!(
        "the destination's disk has {} MiB free, about {} MiB are needed with indexes and log",
        free >> 20,
        needed.div_ceil(1 << 20)
    );
    Ok(Some(error("NO_SPACE", message, "free space on the destination's disk")))
}

/// What the operation's own replica takes already.
async fn held_bytes(shared: &Shared, sql: &Sql, operation: Option<&OperationId>) -> Result<u64> {
    let Some(operation) = operation else { return Ok(0) };
    let memo: Option<Memo> = shared.store.memo(operation).await?;
    let Some(oid) = memo.and_then(|memo| memo.oid) else { return Ok(0) };
    let size = "SELECT pg_database_size(oid) FROM pg_database WHERE oid = $1";
    let row = sql.query_opt(size, &[&oid]).await.map_err(|error| failed("measure the replica", &error))?;
    Ok(row.and_then(|row| u64::try_from(row.get::<_, i64>(0)).ok()).unwrap_or(0))
}
