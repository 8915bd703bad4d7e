//! The embedded store: one redb file, each commit synced to disk before it answers.

mod commit;
mod medium;

use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use futures::StreamExt as _;
use redb::{
    AccessGuard, Builder, Database, ReadableDatabase as _, ReadableTable as _, StorageBackend, StorageError,
    TableDefinition,
};
use service::Env;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use super::{Change, Changes, Entry, Error, Page, Revision, Store, Txn, Versioned};

pub use medium::Medium;
use medium::OnDisk;

const RECORDS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
const FORMAT_KNOWN: u64 = 1;

/// A hundred thousand ended operations are some 100 MB; what is looked at often is far less.
const CACHE_BYTES: usize = 16 << 20;
/// Commits a watcher may be behind: a thousand operations make a few a second, and a watcher takes microseconds for each.
const CHANGES_MAX: usize = 8192;

/// A store in one file.
#[derive(Clone)]
pub struct RedbStore {
    env: Env,
    inner: Arc<Inner>,
}

type Reopen = Box<dyn Fn(&Path) -> Result<Database, Error> + Send + Sync>;

struct Inner {
    /// The file, or what stands for its name in errors.
    path: PathBuf,
    /// Opens it, at first and again after an IO error.
    reopen: Reopen,
    /// Nothing after an IO error: redb then wants to be opened anew.
    database: RwLock<Option<Arc<Database>>>,
    queue: commit::Queue,
    /// Held from the begin of a commit until its changes are announced, so that they are announced in order.
    writer: Mutex<()>,
    changes: broadcast::Sender<Announced>,
}

/// What watchers hear.
#[derive(Clone)]
enum Announced {
    /// All that one commit changed.
    Commit(Arc<[Change]>),
    /// A commit failed, and may be there all the same: only a look at the store tells.
    Doubt,
}

impl RedbStore {
    /// Open the file, or make it, with its directory, if there is none.
    pub async fn open(env: &Env, path: &Path) -> Result<Self, Error> {
        Self::open_on(env, path, OnDisk::new(path)).await
    }

    /// The same on any medium, such as the disk of a simulation; `name` stands for it in errors.
    pub async fn open_on(env: &Env, name: &Path, medium: impl Medium) -> Result<Self, Error> {
        let path = name.to_owned();
        let reopen: Reopen = Box::new(move |path| open(&medium).map_err(|failure| failure.explain("open", path).0));
        let inner = env
            .blocking(move || {
                let database = reopen(&path)?;
                Ok(Inner {
                    path,
                    reopen,
                    database: RwLock::new(Some(Arc::new(database))),
                    queue: commit::Queue::default(),
                    writer: Mutex::new(()),
                    changes: broadcast::channel(CHANGES_MAX).0,
                })
            })
            .await?;
        Ok(Self { env: env.clone(), inner: Arc::new(inner) })
    }

    async fn with<T, F>(&self, action: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, Failure> + Send + 'static,
    {
        let inner = self.inner.clone();
        self.env.blocking(move || inner.with_database(action, work)).await
    }
}

#[async_trait::async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, Error> {
        let key = key.to_owned();
        self.with("read", move |database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            Ok(table.get(key.as_str())?.map(|found| versioned(found.value())))
        })
        .await
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Vec<Entry>, Error> {
        let prefix = prefix.to_owned();
        self.with("read", move |database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let (low, high) = (prefix.as_str(), past(&prefix));
            let mut bounds = (Bound::Included(low), high.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
            match page.after.as_deref() {
                Some(after) if page.descending && high.as_deref().is_none_or(|high| after < high) => {
                    bounds.1 = Bound::Excluded(after);
                }
                Some(_) if page.descending => {}
                Some(after) if after >= low => bounds.0 = Bound::Excluded(after),
                _ => {}
            }
            if let (Bound::Included(low) | Bound::Excluded(low), Bound::Excluded(high)) = bounds
                && low >= high
            {
                return Ok(Vec::new());
            }
            let range = table.range::<&str>(bounds)?;
            let entry = |item: Result<(AccessGuard<'_, &str>, AccessGuard<'_, (u64, &[u8])>), StorageError>| {
                let (key, value) = item?;
                Ok::<_, Failure>(Entry { key: key.value().to_owned(), versioned: versioned(value.value()) })
            };
            if page.descending {
                range.rev().take(page.limit).map(entry).collect()
            } else {
                range.take(page.limit).map(entry).collect()
            }
        })
        .await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        let mut answer = self.inner.queue.push(txn);
        let _turn = self.inner.queue.turn.lock().await;
        if let Ok(answer) = answer.try_recv() {
            // Whoever had the turn before took it along.
            return answer;
        }
        let inner = self.inner.clone();
        self.env.blocking(move || inner.commit_waiting()).await;
        answer.await.unwrap_or_else(|_| {
            let reason = "the commit was given up half-way".to_owned();
            Err(Error::Io { action: "write", path: self.inner.path.clone(), reason })
        })
    }

    fn watch(&self, prefix: &str) -> Changes {
        let prefix = prefix.to_owned();
        BroadcastStream::new(self.inner.changes.subscribe())
            .filter_map(move |commit| {
                let commit = match commit {
                    Ok(Announced::Commit(commit)) => {
                        let ours = commit.iter().filter(|change| change.key.starts_with(&prefix)).cloned();
                        Some(ours.collect::<Vec<_>>()).filter(|ours| !ours.is_empty()).map(Ok)
                    }
                    Ok(Announced::Doubt) | Err(BroadcastStreamRecvError::Lagged(_)) => Some(Err(Error::Lagged)),
                };
                std::future::ready(commit)
            })
            .boxed()
    }
}

