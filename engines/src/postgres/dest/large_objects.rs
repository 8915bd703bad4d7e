//! Large objects, of the seed and of a marker: with content, owner, grants and comment.

use super::{
    super::{
        payload::large_objects::{self, Record},
        position::Point,
        sql::{Sql, failed, literal},
    },
    live::Live,
    records,
};
use crate::{Error, Result};
use bytes::Bytes;
use tokio_postgres::types::{ToSql, Type};

/// Each takes a lock until the transaction ends, and a server has room for some thousands in all.
const OBJECTS_MAX: usize = 400;

impl Live {
    /// One chunk of a part of the seed. What is committed of it is recorded, so that it goes on there; a chunk that is taken
    /// again after a crash has the same effect.
    pub(super) async fn large_objects(
        &self,
        part: u32,
        offset: u64,
        payload: Bytes,
        next: u64,
        last: bool,
    ) -> Result<()> {
        let held = self.part(part);
        if next <= held.offset && !last {
            return Ok(());
        }
        if offset > held.offset {
            return Err(Error::Gap { expected: held.offset.to_string(), got: offset.to_string() });
        }
        self.put_objects(payload, &records::put_part(part, next, last)).await?;
        self.committed(part, next, last);
        Ok(())
    }

    /// Makes the objects and pieces of `records` in transactions of bounded size; `end` runs in the last one.
    pub(super) async fn put_objects(&self, mut records: Bytes, end: &str) -> Result<()> {
        let what = "load large objects";
        let sql = self.sessions.take().await?;
        sql.run(what, BEGIN).await?;
        let mut objects = 0;
        while let Some(record) = large_objects::take(&mut records)? {
            if let Record::Object { .. } = record {
                if objects == OBJECTS_MAX {
                    self.commit(&sql, what, "").await?;
                    sql.run(what, BEGIN).await?;
                    objects = 0;
                }
                objects += 1;
            }
            put(&sql, what, record).await?;
        }
        self.commit(&sql, what, end).await?;
        self.sessions.give_back(sql);
        Ok(())
    }

    async fn commit(&self, sql: &Sql, what: &str, end: &str) -> Result<()> {
        let check = records::check(self.epoch);
        let separator = if end.is_empty() { "" } else { ";" };
        self.checked(sql.run(what, &format!("{end}{separator} {check}; COMMIT")).await)
    }

    /// Keeps a piece of the list of the objects that exist at the source, for [`Live::unlink_others`].
    pub(super) async fn keep_object_list(&self, oids: &[u32], to: Point, end: &str) -> Result<()> {
        let what = "keep the list of large objects";
        let (marker, oids) =
            (literal(&to.lsn.to_string()), oids.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        // The first row says that a list came: it may be empty.
        let keep = format!(
            "SET LOCAL synchronous_commit = off;
             INSERT INTO causeway.large_object SELECT {marker}, 0::oid UNION ALL SELECT {marker}, unnest('{{{oids}}}'::oid[]); {end}"
        );
        self.transact(what, &keep).await
    }

    /// Unlinks every object that is not in the list that came with this marker; fails if one of the list is missing. One look
    /// is all if there is nothing to be done: clients wait.
    pub(super) async fn unlink_others(&self, at: Point, sql: &Sql) -> Result<()> {
        let what = "unlink large objects";
        let marker = at.lsn.to_string();
        let missing =
            "SELECT count(*) FILTER (WHERE listed.oid = 0), count(*) FILTER (WHERE listed.oid <> 0 AND m.oid IS NULL),
                 min(listed.oid::int8) FILTER (WHERE listed.oid <> 0 AND m.oid IS NULL),
                 (SELECT count(*) FROM pg_largeobject_metadata) - count(DISTINCT m.oid)
             FROM causeway.large_object listed LEFT JOIN pg_largeobject_metadata m USING (oid) WHERE marker = $1";
        let marker: [(&(dyn ToSql + Sync), Type); 1] = [(&marker, Type::TEXT)];
        let row = sql.query_typed_one(missing, &marker).await.map_err(|error| failed(what, &error))?;
        if row.get::<_, i64>(0) == 0 {
            return Ok(());
        }
        if let (count @ 1.., Some(first)) = (row.get::<_, i64>(1), row.get::<_, Option<i64>>(2)) {
            return Err(Error::Corrupt(format!(
                "{count} large objects of the source are missing here, {first} is one"
            )));
        }
        if row.get::<_, i64>(3) == 0 {
            return Ok(());
        }
        let unlink = format!(
            "SELECT count(lo_unlink(oid)) FROM (SELECT oid FROM pg_largeobject_metadata m
             WHERE NOT EXISTS (SELECT FROM causeway.large_object listed WHERE marker = $1 AND listed.oid = m.oid)
             LIMIT {OBJECTS_MAX}) gone"
        );
        loop {
            sql.run(what, BEGIN).await?;
            let row = sql.query_typed_one(&unlink, &marker).await.map_err(|error| failed(what, &error))?;
            self.commit(sql, what, "").await?;
            if row.get::<_, i64>(0) == 0 {
                return Ok(());
            }
        }
    }
}

const BEGIN: &str = "BEGIN; SET LOCAL synchronous_commit = off";

async fn put(sql: &Sql, what: &str, record: Record) -> Result<()> {
    match record {
        Record::Object { oid, statements } => {
            let make = "SELECT lo_create($1) FROM (SELECT count(lo_unlink(oid)) FROM pg_largeobject_metadata WHERE oid = $1) gone";
            sql.query_one(make, &[&oid]).await.map_err(|error| failed(what, &error))?;
            match statements.is_empty() {
                true => Ok(()),
                false => sql.run(&format!("{what}: owner and grants of {oid}"), &statements).await,
            }
        }
        Record::Piece { oid, offset, data } => {
            let offset =
                i64::try_from(offset).map_err(|_| Error::Corrupt("a large object beyond all bounds".to_owned()))?;
            let put = sql.execute("SELECT lo_put($1, $2, $3)", &[&oid, &offset, &data.as_ref()]).await;
            put.map(|_| ()).map_err(|error| failed(what, &error))
        }
    }
}
