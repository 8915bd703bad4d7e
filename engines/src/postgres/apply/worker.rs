//! One of the connections that apply: takes changes of its share of the keys, in order, and brings what they come to.

use super::{
    Shared, helpers,
    net::{self, Act, Images, Item, Net},
    script::{Expected, Script},
    session::{Outcome, Session},
    table::Table,
};
use crate::{
    Error, Result,
    postgres::{log::pgoutput::Change, position::Point},
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// A transaction of ours has about so many changes, or bytes, at most. More gains nothing; fewer cost more statements.
const CHANGES_MAX: usize = 20_000;
const BYTES_MAX: usize = 8 << 20;

/// A payload; it counts against the queue's bound until the last worker is done with it.
pub(super) struct Payload {
    pub(super) bytes: Bytes,
    pub(super) _permit: OwnedSemaphorePermit,
}

/// All tables the router has met; items name them by their place.
pub(super) type Tables = Arc<Vec<Arc<Table>>>;

/// What a worker is told to do.
pub(super) enum Job {
    Changes(Changes),
    /// Answers when everything before it is committed; with `lift` the checkpoint is at `to` then.
    Sync {
        to: Point,
        lift: bool,
        done: oneshot::Sender<()>,
    },
    /// Something that no worker may overtake. All others are idle and everything before it is committed.
    Barrier {
        barrier: Barrier,
        to: Point,
        workers: u64,
        done: oneshot::Sender<()>,
    },
}

/// Changes up to a point.
pub(super) struct Changes {
    pub(super) payload: Arc<Payload>,
    pub(super) tables: Tables,
    pub(super) items: Vec<Item>,
    pub(super) to: Point,
}

/// What is applied alone.
pub(super) enum Barrier {
    /// A statement that empties tables, and those of them whose rows were gone before.
    Truncate { sql: String, emptied: Vec<Arc<Table>> },
    /// An update that moves a row to another key and leaves some of its values unchanged.
    Move { payload: Arc<Payload>, table: Arc<Table>, at: u32 },
}

/// Some changes that make one transaction, ready to be sent.
struct Batch {
    changes: Vec<Changes>,
    pieces: Vec<Bytes>,
    script: Script,
}

/// A worker.
pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) session: Session,
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) shared: Arc<Shared>,
    /// A job that was taken and has to wait for the batch before it.
    pub(super) next: Option<Job>,
    /// A transaction is verified and not yet committed.
    pub(super) open: bool,
    /// Who waits for what is being done. Kept until a failure is recorded: whoever hears of it asks at once for its reason.
    pub(super) asked: Option<oneshot::Sender<()>>,
}

