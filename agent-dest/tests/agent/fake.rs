//! An engine in memory. What is durable outlives an agent; calls can be made to fail, to half fail, and to wait.

use async_trait::async_trait;
use bytes::Bytes;
use engines::{
    Error, Result,
    dest::{DestEngine, DestReplica, Durable},
    source::{DatabaseInfo, Held, HeldPart, LogBatch, Plan},
};
use handover::{
    CommandVersion, DatabaseName, Epoch, Finding, OperationId, Position,
    dest_role::{DestRole, Phase},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happened.
    DiskFull,
    /// It happened, and yet the call failed.
    AfterEffect,
    /// What arrived is rotten.
    Corrupt,
}

/// The instance: outlives its agents.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub epoch: u64,
    pub watermark: u64,
    pub roles: BTreeMap<OperationId, DestRole>,
    /// Names that clients can open.
    pub online: Vec<String>,
    pub stores: BTreeMap<OperationId, Durable>,
    /// Every call that had an effect, in order.
    pub calls: Vec<String>,
    faults: BTreeMap<&'static str, VecDeque<Fault>>,
    /// Calls that came to a gate, whether or not they have passed it since.
    waiting: Vec<&'static str>,
    gates: BTreeMap<&'static str, watch::Receiver<bool>>,
}

/// Calls wait until this is dropped.
pub struct Gate(#[allow(dead_code)] watch::Sender<bool>);

impl World {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it looks at the world")
    }

    /// The next call of that name fails; several add up.
    pub fn fail(&self, call: &'static str, fault: Fault) {
        self.lock().faults.entry(call).or_default().push_back(fault);
    }

    /// Calls of that name wait from now on, until the gate is dropped.
    pub fn gate(&self, call: &'static str) -> Gate {
        let (gate, waiting) = watch::channel(false);
        self.lock().gates.insert(call, waiting);
        Gate(gate)
    }

    /// How many calls of that name came to a gate.
    pub fn waiting(&self, call: &str) -> usize {
        self.lock().waiting.iter().filter(|waiting| **waiting == call).count()
    }

    pub fn calls(&self, name: &str) -> usize {
        self.lock().calls.iter().filter(|call| call.split(' ').next() == Some(name)).count()
    }

    pub fn role(&self, operation: &str) -> Option<DestRole> {
        self.lock().roles.values().find(|role| role.operation.as_str() == operation).cloned()
    }

    pub fn phase(&self, operation: &str) -> &'static str {
        self.role(operation).map_or("none", |role| role.phase.as_str())
    }

    /// An engine for a new agent.
    pub fn engine(&self) -> Arc<Fake> {
        Arc::new(Fake { world: self.clone(), epoch: AtomicU64::new(0) })
    }

    async fn pass(&self, call: &'static str, ours: u64) -> Result<Option<Fault>> {
        let waiting = self.lock().gates.get(call).cloned();
        if let Some(mut waiting) = waiting {
            self.lock().waiting.push(call);
            // Its end is the sender's.
            let _ = waiting.wait_for(|open| *open).await;
        }
        let mut state = self.lock();
        if ours != state.epoch {
            return Err(Error::Superseded { ours, newer: state.epoch });
        }
        state.calls.push(call.to_owned());
        match state.faults.get_mut(call).and_then(VecDeque::pop_front) {
            Some(Fault::DiskFull) => Err(Error::DiskFull(call.to_owned())),
            Some(Fault::Corrupt) => Err(Error::Corrupt(format!("{call} found rot"))),
            later => Ok(later),
        }
    }
}

fn end<T>(answer: T, fault: Option<Fault>) -> Result<T> {
    match fault {
        None => Ok(answer),
        Some(_) => Err(Error::io("answer", std::io::Error::other("the answer got lost"))),
    }
}

pub struct Fake {
    world: World,
    epoch: AtomicU64,
}

impl Fake {
    async fn pass(&self, call: &'static str) -> Result<Option<Fault>> {
        self.world.pass(call, self.epoch.load(Ordering::SeqCst)).await
    }
}

