//! A transaction in the maintenance database that holds the epoch of its half.

use super::{
    super::sql::{Sql, failed},
    Store,
};
use crate::{Error, Result};
use handover::{
    CommandVersion, Epoch, OperationId,
    dest_role::{DestRole, Phase},
};
use serde::{Serialize, de::DeserializeOwned};
use std::ops::Deref;

/// What a transaction is for: one that only reads locks nothing and costs the server no write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// See [`Store::transaction`].
pub(crate) struct Transaction<'a> {
    store: &'a Store,
    what: &'a str,
    /// Taken by the commit; a session that is dropped rolls back.
    sql: Option<Sql>,
    epoch: Epoch,
    watermark: CommandVersion,
}

impl<'a> Transaction<'a> {
    pub(super) async fn begin(store: &'a Store, what: &'a str, access: Access) -> Result<Self> {
        let ours = store.epoch()?;
        let mut sql = store.session().await?;
        let began = match sql.batch_execute("BEGIN").await {
            Ok(()) => Ok(()),
            // The spare session may have died unnoticed, with the server perhaps; nothing has been done yet.
            Err(_) => {
                sql = store.connect("store").await?;
                sql.batch_execute("BEGIN").await
            }
        };
        began.map_err(|error| failed(what, &error))?;
        // Together with the update of a take-over the row's lock orders the two: either it waits for us, or we see it.
        let read = match access {
            Access::Read => "SELECT epoch, watermark FROM causeway.lock WHERE half = $1",
            Access::Write => "SELECT epoch, watermark FROM causeway.lock WHERE half = $1 FOR SHARE",
        };
        let row = sql.query_opt(read, &[&store.half.as_str()]).await.map_err(|error| failed(what, &error))?;
        let row = row.ok_or_else(|| Error::Corrupt("the lock row of this half is gone".to_owned()))?;
        let newer = row.get::<_, i64>(0).cast_unsigned();
        if newer != ours.0 {
            return Err(Error::Superseded { ours: ours.0, newer });
        }
        let watermark = CommandVersion(row.get::<_, i64>(1).cast_unsigned());
        Ok(Self { store, what, sql: Some(sql), epoch: ours, watermark })
    }

