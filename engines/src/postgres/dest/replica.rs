//! The writing half of one operation, as the contract has it.

use super::{
    super::{
        payload::{self, DatabaseProperties, FORMAT, PlanHeader},
        position::Point,
        sql::Sql,
    },
    Shared, database,
    live::Live,
    memo::Memo,
    preflight,
    records::{self, Planned},
    roles,
};
use crate::{
    Error, Result,
    dest::{DestReplica, Durable},
    source::{LogBatch, Plan},
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{DatabaseName, OperationId, Position, dest_role::DestRole};
use std::sync::Arc;
use tokio::sync::RwLock;

/// See [`DestReplica`]. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Replica {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    operation: OperationId,
    database: DatabaseName,
    /// The generation that is worked on, once there is a plan.
    live: RwLock<Option<Arc<Live>>>,
}

impl Replica {
    pub(super) async fn open(shared: &Arc<Shared>, role: &DestRole) -> Result<Self> {
        let (shared, operation, database) = (shared.clone(), role.operation.clone(), role.database.clone());
        let memo: Option<Memo> = shared.store.memo(&operation).await?;
        let live = match memo {
            Some(memo) => Live::open(&shared, &operation, &memo).await?,
            None => None,
        };
        Ok(Self { inner: Arc::new(Inner { shared, operation, database, live: RwLock::new(live) }) })
    }

    /// Lets go of everything; calls that come later fail.
    pub(super) async fn end(&self) {
        // Taken without the lock first: a call that holds it may have to be interrupted to let go.
        self.interrupt().await;
        let live = self.inner.live.write().await.take();
        if let Some(live) = live {
            live.close().await;
        }
    }

    async fn live(&self) -> Result<Arc<Live>> {
        let live = self.inner.live.read().await.clone();
        live.ok_or_else(|| Error::Misuse("no plan was given, or the replica is closed".to_owned()))
    }

    /// Says who has taken over, if that is why something failed.
    async fn explained<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            // A database that is not where it was, a session that was ended: a newer agent does such things.
            Err(error @ Error::Database { .. }) => match self.inner.shared.store.check().await {
                Err(superseded @ Error::Superseded { .. }) => Err(superseded),
                _ => Err(error),
            },
            result => result,
        }
    }

    async fn make(&self, plan: &Plan) -> Result<()> {
        let Inner { shared, operation, database, live } = &*self.inner;
        let mut live = live.write().await;
        let mut memo: Memo = shared.store.memo(operation).await?.unwrap_or_default();
        if plan.generation < memo.generation {
            return Err(Error::Misuse(format!(
                "generation {} is over, it is {} now",
                plan.generation, memo.generation
            )));
        }
        if plan.generation == memo.generation && memo.oid.is_some() {
            if live.is_none() {
                *live = Live::open(shared, operation, &memo).await?;
            }
            return Ok(());
        }
        let header: PlanHeader = payload::decode(&plan.header)?;
        if header.format != FORMAT {
            return Err(Error::Corrupt(format!("the plan has format {}, this agent knows {FORMAT}", header.format)));
        }
        let properties = header.database.clone();
        let needed = header.roles.clone();
        let planned = Planned::of(plan, header)?;
        if let Some(before) = live.take() {
            before.close().await;
        }
        if let Some(oid) = memo.oid.take() {
            tracing::info!(%operation, generation = plan.generation, "drop the replica of an earlier generation");
            memo.generation = plan.generation;
            database::remove(shared, operation, oid, &memo).await?;
        }
        (memo.generation, memo.properties) = (plan.generation, properties.clone());
        shared.store.set_memo(operation, &memo).await?;
        roles::create_missing(shared, operation, &needed, &mut memo).await?;
        let maintenance = shared.maintenance().await?;
        let version = preflight::server_version(&maintenance).await?;
        let oid = database::create(shared, operation, &properties, version).await?;
        let epoch = shared.store.check().await?;
        let sql = Sql::connect(&shared.config, &database::incoming(operation), "dest records").await?;
        sql.run("prepare the database", &records::make(&planned, epoch)?).await?;
        drop(sql);
        memo.oid = Some(oid);
        database::give_name(shared, operation, database, &memo).await?;
        try_statements(shared, &properties).await?;
        *live = Live::open(shared, operation, &memo).await?;
        Ok(())
    }
}

/// Runs what the flip will run, and rolls it back: better now than when clients wait.
async fn try_statements(shared: &Shared, properties: &DatabaseProperties) -> Result<()> {
    let sql = shared.maintenance().await?;
    sql.run("try the database's settings", "BEGIN").await?;
    for statement in &properties.statements {
        sql.run("try the database's settings", statement).await.map_err(|error| match error {
            Error::Database { message, transient: false, .. } => Error::Unsupported {
                code: "DATABASE_SETTINGS",
                message: format!(
                    "a setting, grant or label of the database cannot be made at the destination: {message}"
                ),
                remedy: "install what it needs at the destination, or remove it at the source; then start again"
                    .to_owned(),
            },
            error => error,
        })?;
    }
    sql.run("try the database's settings", "ROLLBACK").await
}

#[async_trait]
impl DestReplica for Replica {
    async fn durable(&self) -> Result<Durable> {
        let Some(live) = self.inner.live.read().await.clone() else { return Ok(Durable::default()) };
        self.explained(live.find_position().await).await?;
        Ok(live.answer())
    }

    async fn plan(&self, plan: &Plan) -> Result<()> {
        self.explained(self.make(plan).await).await
    }

    async fn digest(&self, part: u32, _: u64, _: usize) -> Result<Bytes> {
        Err(Error::Misuse(format!("part {part} cannot be compared: a new generation is loaded anew in this engine")))
    }

    async fn until_takes(&self, part: u32) -> Result<()> {
        let live = self.live().await?;
        self.explained(live.until_takes(part).await).await
    }

    async fn chunk(&self, part: u32, offset: u64, payload: Bytes, next_offset: u64, last: bool) -> Result<()> {
        let live = self.live().await?;
        self.explained(live.chunk(part, offset, payload, next_offset, last).await).await
    }

    async fn sync(&self) -> Result<Durable> {
        let Some(live) = self.inner.live.read().await.clone() else { return Ok(Durable::default()) };
        // Nothing is told to be durable by an agent that may have been taken over.
        self.inner.shared.store.check().await?;
        self.explained(live.sync().await).await?;
        Ok(live.answer())
    }

    async fn seed_done(&self) -> Result<()> {
        let live = self.live().await?;
        self.explained(live.seed_done().await).await
    }

    async fn log(&self, batch: LogBatch) -> Result<()> {
        let live = self.live().await?;
        self.explained(live.log(batch).await).await
    }

    async fn prepare_marker(&self, position: &Position) -> Result<()> {
        let live = self.live().await?;
        let position = Point::read(position)?;
        self.explained(live.prepare_marker(position).await).await
    }

    async fn settle(&self) -> Result<()> {
        let live = self.live().await?;
        live.settle().await
    }

    async fn interrupt(&self) {
        // While a plan is being made there is nothing that takes long.
        if let Ok(live) = self.inner.live.try_read()
            && let Some(live) = &*live
        {
            live.interrupted.send_replace(true);
        }
    }

    async fn close(&self) {
        self.end().await;
    }
}