#[async_trait]
impl DestEngine for Fake {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn take_over(&self) -> Result<Epoch> {
        let mut state = self.world.lock();
        state.epoch += 1;
        self.epoch.store(state.epoch, Ordering::SeqCst);
        Ok(Epoch(state.epoch))
    }

    async fn heartbeat(&self) -> Result<()> {
        self.pass("heartbeat").await.map(|_| ())
    }

    async fn databases(&self) -> Result<Vec<DatabaseInfo>> {
        let online = self.world.lock().online.clone();
        let info = |name: String| DatabaseInfo {
            name: DatabaseName::parse(&name).expect("a name"),
            size_bytes: 1,
            state: "online".to_owned(),
            findings: vec![],
        };
        Ok(online.into_iter().map(info).collect())
    }

    async fn purge(&self, database: &DatabaseName) -> Result<()> {
        self.pass("purge").await?;
        Err(Error::NoDatabase(database.as_str().to_owned()))
    }

    async fn preflight(&self, _: &DatabaseName, requirements: &Bytes, _: Option<&OperationId>) -> Result<Vec<Finding>> {
        if requirements.starts_with(b"rot") {
            return Err(Error::Corrupt("requirements cannot be read".to_owned()));
        }
        Ok(vec![])
    }

    async fn roles(&self) -> Result<Vec<DestRole>> {
        self.pass("roles").await?;
        Ok(self.world.lock().roles.values().cloned().collect())
    }

    async fn put_role(&self, role: &DestRole) -> Result<()> {
        let fault = self.pass("put_role").await?;
        self.world.lock().roles.insert(role.operation.clone(), role.clone());
        end((), fault)
    }

    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        let fault = self.pass("remove_role").await?;
        let mut state = self.world.lock();
        state.roles.remove(operation);
        state.watermark = state.watermark.max(version.0);
        end((), fault)
    }

    async fn watermark(&self) -> Result<CommandVersion> {
        Ok(CommandVersion(self.world.lock().watermark))
    }

    async fn prepare(&self, role: &DestRole) -> Result<()> {
        let fault = self.pass("prepare").await?;
        let mut state = self.world.lock();
        if state.online.iter().any(|name| name == role.database.as_str()) {
            return Err(Error::NameTaken(role.database.as_str().to_owned()));
        }
        state.roles.insert(role.operation.clone(), role.clone());
        state.stores.entry(role.operation.clone()).or_default();
        end((), fault)
    }

    async fn open(&self, role: &DestRole) -> Result<Arc<dyn DestReplica>> {
        self.pass("open").await?;
        let held = self.world.lock().stores.get(&role.operation).cloned().unwrap_or_default();
        Ok(Arc::new(Replica {
            world: self.world.clone(),
            epoch: self.epoch.load(Ordering::SeqCst),
            operation: role.operation.clone(),
            interrupted: watch::Sender::new(false),
            held: Mutex::new(held),
        }))
    }

    async fn promote(&self, role: &DestRole) -> Result<()> {
        let fault = self.pass("promote").await?;
        assert!(matches!(role.phase, Phase::Primary { .. }), "promote is called with a primary");
        let mut state = self.world.lock();
        state.roles.insert(role.operation.clone(), role.clone());
        let name = role.database.as_str().to_owned();
        if !state.online.contains(&name) {
            state.online.push(name);
        }
        end((), fault)
    }

    async fn finish(&self, _: &DestRole) -> Result<()> {
        let fault = self.pass("finish").await?;
        end((), fault)
    }

    async fn discard(&self, role: &DestRole) -> Result<()> {
        let fault = self.pass("discard").await?;
        assert_eq!(role.phase, Phase::Discarding, "discard is called once that is recorded");
        self.world.lock().stores.remove(&role.operation);
        end((), fault)
    }
}

/// Positions are decimal numbers; a part is whole when its last chunk came.
struct Replica {
    world: World,
    epoch: u64,
    operation: OperationId,
    held: Mutex<Durable>,
    interrupted: watch::Sender<bool>,
}