impl Inner {
    fn database(&self) -> Result<Arc<Database>, Error> {
        if let Some(database) = &*self.database.read().expect("no holder of this lock panics") {
            return Ok(database.clone());
        }
        let mut place = self.database.write().expect("no holder of this lock panics");
        if let Some(database) = &*place {
            return Ok(database.clone());
        }
        let database = Arc::new((self.reopen)(&self.path)?);
        *place = Some(database.clone());
        Ok(database)
    }

    fn with_database<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let database = self.database()?;
        let result = catch(|| work(&database));
        drop(database);
        result.map_err(|failure| {
            let (error, reopen) = failure.explain(action, &self.path);
            if reopen {
                *self.database.write().expect("no holder of this lock panics") = None;
            }
            error
        })
    }
}

/// The smallest text greater than all that start with `prefix`; nothing if there is none.
fn past(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

fn versioned((version, value): (u64, &[u8])) -> Versioned {
    Versioned { version: Revision(version), value: value.to_vec() }
}

/// Opens what is there, or makes it. A new store is whole before it has its name: a process that dies while it makes one leaves
/// nothing that the next could take for a damaged store.
fn open(medium: &impl Medium) -> Result<Database, Failure> {
    catch(|| {
        if let Some(file) = medium.open()? {
            return begin(file);
        }
        let database = begin(medium.make()?)?;
        medium.put_in_place()?;
        Ok(database)
    })
}

fn begin(file: impl StorageBackend) -> Result<Database, Failure> {
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(file)?;
    prepare(&database)?;
    Ok(database)
}

/// Make the tables, or see that they are ours.
fn prepare(database: &Database) -> Result<(), Failure> {
    let writing = database.begin_write()?;
    {
        writing.open_table(RECORDS)?;
        let mut meta = writing.open_table(META)?;
        let format = meta.get(FORMAT)?.map(|found| found.value());
        match format {
            None => drop(meta.insert(FORMAT, FORMAT_KNOWN)?),
            Some(found) if found > FORMAT_KNOWN => {
                let what = "the coordinator's store".to_owned();
                return Err(Failure::Told(Error::Newer { what, found, known: FORMAT_KNOWN }));
            }
            Some(_) => {}
        }
    }
    writing.commit()?;
    Ok(())
}

enum Failure {
    Told(Error),
    Redb(Box<redb::Error>),
    Panicked,
}

impl Failure {
    /// Our error, and whether redb has to be opened anew after it.
    fn explain(self, action: &'static str, path: &Path) -> (Error, bool) {
        match self {
            Failure::Told(error) => (error, false),
            Failure::Redb(error) => explain(action, path, *error),
            Failure::Panicked => {
                let reason = "redb finds it damaged".to_owned();
                (Error::Corrupt { path: path.to_owned(), reason }, true)
            }
        }
    }
}

/// redb meets some kinds of damage with a panic; for us they are errors like others.
fn catch<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Failure::Panicked))
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Redb(Box::new(error.into()))
    }
}

/// Our error for one of redb's, and whether redb has to be opened anew after it.
fn explain(action: &'static str, path: &Path, error: redb::Error) -> (Error, bool) {
    let path = path.to_owned();
    let reason = error.to_string();
    match error {
        redb::Error::DatabaseAlreadyOpen => (Error::InUse { path }, false),
        redb::Error::Io(error) => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                (Error::Full { path, reason }, true)
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                (Error::ReadOnly { path, reason }, true)
            }
            io::ErrorKind::IsADirectory => {
                (Error::Corrupt { path, reason: "it is a directory, not a file".to_owned() }, false)
            }
            // What redb answers to a file that is not one of its own.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                (Error::Corrupt { path, reason: "it is no redb file".to_owned() }, false)
            }
            _ => (Error::Io { action, path, reason }, true),
        },
        redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_) => {
            (Error::Io { action, path, reason }, true)
        }
        redb::Error::UpgradeRequired(format) => {
            let reason = format!("it is in redb's old file format {format}");
            (Error::Corrupt { path, reason }, false)
        }
        _ => (Error::Corrupt { path, reason }, false),
    }
}

#[cfg(test)]
mod tests;
