//! Taking over the lock of a half: see the module above for why it is done in this order.

use super::{HEARTBEAT, Held, LOCK, Store, WATERMARK, epochs, is_record, newest, read_watermark, write_watermark};
use crate::{Error, Result, host::blocking, sqlite::disk};
use handover::{CommandVersion, Epoch};
use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The holder that somebody waits for, and when it was last seen alive by the waiter's own clock.
struct Watch {
    epoch: u64,
    heartbeat: Option<Vec<u8>>,
    since: Duration,
}

pub(super) async fn take_over(store: &Arc<Store>) -> Result<Epoch> {
    if store.held.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
        let store = store.clone();
        return blocking(&store.host.clone(), move || store.check()).await;
    }
    // Often enough that waiting costs little more than the take-over time itself.
    let pause = (store.takeover_after / 40).clamp(Duration::from_millis(5), Duration::from_millis(250));
    let mut watch = None;
    loop {
        let this = store.clone();
        let (held, next) = blocking(&store.host, move || attempt(&this, watch)).await?;
        if let Some(held) = held {
            let epoch = Epoch(held.epoch);
            *store.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(held));
            return Ok(epoch);
        }
        watch = next;
        tokio::time::sleep(pause).await;
    }
}

/// One try: the lock, or what to go on watching.
fn attempt(store: &Store, watch: Option<Watch>) -> Result<(Option<Held>, Option<Watch>)> {
    disk::make_dir(&store.home)?;
    let before = newest(&store.home)?;
    if let Some(epoch) = before {
        let dir = store.home.join(epoch.to_string());
        if is_locked(&dir)? {
            let heartbeat = disk::read(&dir.join(HEARTBEAT))?;
            let now = store.host.monotonic();
            let watch = match watch {
                Some(watch) if watch.epoch == epoch && watch.heartbeat == heartbeat => watch,
                _ => Watch { epoch, heartbeat, since: now },
            };
            if now.saturating_sub(watch.since) < store.takeover_after {
                return Ok((None, Some(watch)));
            }
            tracing::warn!(epoch, "taking over from an agent that gives no sign of life");
        }
    }
    let Some(held) = claim(store, before.unwrap_or(0).saturating_add(1))? else { return Ok((None, None)) };
    if complete(store, &held)? { Ok((Some(held), None)) } else { Ok((None, None)) }
}

/// Makes the directory of an epoch appear with its lock held; `None` if another agent was faster.
fn claim(store: &Store, epoch: u64) -> Result<Option<Held>> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let claim = store.home.join(format!("claim-{}-{count}", std::process::id()));
    let dir = store.home.join(epoch.to_string());
    let what = |step: &str| format!("{step} {}", claim.display());
    // A leftover of a dead process that had our number.
    disk::remove_dir(&claim)?;
    DirBuilder::new().mode(0o700).create(&claim).map_err(|e| Error::io(what("make"), e))?;
    let open = |name: &str| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(claim.join(name))
    };
    // Another heir that tidies up may hold the lock for a moment to see that it is free.
    let made = open(LOCK).and_then(|lock| {
        lock.lock()?;
        Ok((lock, open(HEARTBEAT)?))
    });
    let (lock, heartbeat) = match made {
        Ok(made) => made,
        // It saw that before we had locked, and removed the directory.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(what("make files in"), e)),
    };
    // A directory that is there already is never empty, so this fails and does not replace it.
    match std::fs::rename(&claim, &dir) {
        Ok(()) => {
            disk::sync_dir(&store.home)?;
            Ok(Some(Held { epoch, dir, _lock: lock, heartbeat }))
        }
        Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
            disk::remove_dir(&claim)?;
            Ok(None)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(what("rename"), e)),
    }
}

/// Copies what the holder before left and completes ours by its watermark; `false` if we were superseded meanwhile.
///
/// The one before may have died or been superseded right here, so the records are those of the newest complete one. It
/// cannot vanish while it is read: only a holder that completed *and* was not superseded after that removes older ones,
/// and then that holder's own would be the newest complete one.
fn complete(store: &Store, held: &Held) -> Result<bool> {
    let mut watermark = CommandVersion(0);
    let mut older: Vec<u64> = epochs(&store.home)?.into_iter().filter(|e| *e < held.epoch).collect();
    older.sort_unstable();
    for epoch in older.iter().rev() {
        let from = store.home.join(epoch.to_string());
        if disk::exists(&from.join(WATERMARK))? {
            watermark = copy(&from, &held.dir)?;
            break;
        }
    }
    write_watermark(&held.dir, watermark)?;
    if newest(&store.home)? != Some(held.epoch) {
        return Ok(false);
    }
    tidy(&store.home, held.epoch)?;
    for path in disk::list(&store.home)? {
        if path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("claim-")) {
            remove_dead(&path)?;
        }
    }
    Ok(true)
}

/// Copies the records and answers the watermark, which is read last: a record that is removed meanwhile had its version
/// put into it before.
fn copy(from: &Path, to: &Path) -> Result<CommandVersion> {
    for path in disk::list(from)? {
        if let (true, Some(name), Some(bytes)) =
            (is_record(&path), path.file_name().and_then(|n| n.to_str()), disk::read(&path)?)
        {
            disk::replace(to, name, &bytes)?;
        }
    }
    read_watermark(from)
}

/// Removes the directories of dead holders of epochs before a complete one.
pub(super) fn tidy(home: &Path, epoch: u64) -> Result<()> {
    epochs(home)?
        .into_iter()
        .filter(|older| *older < epoch)
        .try_for_each(|older| remove_dead(&home.join(older.to_string())))
}

/// Removes a directory whose holder is dead.
fn remove_dead(dir: &Path) -> Result<()> {
    if is_locked(dir)? { Ok(()) } else { disk::remove_dir(dir) }
}

/// Whether the lock in a directory is held. Asks for a shared lock, so that two who ask do not take each other for the
/// holder.
pub(super) fn is_locked(dir: &Path) -> Result<bool> {
    let path = dir.join(LOCK);
    let wrap = |e| Error::io(format!("try the lock {}", path.display()), e);
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(wrap(e)),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(wrap(e)),
    }
}
