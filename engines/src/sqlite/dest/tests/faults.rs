//! Stopped agents that wake up, and disks that are full.

use super::*;
use std::{os::unix::fs::FileExt, path::Path, process::Command};

#[tokio::test]
async fn a_zombie_writes_nothing_even_through_what_it_has_open() {
    let mut rig = Rig::new().await;
    let (zombie_replica, end) = rig.prepared().await;
    let zombie_path = rig.staging();
    let open = |name: &str| std::fs::OpenOptions::new().write(true).open(zombie_path.join(name)).expect("open");
    let (zombie_db, zombie_spool) = (open("db"), open("spool"));
    let zombie = std::mem::replace(&mut rig.dest, engine(&rig.dir));
    // Not clean: the one before lives, and only gives no sign of it.
    assert_eq!(rig.dest.take_over().await.expect("taken"), Epoch(2));
    let replica = rig.open().await;
    assert_eq!(replica.durable().await.expect("told").log, Some(end.clone()), "the durable log did not come along");

    zombie_db.write_all_at(&[0xEE; 8192], 0).expect("written to a file that is gone");
    zombie_db.set_len(1).expect("cut a file that is gone");
    zombie_spool.write_all_at(&[0xEE; 64], 0).expect("written to a file that is gone");
    let batch = rig.feed.log(0, 1)[0].clone();
    let late = crate::source::LogBatch { from: end.clone(), to: rig.feed.at(99_999), ..batch };
    assert!(is_superseded(zombie_replica.log(late).await), "a zombie took log");
    assert!(is_superseded(zombie_replica.sync().await), "a zombie vouched for durability");
    assert!(is_superseded(zombie.promote(&rig.primary()).await), "a zombie flipped");
    assert!(is_superseded(zombie.put_role(&rig.primary()).await));
    assert!(is_superseded(zombie.prepare(&role("op-7", Phase::Seeding)).await));
    assert!(is_superseded(zombie.discard(&rig.role).await), "a zombie discarded");
    assert!(is_superseded(zombie.finish(&rig.role).await));
    assert!(is_superseded(zombie.heartbeat().await));
    assert!(is_superseded(zombie.databases().await));
    assert!(!rig.target().exists(), "a zombie opened the database");
    assert_eq!(rig.recorded().await, rig.role);

    replica.prepare_marker(&end).await.expect("prepared");
    rig.dest.promote(&rig.primary()).await.expect("promoted");
    rig.assert_serves();
    // The very last step of a promotion that it was stopped in leads nowhere.
    assert!(std::fs::rename(zombie_path.join("db"), rig.target()).is_err(), "a zombie's path still leads somewhere");
    rig.assert_serves();
}

#[tokio::test]
async fn an_heir_that_died_while_it_copied_is_followed_by_another() {
    let mut rig = Rig::new().await;
    let (zombie, end) = rig.prepared().await;
    let old = rig.staging();
    let first = std::mem::replace(&mut rig.dest, engine(&rig.dir));
    rig.dest.take_over().await.expect("taken");
    // As it stands after the move and amid the copy.
    std::fs::rename(&old, old.with_file_name("op-1.2.moved")).expect("moved");
    let partial = old.with_file_name("op-1.2.partial");
    std::fs::create_dir(&partial).expect("made");
    std::fs::write(partial.join("db"), b"half").expect("written");
    rig.restart().await;
    let replica = rig.open().await;
    replica.prepare_marker(&end).await.expect("prepared");
    rig.dest.promote(&rig.primary()).await.expect("promoted");
    rig.assert_serves();
    rig.dest.finish(&rig.primary()).await.expect("finished");
    assert_eq!(rig.left(), Vec::<PathBuf>::new());
    drop((zombie, first));
}

