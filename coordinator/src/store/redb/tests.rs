//! The conformance suite on redb, and what is particular about a file.

use std::sync::atomic::{AtomicU32, Ordering};

use redb::{DatabaseError, backends::FileBackend};

use super::*;
use crate::store::conformance;

async fn open_at(path: &Path) -> Result<RedbStore, Error> {
    RedbStore::open(&Env::real(), path).await
}

fn put(key: &str, value: &str) -> Txn {
    Txn::default().put(key, value.as_bytes().to_vec())
}

#[tokio::test]
async fn it_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    conformance::all(|| async {
        let path = dir.path().join(count.fetch_add(1, Ordering::Relaxed).to_string());
        open_at(&path).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn what_was_committed_survives_a_crash_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/store.redb");
    let store = open_at(&path).await.unwrap();
    for n in 0..20u32 {
        let revision = store.commit(put("n", &n.to_string())).await.unwrap();
        // A crash leaves the file as it is now: not closed, not even unlocked.
        let crashed = dir.path().join(format!("crashed-{n}"));
        std::fs::copy(&path, &crashed).unwrap();
        let after = open_at(&crashed).await.unwrap();
        let found = after.get("n").await.unwrap().unwrap();
        assert_eq!((found.version, found.value), (revision, n.to_string().into_bytes()));
        assert!(after.commit(put("m", "x")).await.unwrap() > revision);
    }
    drop(store);
    let again = open_at(&path).await.unwrap();
    assert_eq!(again.get("n").await.unwrap().unwrap().value, b"19");
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let _store = open_at(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_store_in_use_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let first = open_at(&path).await.unwrap();
    let error = open_at(&path).await.err().unwrap();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert!(error.to_string().contains("stop the other coordinator"), "{error}");
    drop(first);
    open_at(&path).await.unwrap();
}

#[tokio::test]
async fn what_is_no_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, "this is no store\n".repeat(1000)).unwrap();
    let short = dir.path().join("short");
    std::fs::write(&short, "x").unwrap();
    let damaged = dir.path().join("damaged");
    drop(open_at(&damaged).await.unwrap());
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes.truncate(bytes.len() / 3);
    std::fs::write(&damaged, bytes).unwrap();
    for path in [&text, &short, &damaged] {
        let error = open_at(path).await.err().unwrap();
        assert!(matches!(error, Error::Corrupt { .. }), "{path:?}: {error:?}");
        assert!(!error.retryable());
        assert!(error.to_string().contains("restore it from a backup"), "{error}");
        assert!(path.exists(), "nothing is thrown away");
    }
    let error = open_at(dir.path()).await.err().unwrap();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    let error = open_at(&text.join("below-a-file")).await.err().unwrap();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
}

#[tokio::test]
async fn a_newer_format_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    drop(open_at(&path).await.unwrap());
    let database = Database::create(&path).unwrap();
    let writing = database.begin_write().unwrap();
    writing.open_table(META).unwrap().insert(FORMAT, 2).unwrap();
    writing.commit().unwrap();
    drop(database);
    let error = open_at(&path).await.err().unwrap();
    assert!(matches!(error, Error::Newer { found: 2, known: 1, .. }), "{error}");
}

/// A file on a file system of 3 MiB; nothing where none can be mounted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=3m", "causeway-test"]).arg(dir.path());
        mount.output().ok().filter(|done| done.status.success()).map(|_| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_says_so() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: no tmpfs can be mounted here");
        return;
    };
    let path = disk.0.path().join("store");
    drop(open_at(&path).await.unwrap());
    let mut remount = std::process::Command::new("mount");
    assert!(remount.args(["-o", "remount,ro"]).arg(disk.0.path()).status().unwrap().success());
    for path in [&path, &disk.0.path().join("new/store")] {
        let error = open_at(path).await.err().unwrap();
        assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
        assert!(error.to_string().contains("make file and directory writable"), "{error}");
    }
}

#[tokio::test]
async fn a_full_disk_says_so_and_is_got_over() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: no tmpfs can be mounted here");
        return;
    };
    let store = open_at(&disk.0.path().join("store")).await.unwrap();
    store.commit(put("kept", "x")).await.unwrap();
    let ballast = disk.0.path().join("ballast");
    let mut filled = 0;
    let error = loop {
        // Half of what is left each time, so that the store itself runs into the end.
        let _ = std::fs::write(&ballast, vec![1u8; (filled * 64) << 10]);
        filled += 1;
        if let Err(error) = store.commit(Txn::default().put(format!("k{filled}"), vec![1; 100 << 10])).await {
            break error;
        }
        assert!(filled < 100, "the disk never fills");
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("free some space"), "{error}");
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(store.get("kept").await.unwrap().unwrap().value, b"x");
    store.commit(put("after", "x")).await.unwrap();
    assert_eq!(store.get("after").await.unwrap().unwrap().value, b"x");
}