    /// The epoch that it holds.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn watermark(&self) -> CommandVersion {
        self.watermark
    }

    /// All records.
    pub(crate) async fn roles<R: DeserializeOwned>(&self) -> Result<Vec<R>> {
        let rows = self
            .query("SELECT operation, record FROM causeway.role WHERE half = $1 ORDER BY operation", &[&self.half()])
            .await
            .map_err(|error| failed(self.what, &error))?;
        rows.iter().map(|row| decode("role record", row.get(0), row.get(1))).collect()
    }

    /// Writes the record of an operation.
    pub(crate) async fn put_role<R: Serialize>(&self, operation: &OperationId, role: &R) -> Result<()> {
        let record = encode(role)?;
        let put = "INSERT INTO causeway.role (half, operation, record) VALUES ($1, $2, $3)
             ON CONFLICT (half, operation) DO UPDATE SET record = excluded.record, changed = clock_timestamp()";
        let put = self.execute(put, &[&self.half(), &operation.as_str(), &record]).await;
        put.map(|_| ()).map_err(|error| failed(self.what, &error))
    }

    /// Removes the record and the memo of an operation, and raises the watermark.
    pub(super) async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        let version = i64::try_from(version.0)
            .map_err(|_| Error::Misuse(format!("no command version is as large as {version}")))?;
        let removed = async {
            let raise = "UPDATE causeway.lock SET watermark = greatest(watermark, $2) WHERE half = $1";
            self.execute(raise, &[&self.half(), &version]).await?;
            for table in ["role", "memo"] {
                let remove = format!("DELETE FROM causeway.{table} WHERE half = $1 AND operation = $2");
                self.execute(&remove, &[&self.half(), &operation.as_str()]).await?;
            }
            Ok(())
        };
        removed.await.map_err(|error| failed(self.what, &error))
    }

    /// What the engine noted about an operation.
    pub(crate) async fn memo<M: DeserializeOwned>(&self, operation: &OperationId) -> Result<Option<M>> {
        let read = "SELECT memo FROM causeway.memo WHERE half = $1 AND operation = $2";
        let row = self.query_opt(read, &[&self.half(), &operation.as_str()]).await;
        let row = row.map_err(|error| failed(self.what, &error))?;
        row.map(|row| decode("memo", operation.as_str(), row.get(0))).transpose()
    }

    /// Notes something about an operation.
    pub(crate) async fn set_memo<M: Serialize>(&self, operation: &OperationId, memo: &M) -> Result<()> {
        let memo = encode(memo)?;
        let put = "INSERT INTO causeway.memo (half, operation, memo) VALUES ($1, $2, $3)
             ON CONFLICT (half, operation) DO UPDATE SET memo = excluded.memo";
        let put = self.execute(put, &[&self.half(), &operation.as_str(), &memo]).await;
        put.map(|_| ()).map_err(|error| failed(self.what, &error))
    }

    pub(super) async fn note_moved(&self, database: &str, moved_to: &str) -> Result<()> {
        let put = "INSERT INTO causeway.moved VALUES ($1, $2, clock_timestamp())
             ON CONFLICT (database) DO UPDATE SET moved_to = excluded.moved_to, at = excluded.at";
        let put = self.execute(put, &[&database, &moved_to]).await;
        put.map(|_| ()).map_err(|error| failed(self.what, &error))
    }

    pub(super) async fn moved(&self, database: &str) -> Result<Option<String>> {
        let read = "SELECT moved_to FROM causeway.moved WHERE database = $1";
        let row = self.query_opt(read, &[&database]).await.map_err(|error| failed(self.what, &error))?;
        Ok(row.map(|row| row.get(0)))
    }

    pub(super) async fn incoming(&self) -> Result<Vec<String>> {
        let read = "SELECT record FROM causeway.role WHERE half = 'dest'";
        let rows = self.query(read, &[]).await.map_err(|error| failed(self.what, &error))?;
        let roles = rows.iter().map(|row| decode::<DestRole>("role record", "of the other half", row.get(0)));
        let made = |role: &DestRole| matches!(role.phase, Phase::Seeding | Phase::Replica | Phase::Prepared { .. });
        Ok(roles.flatten().filter(made).map(|role| role.database.to_string()).collect())
    }

    /// Runs statements without parameters in the transaction.
    pub(crate) async fn run(&self, what: &str, statements: &str) -> Result<()> {
        match &self.sql {
            Some(sql) => sql.run(what, statements).await,
            None => Err(Error::Internal("a transaction is used after its end".to_owned())),
        }
    }

    /// Makes it durable. After an error it may have happened all the same, if the connection was lost just then.
    pub(crate) async fn commit(mut self) -> Result<()> {
        let Some(sql) = self.sql.take() else { return Ok(()) };
        // A transaction in which something failed takes a COMMIT for a rollback, without an error; a SELECT is refused there.
        sql.batch_execute("SELECT; COMMIT").await.map_err(|error| failed(self.what, &error))?;
        self.store.give_back(sql);
        Ok(())
    }

    fn half(&self) -> &'static str {
        self.store.half.as_str()
    }
}

impl Deref for Transaction<'_> {
    type Target = tokio_postgres::Client;
    fn deref(&self) -> &tokio_postgres::Client {
        self.sql.as_ref().expect("only the commit takes it, and that consumes the transaction")
    }
}

fn encode(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Internal(format!("encode a record: {error}")))
}

fn decode<T: DeserializeOwned>(what: &str, operation: &str, text: &str) -> Result<T> {
    // The driver's message may quote a value, and a record holds a token; the place says enough.
    serde_json::from_str(text).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::Corrupt(format!("the {what} of operation {operation} cannot be read at {place}"))
    })
}
