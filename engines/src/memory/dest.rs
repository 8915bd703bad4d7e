//! The destination half.

use super::{
    NAME,
    instance::{Database, MemoryInstance, Replica, Staging, State},
    wire::{self, Change, Digest, Point, Rows},
};
use crate::{
    Error, Result,
    dest::{DestEngine, DestReplica, Durable},
    host::Host,
    source::{DatabaseInfo, Held, HeldPart, LogBatch, Plan},
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{CommandVersion, DatabaseName, Epoch, Finding, OperationId, Position, Side, dest_role::DestRole};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The destination half of an instance in memory.
pub struct MemoryDest {
    instance: MemoryInstance,
    epoch: AtomicU64,
}

impl MemoryDest {
    /// The destination half of `instance`.
    pub fn new(instance: MemoryInstance, _: Arc<dyn Host>) -> Self {
        Self { instance, epoch: AtomicU64::new(0) }
    }

    fn writing<T>(&self, call: &str, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.instance.lock();
        state.dest.check(self.epoch.load(Ordering::SeqCst))?;
        state.ordered_failure(call)?;
        change(&mut state)
    }
}

/// Whether a name is taken by something that is not this operation's.
fn taken(state: &State, name: &DatabaseName, operation: Option<&OperationId>) -> Option<Finding> {
    if state.databases.get(name).is_some_and(|database| database.moved_to.is_none()) {
        let message = format!("the destination has a database {name}");
        return Some(Finding::error(Side::Dest, "NAME_TAKEN", message, "rename or remove it"));
    }
    let other = state.dest.roles.values().find(|role| role.database == *name && Some(&role.operation) != operation)?;
    let message = format!("{name} is the destination of operation {}", other.operation);
    Some(Finding::error(Side::Dest, "OPERATION_EXISTS", message, "wait for it to end, or cancel it"))
}

#[async_trait]
impl DestEngine for MemoryDest {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn take_over(&self) -> Result<Epoch> {
        let epoch = self.instance.lock().dest.take_over();
        self.epoch.store(epoch.0, Ordering::SeqCst);
        Ok(epoch)
    }

    async fn heartbeat(&self) -> Result<()> {
        self.writing("heartbeat", |_| Ok(()))
    }

    async fn databases(&self) -> Result<Vec<DatabaseInfo>> {
        Ok(self.instance.infos())
    }

    async fn purge(&self, database: &DatabaseName) -> Result<()> {
        self.writing("purge", |state| {
            if state.existing(database)?.moved_to.is_none() {
                return Err(Error::Unsupported {
                    code: "NOT_A_TOMBSTONE",
                    message: format!("{database} is not a tombstone"),
                    remedy: "only what a move left behind is purged".to_owned(),
                });
            }
            state.databases.remove(database);
            Ok(())
        })
    }

    async fn preflight(
        &self,
        database: &DatabaseName,
        requirements: &Bytes,
        operation: Option<&OperationId>,
    ) -> Result<Vec<Finding>> {
        let _bytes: u64 = wire::decode("requirements", requirements)?;
        Ok(taken(&self.instance.lock(), database, operation).into_iter().collect())
    }

    async fn roles(&self) -> Result<Vec<DestRole>> {
        Ok(self.instance.lock().dest.roles.values().cloned().collect())
    }

    async fn put_role(&self, role: &DestRole) -> Result<()> {
        self.writing("put_role", |state| {
            state.dest.roles.insert(role.operation.clone(), role.clone());
            Ok(())
        })
    }

    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        self.writing("remove_role", |state| {
            state.dest.remove(operation, version);
            Ok(())
        })
    }

    async fn watermark(&self) -> Result<CommandVersion> {
        Ok(self.instance.lock().dest.watermark)
    }

    async fn prepare(&self, role: &DestRole) -> Result<()> {
        self.writing("prepare", |state| {
            if taken(state, &role.database, Some(&role.operation)).is_some() {
                return Err(Error::NameTaken(role.database.to_string()));
            }
            state.dest.roles.insert(role.operation.clone(), role.clone());
            state.staging.entry(role.operation.clone()).or_default();
            Ok(())
        })
    }

    async fn open(&self, role: &DestRole) -> Result<Arc<dyn DestReplica>> {
        self.writing("open", |state| {
            // What was not durable went with the agent that had it.
            let staging = state.staging.entry(role.operation.clone()).or_default();
            staging.now = staging.durable.clone();
            Ok(())
        })?;
        Ok(Arc::new(MemoryReplica {
            instance: self.instance.clone(),
            epoch: self.epoch.load(Ordering::SeqCst),
            operation: role.operation.clone(),
        }))
    }

    async fn promote(&self, role: &DestRole) -> Result<()> {
        self.writing("promote", |state| {
            state.dest.roles.insert(role.operation.clone(), role.clone());
            let Some(staging) = state.staging.remove(&role.operation) else { return Ok(()) };
            let incarnation = state.databases.values().map(|d| d.incarnation).max().unwrap_or(0) + 1000;
            let rows = staging.durable.rows;
            let database = Database { incarnation, rows, log: 1, ..Database::default() };
            state.databases.insert(role.database.clone(), database);
            Ok(())
        })
    }

    async fn finish(&self, _: &DestRole) -> Result<()> {
        self.writing("finish", |_| Ok(()))
    }

    async fn discard(&self, role: &DestRole) -> Result<()> {
        self.writing("discard", |state| {
            state.staging.remove(&role.operation);
            Ok(())
        })
    }
}

struct MemoryReplica {
    instance: MemoryInstance,
    epoch: u64,
    operation: OperationId,
}

