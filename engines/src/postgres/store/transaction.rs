//! A transaction in the maintenance database that holds the epoch of its half.

use super::{
    super::{
        rows::rows,
        sql::{Sql, failed},
    },
    Half, Store,
};
use crate::{Error, Result};
use handover::{
    CommandVersion, Epoch, OperationId,
    dest_role::{DestRole, Phase},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{ops::Deref, pin::Pin};
use tokio_postgres::types::{ToSql, Type};

/// What a transaction is for: one that only reads locks nothing, and is none: each of its statements sees what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// See [`Store::transaction`].
pub(crate) struct Transaction<'a> {
    store: &'a Store,
    what: &'a str,
    access: Access,
    /// Taken by the commit; a session that is dropped rolls back.
    sql: Option<Sql>,
    epoch: Epoch,
    watermark: CommandVersion,
}

impl<'a> Transaction<'a> {
    pub(super) async fn begin(store: &'a Store, what: &'a str, access: Access) -> Result<Self> {
        let ours = store.epoch()?;
        let mut sql = store.session().await?;
        // Together with the update of a take-over the row's lock orders the two: either it waits for us, or we see it.
        let (begin, lock) = match access {
            Access::Read => ("", ""),
            Access::Write => ("BEGIN; ", " FOR SHARE"),
        };
        let half = store.half.as_str();
        let begin = format!("{begin}SELECT epoch, watermark FROM causeway.lock WHERE half = '{half}'{lock}");
        let began = match rows(&sql, what, &begin).await {
            Ok(found) => found,
            // The spare session may have died unnoticed, with the server perhaps; nothing has been done yet.
            Err(_) => {
                sql = store.connect("store").await?;
                rows(&sql, what, &begin).await?
            }
        };
        let row = began.first().ok_or_else(|| Error::Corrupt("the lock row of this half is gone".to_owned()))?;
        let newer: u64 = row.parse(0)?;
        if newer != ours.0 {
            return Err(Error::Superseded { ours: ours.0, newer });
        }
        let watermark = CommandVersion(row.parse(1)?);
        Ok(Self { store, what, access, sql: Some(sql), epoch: ours, watermark })
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
            .query_typed(
                "SELECT operation, record FROM causeway.role WHERE half = $1 ORDER BY operation",
                &[self.half()],
            )
            .await
            .map_err(|error| failed(self.what, &error))?;
        rows.iter().map(|row| decode("role record", row.get(0), row.get(1))).collect()
    }

    /// Writes the record of an operation.
    pub(crate) async fn put_role<R: Serialize>(&self, operation: &OperationId, role: &R) -> Result<()> {
        self.put_record(operation, encode(role)?).await
    }

    /// The same for one that is encoded.
    pub(crate) async fn put_record(&self, operation: &OperationId, record: String) -> Result<()> {
        let put = "INSERT INTO causeway.role (half, operation, record) VALUES ($1, $2, $3)
             ON CONFLICT (half, operation) DO UPDATE SET record = excluded.record, changed = clock_timestamp()";
        let put =
            self.execute_typed(put, &[self.half(), (&operation.as_str(), Type::TEXT), (&record, Type::TEXT)]).await;
        put.map(|_| ()).map_err(|error| failed(self.what, &error))
    }