impl Worker {
    /// Works until there is nothing more to come, or until something fails.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.work().await {
            self.shared.fail(error);
        }
    }

    async fn work(&mut self) -> Result<()> {
        loop {
            if self.next.is_none() {
                self.next = self.jobs.try_recv().ok();
            }
            // Nothing to do: then nothing should stay uncommitted.
            if self.next.is_none() {
                self.commit().await?;
                match self.jobs.recv().await {
                    Some(job) => self.next = Some(job),
                    None => return Ok(()),
                }
            }
            match self.next.take() {
                Some(Job::Changes(changes)) => {
                    let batch = self.gather(changes)?;
                    self.apply(batch).await?;
                }
                Some(Job::Sync { to, lift, done }) => {
                    self.asked = Some(done);
                    self.commit().await?;
                    if lift {
                        let mut script = Script::default();
                        self.session.checkpoint(&mut script, Some(self.number), to, 1);
                        self.exchange(&mut script).await?;
                    }
                    self.answer();
                }
                Some(Job::Barrier { barrier, to, workers, done }) => {
                    self.asked = Some(done);
                    self.commit().await?;
                    self.barrier(barrier, to, workers).await?;
                    self.answer();
                }
                None => {}
            }
        }
    }

    fn answer(&mut self) {
        if let Some(done) = self.asked.take() {
            let _ = done.send(());
        }
    }

    /// Applies batch after batch. The next one is made while the server works on the one before, whose commit goes with it.
    async fn apply(&mut self, mut batch: Batch) -> Result<()> {
        loop {
            self.send(&mut batch).await?;
            let mut following = self.gather_following()?;
            if let Outcome::Conflict = self.session.answers(&batch.script.expected).await? {
                self.replay(&batch).await?;
                // Its statements were prepared in the session as it was before the conflict.
                if let Some(following) = &mut following {
                    self.encode(following)?;
                }
            }
            self.open = true;
            match following {
                Some(following) => batch = following,
                None => return Ok(()),
            }
        }
    }

    async fn send(&mut self, batch: &mut Batch) -> Result<()> {
        if !self.open {
            return self.session.send(&mut batch.script).await;
        }
        let mut script = Script::default();
        self.session.commit(&mut script);
        script.append(std::mem::take(&mut batch.script));
        self.open = false;
        self.session.send(&mut script).await?;
        batch.script = script;
        Ok(())
    }

    /// Makes a batch of what is queued, beginning with some changes.
    fn gather(&mut self, first: Changes) -> Result<Batch> {
        let size = |changes: &Changes| (changes.items.len(), changes.payload.bytes.len());
        let (mut count, mut bytes) = size(&first);
        let mut changes = vec![first];
        while count < CHANGES_MAX && bytes < BYTES_MAX && changes.len() < usize::from(u16::MAX) {
            match self.jobs.try_recv() {
                Ok(Job::Changes(more)) => {
                    let (more_count, more_bytes) = size(&more);
                    (count, bytes) = (count + more_count, bytes + more_bytes);
                    changes.push(more);
                }
                Ok(other) => {
                    self.next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let pieces = changes.iter().map(|changes| changes.payload.bytes.clone()).collect();
        let mut batch = Batch { changes, pieces, script: Script::default() };
        self.encode(&mut batch)?;
        Ok(batch)
    }

    fn gather_following(&mut self) -> Result<Option<Batch>> {
        let job = match self.next.take() {
            Some(job) => Some(job),
            None => self.jobs.try_recv().ok(),
        };
        match job {
            Some(Job::Changes(changes)) => self.gather(changes).map(Some),
            other => {
                self.next = other;
                Ok(None)
            }
        }
    }

    /// Writes the transaction of a batch: what its changes come to.
    fn encode(&mut self, batch: &mut Batch) -> Result<()> {
        let mut nets: Vec<Option<Net>> = Vec::new();
        let mut images = Images::default();
        let grows = only_grow(&batch.changes);
        for (piece, changes) in batch.changes.iter().enumerate() {
            for item in &changes.items {
                let place = item.table as usize;
                if nets.len() <= place {
                    nets.resize_with(place + 1, || None);
                }
                let net = nets[place].get_or_insert_with(|| Net::new(changes.tables[place].clone()));
                read(item, &net.table, &batch.pieces[piece], piece, &mut images)?;
                match grows[place] {
                    true => net.append(&images)?,
                    false => net.add(&batch.pieces, item.act, item.hash, &images)?,
                }
            }
        }
        let mut script = self.begin(batch, true);
        for net in nets.iter().flatten() {
            script.table(&mut self.session.prepared, &batch.pieces, net, false);
        }
        batch.script = script;
        Ok(())
    }

    /// Applies the changes of a batch one by one, in the order in which they were committed: then nothing gets in the way of
    /// anything that was not in its way at the source.
    async fn replay(&mut self, batch: &Batch) -> Result<()> {
        let mut script = self.begin(batch, false);
        script.run(&mut self.session.prepared, "SET CONSTRAINTS ALL DEFERRED", &[], Expected::Done);
        let mut images = Images::default();
        for (piece, changes) in batch.changes.iter().enumerate() {
            for item in &changes.items {
                let mut net = Net::new(changes.tables[item.table as usize].clone());
                read(item, &net.table, &batch.pieces[piece], piece, &mut images)?;
                net.add(&batch.pieces, item.act, item.hash, &images)?;
                script.table(&mut self.session.prepared, &batch.pieces, &net, true);
            }
        }
        self.exchange(&mut script).await
    }

    fn begin(&mut self, batch: &Batch, values: bool) -> Script {
        let bytes: usize = batch.pieces.iter().map(Bytes::len).sum();
        let mut script = Script::with_capacity(if values { bytes.min(BYTES_MAX) } else { 0 });
        let to = batch.changes.last().map(|changes| changes.to).unwrap_or_default();
        self.session.begin(&mut script, Some(self.number), to, 1);
        script
    }

    async fn barrier(&mut self, barrier: Barrier, to: Point, workers: u64) -> Result<()> {
        let mut script = Script::default();
        self.session.begin(&mut script, None, to, workers);
        match barrier {
            Barrier::Truncate { sql, emptied } => {
                script.run(&mut self.session.prepared, &sql, &[], Expected::Done);
                for table in &emptied {
                    let forget = helpers::forget_emptied(&table.quoted());
                    script.run(&mut self.session.prepared, &forget, &[], Expected::Done);
                }
            }
            Barrier::Move { payload, table, at } => {
                let mut images = Images::default();
                images.read(&table, &payload.bytes, at, Change::Update, 0)?;
                let pieces = [payload.bytes.clone()];
                script.exchange(&mut self.session.prepared, &pieces, &table, &images.old, &images.new);
            }
        }
        self.exchange(&mut script).await?;
        self.open = true;
        self.commit().await
    }

    async fn commit(&mut self) -> Result<()> {
        if std::mem::take(&mut self.open) {
            let mut script = Script::default();
            self.session.commit(&mut script);
            self.exchange(&mut script).await?;
        }
        Ok(())
    }

    async fn exchange(&mut self, script: &mut Script) -> Result<()> {
        self.session.send(script).await?;
        match self.session.answers(&script.expected).await? {
            Outcome::Done => Ok(()),
            Outcome::Conflict => Err(Error::Corrupt(
                "rows of the log violate a constraint at the destination that they did not violate at the source"
                    .to_owned(),
            )),
        }
    }
}

/// For each table, whether nothing but inserts comes.
fn only_grow(changes: &[Changes]) -> Vec<bool> {
    let mut grows = Vec::new();
    for item in changes.iter().flat_map(|changes| &changes.items) {
        let place = item.table as usize;
        if grows.len() <= place {
            grows.resize(place + 1, true);
        }
        grows[place] &= item.act == Act::Insert;
    }
    grows
}

/// Reads an item's message.
fn read(item: &Item, table: &Table, bytes: &Bytes, piece: usize, images: &mut Images) -> Result<()> {
    let change = match item.act {
        Act::Insert => Change::Insert,
        Act::Update | Act::Leave | Act::Arrive => Change::Update,
        Act::Delete => Change::Delete,
    };
    debug_assert_eq!(change, net::change_at(bytes, item.at));
    images.read(table, bytes, item.at, change, piece as u16)
}
