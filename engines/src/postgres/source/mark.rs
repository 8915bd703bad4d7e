//! A consistent point for a copy: that of a temporary slot, with a snapshot that shows exactly what is before it.

use super::{
    Inner, begin,
    extras::{Marker, Sessions},
    fence::{emit, token},
    holder, instance,
    stream::{Stream, log_reader},
};
use crate::{
    Error, Result,
    postgres::{
        position::{Lsn, Point},
        rows::one,
        sql::literal,
        wire::Wire,
    },
};
use handover::{Attempt, Position, source_role::SourceRole};
use std::sync::Arc;

/// The prefix of the message behind a mark: when it is seen, everything before the mark was.
const MESSAGE: &str = "causeway.mark";

pub(super) async fn mark(inner: &Inner, stream: &Arc<Stream>, role: &SourceRole, attempt: Attempt) -> Result<Position> {
    let what = "take a consistent point";
    stream.set_marker(None);
    let sql = stream.session().await?;
    instance::check(&sql, role).await?;
    let slot = format!(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = {}",
        literal(&stream.names.slot)
    );
    log_reader(stream, one(&sql, what, &slot).await?.parse::<Lsn>(0)?).await?;
    inner.store.check().await?;
    let database = stream.database();
    let mut taker = Wire::connect(&inner.config, database, "source mark", true).await?;
    let watch = inner.maintenance("source mark").await?;
    let patience = inner.limits.slot_wait;
    let (point, snapshot) = begin::create_slot(&mut taker, &watch, &stream.names.mark(), true, patience).await?;
    let lsn: Lsn = point.parse()?;

    // Two sessions, because rows are read by the one while the other is asked what there is.
    let reading = Arc::new(inner.sql(database, "source extras").await?);
    let mut wire = Wire::connect(&inner.config, database, "source extras", false).await?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let import = holder::import_statement(&snapshot);
    for statement in [begin, import.as_str()] {
        reading.run(what, statement).await?;
        wire.query(what, statement).await?;
    }
    // The snapshot is taken over, so its slot may go.
    drop(taker);
    emit(&sql, MESSAGE, &token(inner, role, attempt)).await?;
    let memo = inner.store.memo(&role.operation).await?;
    let memo = Arc::new(memo.ok_or_else(|| Error::Misuse("a mark before the operation began".to_owned()))?);
    stream.set_marker(Some(Arc::new(Marker::new(lsn, Sessions { sql: reading, wire }, memo, None))));
    Ok(Point::end(lsn).position())
}