    /// Removes the record and the memo of an operation, and raises the watermark.
    pub(super) async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        let version = i64::try_from(version.0)
            .map_err(|_| Error::Misuse(format!("no command version is as large as {version}")))?;
        let removed = async {
            let raise = "UPDATE causeway.lock SET watermark = greatest(watermark, $2) WHERE half = $1";
            self.execute_typed(raise, &[self.half(), (&version, Type::INT8)]).await?;
            for table in ["role", "memo"] {
                let remove = format!("DELETE FROM causeway.{table} WHERE half = $1 AND operation = $2");
                self.execute_typed(&remove, &[self.half(), (&operation.as_str(), Type::TEXT)]).await?;
            }
            Ok(())
        };
        removed.await.map_err(|error| failed(self.what, &error))
    }

    /// What the engine noted about an operation.
    pub(crate) async fn memo<M: DeserializeOwned>(&self, operation: &OperationId) -> Result<Option<M>> {
        let read = "SELECT memo FROM causeway.memo WHERE half = $1 AND operation = $2";
        let row = self.query_typed_opt(read, &[self.half(), (&operation.as_str(), Type::TEXT)]).await;
        let row = row.map_err(|error| failed(self.what, &error))?;
        row.map(|row| decode("memo", operation.as_str(), row.get(0))).transpose()
    }

    /// Notes something about an operation.
    pub(crate) async fn set_memo<M: Serialize>(&self, operation: &OperationId, memo: &M) -> Result<()> {
        self.put_memo(operation, encode(memo)?).await
    }

    /// The same for one that is encoded.
    pub(crate) async fn put_memo(&self, operation: &OperationId, memo: String) -> Result<()> {
        let put = "INSERT INTO causeway.memo (half, operation, memo) VALUES ($1, $2, $3)
             ON CONFLICT (half, operation) DO UPDATE SET memo = excluded.memo";
        let put = self.execute_typed(put, &[self.half(), (&operation.as_str(), Type::TEXT), (&memo, Type::TEXT)]).await;
        put.map(|_| ()).map_err(|error| failed(self.what, &error))
    }

    pub(super) async fn note_moved(&self, database: &str, moved_to: &str) -> Result<()> {
        let put = "INSERT INTO causeway.moved VALUES ($1, $2, clock_timestamp())
             ON CONFLICT (database) DO UPDATE SET moved_to = excluded.moved_to, at = excluded.at";
        let put = self.execute_typed(put, &[(&database, Type::TEXT), (&moved_to, Type::TEXT)]).await;
        put.map(|_| ()).map_err(|error| failed(self.what, &error))
    }

    pub(super) async fn moved(&self, database: &str) -> Result<Option<String>> {
        let read = "SELECT moved_to FROM causeway.moved WHERE database = $1";
        let row = self.query_typed_opt(read, &[(&database, Type::TEXT)]).await;
        let row = row.map_err(|error| failed(self.what, &error))?;
        Ok(row.map(|row| row.get(0)))
    }

    pub(super) async fn incoming(&self) -> Result<Vec<String>> {
        let read = "SELECT record FROM causeway.role WHERE half = 'dest'";
        let rows = self.query_typed(read, &[]).await.map_err(|error| failed(self.what, &error))?;
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
    pub(crate) async fn commit(self) -> Result<()> {
        self.commit_with(|_| Box::pin(async { Ok(()) })).await
    }

    /// The same together with its last statements: the commit is sent behind them without waiting for their answers, and
    /// comes to nothing if one of them fails at the server. What could fail before it is sent, such as encoding, is done before.
    pub(crate) async fn commit_with<F>(mut self, last: F) -> Result<()>
    where
        F: for<'s> FnOnce(&'s Self) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 's>>,
    {
        let commit = async {
            match self.access {
                Access::Read => Ok(()),
                // A transaction in which something failed takes a COMMIT for a rollback, without an error; a SELECT is
                // refused there.
                Access::Write => self.run(self.what, "SELECT; COMMIT").await,
            }
        };
        let (done, committed) = tokio::join!(biased; last(&self), commit);
        done.and(committed)?;
        if let Some(sql) = self.sql.take() {
            self.store.give_back(sql);
        }
        Ok(())
    }

    fn half(&self) -> (&'static (dyn ToSql + Sync), Type) {
        match self.store.half {
            Half::Source => (&"source", Type::TEXT),
            Half::Dest => (&"dest", Type::TEXT),
        }
    }
}

impl Deref for Transaction<'_> {
    type Target = tokio_postgres::Client;
    fn deref(&self) -> &tokio_postgres::Client {
        self.sql.as_ref().expect("only the commit takes it, and that consumes the transaction")
    }
}

pub(crate) fn encode(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Internal(format!("encode a record: {error}")))
}

fn decode<T: DeserializeOwned>(what: &str, operation: &str, text: &str) -> Result<T> {
    // The driver's message may quote a value, and a record holds a token; the place says enough.
    serde_json::from_str(text).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::Corrupt(format!("the {what} of operation {operation} cannot be read at {place}"))
    })
}