impl MemoryReplica {
    fn writing<T>(&self, call: &str, change: impl FnOnce(&mut Staging) -> Result<T>) -> Result<T> {
        let mut state = self.instance.lock();
        state.dest.check(self.epoch)?;
        state.ordered_failure(call)?;
        let staging = state.staging.get_mut(&self.operation);
        change(staging.ok_or_else(|| Error::Misuse("the replica is gone".to_owned()))?)
    }
}

fn plan_of(replica: &Replica) -> Result<&Plan> {
    replica.plan.as_ref().ok_or_else(|| Error::Misuse("no plan was given".to_owned()))
}

fn held_part(replica: &mut Replica, part: u32) -> Result<&mut HeldPart> {
    let known = replica.held.parts.iter_mut().find(|held| held.part == part);
    known.ok_or_else(|| Error::Corrupt(format!("the plan has no part {part}")))
}

fn apply(rows: &mut std::collections::BTreeMap<String, String>, changes: Vec<Change>) {
    for change in changes {
        match change.value {
            Some(value) => rows.insert(change.key, value),
            None => rows.remove(&change.key),
        };
    }
}

fn durable(replica: &Replica) -> Durable {
    Durable { held: replica.held.clone(), log: replica.held.log.clone() }
}

#[async_trait]
impl DestReplica for MemoryReplica {
    async fn durable(&self) -> Result<Durable> {
        self.writing("durable", |staging| {
            let received = durable(&staging.now);
            Ok(Durable {
                held: Held { log: received.log, ..staging.durable.held.clone() },
                ..durable(&staging.durable)
            })
        })
    }

    async fn plan(&self, plan: &Plan) -> Result<()> {
        let start = plan.log_start.clone();
        self.writing("plan", |staging| {
            if staging.now.held.generation == plan.generation {
                return Ok(());
            }
            let rows = if plan.verify { std::mem::take(&mut staging.now.rows) } else { Default::default() };
            let parts = plan.parts.iter().map(|p| HeldPart { part: p.part, durable: 0, done: false }).collect();
            let held = Held { generation: plan.generation, parts, seeded: false, log: Some(start) };
            staging.now = Replica { plan: Some(plan.clone()), held, rows, kept: vec![] };
            staging.durable = staging.now.clone();
            Ok(())
        })
    }

    async fn digest(&self, part: u32, _: u64, _: usize) -> Result<Bytes> {
        self.writing("digest", |staging| {
            let rows = staging.now.rows.iter().filter(|(key, _)| wire::part_of(key) == part);
            let digest: Digest = rows.map(|(key, value)| (key.clone(), wire::hash(value))).collect();
            wire::encode(&digest)
        })
    }

    async fn chunk(&self, part: u32, offset: u64, payload: Bytes, next_offset: u64, last: bool) -> Result<()> {
        let rows: Rows = match payload.is_empty() {
            true => Rows::default(),
            false => wire::decode("a chunk", &payload)?,
        };
        self.writing("chunk", |staging| {
            let held = held_part(&mut staging.now, part)?;
            if held.done || next_offset < held.durable || (next_offset == held.durable && !last) {
                return Ok(());
            }
            if offset > held.durable {
                return Err(Error::Gap { expected: held.durable.to_string(), got: offset.to_string() });
            }
            held.durable = next_offset;
            held.done = last;
            staging.now.rows.extend(rows.set);
            for key in rows.remove {
                staging.now.rows.remove(&key);
            }
            Ok(())
        })
    }

    async fn sync(&self) -> Result<Durable> {
        self.writing("sync", |staging| {
            staging.durable = staging.now.clone();
            Ok(durable(&staging.durable))
        })
    }

    async fn seed_done(&self) -> Result<()> {
        self.writing("seed_done", |staging| {
            plan_of(&staging.now)?;
            if let Some(missing) = staging.now.held.parts.iter().find(|held| !held.done) {
                return Err(Error::Gap { expected: format!("part {}", missing.part), got: "the end".to_owned() });
            }
            let kept = std::mem::take(&mut staging.now.kept);
            apply(&mut staging.now.rows, kept);
            staging.now.held.seeded = true;
            staging.durable = staging.now.clone();
            Ok(())
        })
    }

    async fn log(&self, batch: LogBatch) -> Result<()> {
        let (from, to) = (Point::parse(&batch.from)?, Point::parse(&batch.to)?);
        let changes: Vec<Change> = wire::decode("log", &batch.payload)?;
        self.writing("log", |staging| {
            let held = staging.now.held.log.clone().ok_or_else(|| Error::Misuse("no plan was given".to_owned()))?;
            let at = Point::parse(&held)?;
            if to.log == at.log && to.seq <= at.seq {
                return Ok(());
            }
            if from != at {
                return Err(Error::Gap { expected: held.to_string(), got: batch.from.to_string() });
            }
            match staging.now.held.seeded {
                true => apply(&mut staging.now.rows, changes),
                false => staging.now.kept.extend(changes),
            }
            staging.now.held.log = Some(batch.to);
            Ok(())
        })
    }

    async fn prepare_marker(&self, position: &Position) -> Result<()> {
        self.writing("prepare_marker", |staging| {
            if staging.now.held.log.as_ref() != Some(position) || !staging.now.held.seeded {
                let expected = staging.now.held.log.as_ref().map_or("nothing".to_owned(), Position::to_string);
                return Err(Error::Gap { expected, got: position.to_string() });
            }
            staging.durable = staging.now.clone();
            Ok(())
        })
    }

    async fn settle(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) {}
}