impl Replica {
    fn held(&self) -> MutexGuard<'_, Durable> {
        self.held.lock().expect("no panic")
    }

    async fn pass(&self, call: &'static str) -> Result<Option<Fault>> {
        self.world.pass(call, self.epoch).await
    }

    fn persist(&self) -> Durable {
        let mut held = self.held();
        held.log = held.held.log.clone();
        self.world.lock().stores.insert(self.operation.clone(), held.clone());
        held.clone()
    }
}

#[async_trait]
impl DestReplica for Replica {
    async fn durable(&self) -> Result<Durable> {
        Ok(self.held().clone())
    }

    async fn plan(&self, plan: &Plan) -> Result<()> {
        self.pass("plan").await?;
        if self.held().held.generation != plan.generation {
            let parts = plan.parts.iter().map(|p| HeldPart { part: p.part, durable: 0, done: false }).collect();
            *self.held() = Durable {
                held: Held { generation: plan.generation, parts, seeded: false, log: Some(plan.log_start.clone()) },
                log: None,
            };
            self.persist();
        }
        Ok(())
    }

    async fn digest(&self, part: u32, offset: u64, len: usize) -> Result<Bytes> {
        self.pass("digest").await?;
        Ok(Bytes::from(format!("{part}/{offset}/{len}")))
    }

    async fn until_takes(&self, _: u32) -> Result<()> {
        self.pass("until_takes").await.map(drop)
    }

    async fn chunk(&self, part: u32, offset: u64, _: Bytes, next_offset: u64, last: bool) -> Result<()> {
        self.pass("chunk").await?;
        let mut held = self.held();
        let held = held.held.parts.iter_mut().find(|p| p.part == part);
        let held = held.ok_or_else(|| Error::Misuse(format!("no part {part}")))?;
        if offset > held.durable {
            return Err(Error::Gap { expected: held.durable.to_string(), got: offset.to_string() });
        }
        held.durable = held.durable.max(next_offset);
        held.done |= last;
        Ok(())
    }

    async fn sync(&self) -> Result<Durable> {
        let fault = self.pass("sync").await?;
        end(self.persist(), fault)
    }

    async fn seed_done(&self) -> Result<()> {
        let mut interrupted = self.interrupted.subscribe();
        let fault = tokio::select! {
            passed = self.pass("seed_done") => passed?,
            _ = interrupted.wait_for(|is| *is) => return Err(Error::Busy("the load was interrupted".to_owned())),
        };
        if self.held().held.parts.iter().any(|part| !part.done) {
            return Err(Error::Gap { expected: "every part".to_owned(), got: "fewer".to_owned() });
        }
        self.held().held.seeded = true;
        self.persist();
        end((), fault)
    }

    async fn log(&self, batch: LogBatch) -> Result<()> {
        self.pass("log").await?;
        let mut held = self.held();
        let at = held.held.log.clone().unwrap_or_default();
        let number = |p: &Position| p.as_str().parse::<u64>().map_err(|_| Error::Corrupt("position".to_owned()));
        if number(&batch.to)? <= number(&at)? {
            return Ok(());
        }
        if batch.from != at {
            return Err(Error::Gap { expected: at.to_string(), got: batch.from.to_string() });
        }
        held.held.log = Some(batch.to);
        Ok(())
    }

    async fn prepare_marker(&self, position: &Position) -> Result<()> {
        let fault = self.pass("prepare_marker").await?;
        let at = self.held().held.log.clone().unwrap_or_default();
        if at != *position {
            return Err(Error::Gap { expected: at.to_string(), got: position.to_string() });
        }
        self.persist();
        end((), fault)
    }

    async fn settle(&self) -> Result<()> {
        self.pass("settle").await.map(|_| ())
    }

    async fn interrupt(&self) {
        self.interrupted.send_replace(true);
    }

    async fn close(&self) {
        self.world.lock().calls.push("close".to_owned());
    }
}