/// A file system of its own, as small as asked for; nothing where that may not be done.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(at).expect("made");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]).arg(at).status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("no small disk can be mounted here: the test is skipped");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_is_retried() {
    let tmp = tempfile::tempdir().expect("a directory");
    let dir = tmp.path().join("east");
    let Some(_disk) = SmallDisk::mount(&dir, 6 << 20) else { return };
    let feed = Feed::new(&tmp.path().join("west.db"), 4096);
    for n in 0..40 {
        feed.write(10_000 + n * 20, 20);
    }
    let dest = engine(&dir);
    dest.take_over().await.expect("taken");
    let role = role("op-1", Phase::Seeding);
    dest.prepare(&role).await.expect("prepared");
    let rig = Rig { _tmp: tmp, dir, dest, role, feed };
    let replica = rig.open().await;
    replica.plan(&rig.feed.plan(1, false)).await.expect("planned");
    let ballast = rig.dir.join("ballast");
    let fill = || {
        let file = std::fs::File::create(&ballast).expect("made");
        let mut at = 0;
        while file.write_all_at(&[0; 4096], at).is_ok() {
            at += 4096;
        }
    };
    let full = |result: Result<()>| {
        let error = result.expect_err("a full disk took it");
        assert!(matches!(error, Error::DiskFull(_)) && error.retryable(), "{error}");
    };

    fill();
    let chunks = rig.feed.chunks();
    let (part, offset, payload, next, last) = chunks[0].clone();
    full(replica.chunk(part, offset, payload, next, last).await);
    full(replica.log(rig.feed.log(0, 50)[0].clone()).await);
    std::fs::remove_file(&ballast).expect("removed");
    rig.feed.seed(&replica).await;
    replica.log(rig.feed.log(0, 50)[0].clone()).await.expect("kept");

    fill();
    full(replica.sync().await.map(drop));
    full(replica.seed_done().await);
    std::fs::remove_file(&ballast).expect("removed");
    replica.seed_done().await.expect("whole");

    let (mut hits, mut begun) = (0, 0);
    for (n, batch) in rig.feed.log(50, 200).into_iter().enumerate() {
        fill();
        let taken = replica.log(batch.clone()).await;
        std::fs::remove_file(&ballast).expect("removed");
        // What only replaces pages that are there already finds room.
        if taken.is_err() {
            full(taken);
            hits += 1;
            // The first one fails before it is begun; of a later one some may be in the file, so it stands nowhere.
            if n > 0 {
                begun += 1;
                assert!(is_gap(replica.prepare_marker(&batch.from).await), "a marker behind log that was begun");
            }
        }
        replica.log(batch).await.expect("taken");
    }
    assert!(hits > 0 && begun > 0, "the disk was never full");
    let end = rig.feed.end();
    fill();
    full(replica.prepare_marker(&end).await);
    std::fs::remove_file(&ballast).expect("removed");
    replica.prepare_marker(&end).await.expect("prepared");
    fill();
    full(rig.dest.promote(&rig.primary()).await);
    assert_eq!(rig.recorded().await, rig.role);
    std::fs::remove_file(&ballast).expect("removed");
    rig.dest.promote(&rig.primary()).await.expect("promoted");
    rig.assert_serves();
}

#[tokio::test]
async fn what_a_failed_sync_lost_is_sent_again() {
    let rig = Rig::new().await;
    let replica = {
        let operation = rig.role.operation.clone();
        rig.open().await;
        rig.dest.inner.open.lock().expect("locked").get(&operation).expect("open").clone()
    };
    replica.plan(&rig.feed.plan(1, false)).await.expect("planned");
    let chunks = rig.feed.chunks();
    let (part, offset, payload, next, last) = chunks[0].clone();
    replica.chunk(part, offset, payload, next, last).await.expect("taken");
    replica.lose_writes();
    assert_eq!(replica.durable().await.expect("told").held.parts, vec![]);
    let (part, offset, payload, next, last) = chunks[1].clone();
    assert!(is_gap(replica.chunk(part, offset, payload, next, last).await), "what was lost counted as held");
}