/// A process that dies while it makes its store, wherever that is, leaves nothing that hinders the next. Found by the simulation.
#[tokio::test]
async fn a_store_half_made_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let half = dir.path().join("store.redb.new");
    let whole = {
        drop(RedbStore::open(&Env::real(), &path).await.unwrap());
        std::fs::read(&path).unwrap()
    };
    for len in [0, 1, 9, 512, whole.len() / 2, whole.len()] {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&half, &whole[..len]).unwrap();
        let store = RedbStore::open(&Env::real(), &path).await.unwrap();
        store.commit(Txn::default().put("k", b"v".to_vec())).await.unwrap();
        drop(store);
        assert!(path.exists() && !half.exists(), "{len}");
    }
}

/// A disk that counts the writes to it, and on which one of them, counted down, is done and called failed.
struct Doubtful {
    disk: OnDisk,
    countdown: Arc<AtomicU32>,
    syncs: Arc<AtomicU32>,
}

#[derive(Debug)]
struct DoubtfulFile {
    file: FileBackend,
    countdown: Arc<AtomicU32>,
    syncs: Arc<AtomicU32>,
}

impl Doubtful {
    fn at(path: &Path) -> Self {
        Self { disk: OnDisk::new(path), countdown: Arc::default(), syncs: Arc::default() }
    }

    fn file(&self, file: FileBackend) -> DoubtfulFile {
        DoubtfulFile { file, countdown: self.countdown.clone(), syncs: self.syncs.clone() }
    }
}

impl Medium for Doubtful {
    type File = DoubtfulFile;

    fn open(&self) -> Result<Option<DoubtfulFile>, DatabaseError> {
        Ok(self.disk.open()?.map(|file| self.file(file)))
    }

    fn make(&self) -> Result<DoubtfulFile, DatabaseError> {
        self.disk.make().map(|file| self.file(file))
    }

    fn put_in_place(&self) -> io::Result<()> {
        self.disk.put_in_place()
    }
}

impl StorageBackend for DoubtfulFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.syncs.fetch_add(1, Ordering::SeqCst);
        match self.countdown.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(1) => Err(io::Error::other("done, and called failed")),
            _ => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// Who drives operations follows the changes alone: of a commit that failed and is there it must hear, too. Found by the
/// simulation: a queue stood still behind an operation that had ended.
#[tokio::test]
async fn a_commit_in_doubt_is_told_to_watchers() {
    let mut there = 0;
    for syncs in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let disk = Doubtful::at(&path);
        let countdown = disk.countdown.clone();
        let store = RedbStore::open_on(&Env::real(), &path, disk).await.unwrap();
        let mut changes = store.watch("op/");
        countdown.store(syncs, Ordering::SeqCst);
        let committed = store.commit(put("op/1", "x")).await;
        countdown.store(0, Ordering::SeqCst);
        let heard = tokio::time::timeout(std::time::Duration::from_secs(30), changes.next()).await;
        let heard = heard.expect("watchers hear of it").unwrap();
        assert_eq!(heard.is_err(), committed.is_err(), "{syncs}: {committed:?} {heard:?}");
        there += u32::from(committed.is_err() && store.get("op/1").await.unwrap().is_some());
        // It goes on as ever.
        store.commit(put("op/2", "y")).await.unwrap();
        assert_eq!(changes.next().await.unwrap().unwrap()[0].key, "op/2");
    }
    assert!(there > 0, "no commit was in doubt");
}

#[tokio::test]
async fn commits_that_wait_go_to_the_disk_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let disk = Doubtful::at(&path);
    let (countdown, syncs) = (disk.countdown.clone(), disk.syncs.clone());
    let store = RedbStore::open_on(&Env::real(), &path, disk).await.unwrap();
    let taken = store.commit(put("k/7", "taken")).await.unwrap();
    let many = async || {
        let commits = (0..200).map(|n| store.commit(put(&format!("k/{n}"), "new").absent(format!("k/{n}"))));
        futures::future::join_all(commits).await
    };
    let before = syncs.load(Ordering::SeqCst);
    let mut revisions: Vec<Revision> = many()
        .await
        .into_iter()
        .enumerate()
        .filter_map(|(n, result)| {
            // One that is refused leaves the others as they are.
            assert_eq!(result.is_err(), n == 7, "{n}: {result:?}");
            result.ok()
        })
        .collect();
    let taken_to_disk = syncs.load(Ordering::SeqCst) - before;
    assert!(taken_to_disk <= 20, "{taken_to_disk} writes to the disk for 200 commits");
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!((revisions.len(), revisions[0] > taken), (199, true), "each has a revision of its own");
    assert_eq!(store.list("k/", Page::first(1000)).await.unwrap().len(), 200);
    // When the disk fails, each of them hears it, and nobody waits for ever.
    for n in 0..200 {
        store.commit(Txn::default().delete(format!("k/{n}"))).await.unwrap();
    }
    countdown.store(1, Ordering::SeqCst);
    let failed = many().await.into_iter().filter(Result::is_err).count();
    assert!(failed > 0, "the disk's failure is told");
    store.commit(put("k/after", "x")).await.unwrap();
}
