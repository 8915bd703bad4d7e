//! Seed and log: in any cut, with crashes, repeats and holes.

use super::*;
use crate::sqlite::wire::{Digest, Frame, Sparse, begin_log, full_prefix, push_frame};
use bytes::BytesMut;

#[tokio::test]
async fn a_database_arrives_however_the_log_is_cut() {
    for per_batch in [1, 3, 10_000] {
        let rig = Rig::new().await;
        let replica = rig.open().await;
        replica.plan(&rig.feed.plan(1, false)).await.expect("planned");
        rig.feed.seed(&replica).await;
        replica.seed_done().await.expect("whole");
        let end = rig.feed.log_to(&replica, 0, per_batch).await;
        replica.settle().await.expect("settled");
        replica.prepare_marker(&end).await.expect("prepared");
        rig.dest.promote(&rig.primary()).await.expect("promoted");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(rig.target()).expect("there").permissions().mode() & 0o777, 0o640);
        rig.assert_serves();
        rig.dest.finish(&rig.primary()).await.expect("finished");
        assert_eq!(rig.left(), Vec::<PathBuf>::new());
    }
}

#[tokio::test]
async fn every_page_size_arrives() {
    for page_size in [512, 1024, 65536] {
        let mut rig = Rig::new().await;
        rig.feed = Feed::new(&rig.dir.with_file_name(format!("west{page_size}.db")), page_size);
        let _ = rig.prepared().await;
        rig.dest.promote(&rig.primary()).await.expect("promoted");
        rig.assert_serves();
    }
}

#[tokio::test]
async fn log_that_comes_before_the_seed_is_whole_is_kept_over_a_crash() {
    let mut rig = Rig::new().await;
    let replica = rig.open().await;
    replica.plan(&rig.feed.plan(1, false)).await.expect("planned");
    let half = rig.feed.frame_count() / 2;
    let batches = rig.feed.log(0, half as usize);
    replica.log(batches[0].clone()).await.expect("kept");
    let chunks = rig.feed.chunks();
    for (part, offset, payload, next, last) in chunks[..chunks.len() - 1].iter().cloned() {
        replica.chunk(part, offset, payload, next, last).await.expect("taken");
    }
    assert!(is_gap(replica.seed_done().await), "a seed with a hole was whole");
    let durable = replica.sync().await.expect("synced");
    assert_eq!(durable.log, Some(rig.feed.at(half)));
    // What comes after the sync is lost with the agent.
    replica.log(batches[1].clone()).await.expect("kept");
    assert_eq!(replica.durable().await.expect("told").held.log, Some(batches[1].to.clone()));
    drop(replica);
    rig.restart().await;

    let replica = rig.open().await;
    let held = replica.durable().await.expect("told");
    assert_eq!(held.log, Some(rig.feed.at(half)));
    assert_eq!(held.held.log, held.log);
    assert_eq!(held.held.parts.iter().map(|p| p.durable).sum::<u64>(), (chunks.len() as u64 - 1) * (16 << 10));
    assert!(!held.held.seeded);
    replica.plan(&rig.feed.plan(1, false)).await.expect("the same plan");
    assert_eq!(replica.durable().await.expect("told"), held, "the same plan changed something");
    let (part, offset, payload, next, last) = chunks.last().cloned().expect("there is one");
    replica.chunk(part, offset, payload, next, last).await.expect("taken");
    replica.seed_done().await.expect("whole");
    replica.seed_done().await.expect("still whole");
    let end = rig.feed.log_to(&replica, half, 5).await;
    replica.prepare_marker(&end).await.expect("prepared");
    drop(replica);
    rig.dest.promote(&rig.primary()).await.expect("promoted");
    rig.assert_serves();
}

#[tokio::test]
async fn a_crash_while_the_log_is_applied_is_made_good_by_sending_it_again() {
    let mut rig = Rig::new().await;
    let replica = rig.open().await;
    replica.plan(&rig.feed.plan(1, false)).await.expect("planned");
    rig.feed.seed(&replica).await;
    replica.seed_done().await.expect("whole");
    let first = rig.feed.first_commit();
    for batch in rig.feed.log(0, 1).into_iter().take(first as usize) {
        replica.log(batch).await.expect("taken");
    }
    replica.sync().await.expect("synced");
    for batch in rig.feed.log(first, 4) {
        replica.log(batch).await.expect("applied, but never synced");
    }
    drop(replica);
    rig.restart().await;

    let replica = rig.open().await;
    assert_eq!(replica.durable().await.expect("told").log, Some(rig.feed.at(first)));
    // It stands at a commit, but its file may be further: nobody may force it open now.
    drop(replica);
    assert!(is_corrupt(rig.dest.promote(&rig.primary()).await), "opened amid the log");
    let replica = rig.open().await;
    let end = rig.feed.log_to(&replica, first, 4).await;
    replica.prepare_marker(&end).await.expect("prepared");
    rig.dest.promote(&rig.primary()).await.expect("promoted");
    rig.assert_serves();
}

#[tokio::test]
async fn what_is_held_is_skipped_and_holes_are_told() {
    let rig = Rig::new().await;
    let replica = rig.open().await;
    assert!(replica.log(rig.feed.log(0, 3)[0].clone()).await.is_err(), "log without a plan");
    replica.plan(&rig.feed.plan(1, false)).await.expect("planned");
    let chunks = rig.feed.chunks();
    let (part, offset, payload, next, last) = chunks[1].clone();
    assert!(is_gap(replica.chunk(part, offset, payload.clone(), next, last).await), "a hole in a part");
    assert!(is_corrupt(replica.chunk(9999, 0, payload.clone(), next, last).await), "a part that is none");
    assert!(is_corrupt(replica.chunk(part, 1, payload.clone(), next, last).await), "amid a page");
    assert!(is_corrupt(replica.chunk(part, 0, payload.slice(..20), next, last).await), "cut off");
    assert!(is_corrupt(replica.chunk(0, 0, payload.clone(), 8 << 10, false).await), "more than it says");
    let stray = |bytes| {
        let mut stray = BytesMut::new();
        full_prefix(&mut stray, None);
        stray.extend_from_slice(&vec![0; bytes]);
        stray.freeze()
    };
    for (part, offset, payload, next, last) in chunks[..3].iter().cloned() {
        replica.chunk(part, offset, payload, next, last).await.expect("taken");
    }
    assert!(is_corrupt(replica.chunk(0, 48 << 10, stray(32 << 10), 80 << 10, true).await), "beyond its part");
    let (part, offset, _, next, last) = chunks[0].clone();
    replica.chunk(part, offset, stray(16 << 10), next, last).await.expect("skipped");
    let (db, file) = (rig.staging().join("db"), rig.feed.file());
    assert!(std::fs::read(&db).expect("read") == file[..48 << 10], "a chunk that is held was written again");
    rig.feed.seed(&replica).await;
    rig.feed.seed(&replica).await;
    replica.seed_done().await.expect("whole");
    // Whether a chunk in the middle or the last of its part: it is older than log that may have been applied.
    for (part, offset, payload, next, last) in [&chunks[0], &chunks[3]].map(Clone::clone) {
        assert_eq!(last, offset == 48 << 10, "the test needs the last chunk of a part");
        replica.chunk(part, offset, stray(payload.len() - 4), next, last).await.expect("skipped");
    }
    assert!(std::fs::read(&db).expect("read") == file, "a chunk of a part that is whole was written again");
    let batches = rig.feed.log(0, 4);
    replica.log(batches[0].clone()).await.expect("taken");
    assert!(is_gap(replica.log(batches[2].clone()).await), "a hole in the log");
    let mut fork = batches[1].clone();
    fork.from = crate::sqlite::wire::Point::Wal { seq: 4, salt: [9, 9], frame: 4, checksum: [3, 4] }.position();
    assert!(is_gap(replica.log(fork).await), "the log of another history");
    replica.log(batches[1].clone()).await.expect("taken");
    replica.log(batches[0].clone()).await.expect("skipped");
    assert_eq!(replica.durable().await.expect("told").held.log, Some(rig.feed.at(8)), "the log went back");
    replica.log(batches[1].clone()).await.expect("skipped");
    let mut large = BytesMut::new();
    begin_log(&mut large, 8192);
    push_frame(&mut large, Frame { pgno: 2, commit: 0, page: &[0; 8192] });
    let large = crate::source::LogBatch { payload: large.freeze(), ..batches[2].clone() };
    assert!(is_corrupt(replica.log(large).await), "log with pages of another size");
    let end = rig.feed.log_to(&replica, 0, 5).await;
    assert!(is_gap(replica.prepare_marker(&rig.feed.at(3)).await), "a marker that was passed");
    assert!(is_gap(replica.prepare_marker(&rig.feed.at(9999)).await), "a marker ahead");
    replica.prepare_marker(&end).await.expect("prepared");
    replica.prepare_marker(&end).await.expect("prepared again");
    rig.dest.promote(&rig.primary()).await.expect("promoted");
    assert!(matches!(replica.sync().await, Err(Error::Misuse(_))), "a replica outlived its promotion");
    rig.assert_serves();
}

#[tokio::test]
async fn a_marker_amid_a_transaction_or_over_damage_is_refused() {
    let rig = Rig::new().await;
    let replica = rig.open().await;
    replica.plan(&rig.feed.plan(1, false)).await.expect("planned");
    rig.feed.seed(&replica).await;
    assert!(is_gap(replica.prepare_marker(&rig.feed.at(0)).await), "a marker before the seed is whole");
    drop(replica);
    assert!(is_corrupt(rig.dest.promote(&rig.primary()).await), "forced open before the seed is whole");
    let replica = rig.open().await;
    replica.seed_done().await.expect("whole");
    let first = rig.feed.first_commit();
    assert!(first > 1, "the test needs a transaction of several frames");
    replica.log(rig.feed.log(0, first as usize - 1)[0].clone()).await.expect("taken");
    let refused = replica.prepare_marker(&rig.feed.at(first - 1)).await;
    assert!(matches!(&refused, Err(Error::Corrupt(why)) if why.contains("amid a transaction")), "{refused:?}");
    drop(replica);
    assert!(is_corrupt(rig.dest.promote(&rig.primary()).await), "forced open amid a transaction");
    assert_eq!(rig.recorded().await, rig.role, "a refused promotion was recorded");

    let replica = rig.open().await;
    let end = rig.feed.log_to(&replica, first - 1, 50).await;
    let db = rig.staging().join("db");
    let whole = std::fs::read(&db).expect("read");
    for (what, damage) in [
        ("a fence", vec![(18, 3u8)]),
        ("another page size", vec![(16, 2), (17, 0)]),
        ("a header that is none", vec![(3, 0)]),
        ("a schema page that is none", vec![(100, 77)]),
    ] {
        let mut bytes = whole.clone();
        damage.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        std::fs::write(&db, bytes).expect("written");
        assert!(is_corrupt(replica.prepare_marker(&end).await), "{what} was taken for a database");
    }
    std::fs::write(&db, &whole[..whole.len() - 4096]).expect("written");
    assert!(is_corrupt(replica.prepare_marker(&end).await), "a page is missing");
    std::fs::write(&db, [&whole[..], &[0; 4096]].concat()).expect("written");
    assert!(is_corrupt(replica.prepare_marker(&end).await), "a page too many");
    std::fs::write(&db, &whole).expect("written");
    replica.prepare_marker(&end).await.expect("prepared");
}

#[tokio::test]
async fn a_new_generation_compares_pages_and_forgets_the_log() {
    let rig = Rig::new().await;
    let (replica, _) = rig.prepared().await;
    assert!(matches!(replica.plan(&rig.feed.plan(0, false)).await, Err(Error::Misuse(_))), "an older plan");
    let mut changed = rig.feed.plan(1, false);
    changed.log_start = rig.feed.at(5);
    assert!(matches!(replica.plan(&changed).await, Err(Error::Misuse(_))), "a plan that changed");

    // The log is lost: the source goes on from its checkpointed file alone.
    rig.feed.write(5000, 5);
    let large = std::fs::metadata(rig.staging().join("db")).expect("there").len();
    let fresh = rig.dir.with_file_name("fresh.db");
    let db = rusqlite::Connection::open(rig.dir.with_file_name("west.db")).expect("open");
    db.execute("DELETE FROM t WHERE id >= 230", []).expect("shrunk");
    db.execute("VACUUM INTO ?1", [fresh.to_str().expect("utf-8")]).expect("copied");
    let file = std::fs::read(&fresh).expect("read");
    assert!((file.len() as u64) < large, "the test needs a file that is shorter now");
    let mut plan = rig.feed.plan(2, true);
    let mut header = crate::sqlite::wire::SeedHeader::decode(&plan.header).expect("decoded");
    header.file_bytes = file.len() as u64;
    header.part_bytes = 64 << 20;
    plan.header = header.encode();
    plan.log_start = rig.feed.at(7000);
    replica.plan(&plan).await.expect("planned");
    let held = replica.durable().await.expect("told");
    assert_eq!((held.held.generation, held.held.seeded, held.log, held.held.log), (2, false, None, None));
    assert_eq!(held.held.parts, vec![]);

    let digest = replica.digest(0, 0, file.len()).await.expect("digested");
    let digest = Digest::decode(&digest).expect("decoded");
    let mut sparse = Sparse::new(file.len() as u32, Some(file.len() as u64));
    let mut same = 0;
    for (index, page) in file.chunks(4096).enumerate() {
        if digest.matches(index, page) { same += 1 } else { sparse.push(index as u32, page) }
    }
    assert!(same > 0, "the test needs pages that are equal");
    replica.chunk(0, 0, sparse.finish(), file.len() as u64, true).await.expect("taken");
    replica.seed_done().await.expect("whole");
    replica.prepare_marker(&rig.feed.at(7000)).await.expect("prepared without any log");
    rig.dest.promote(&rig.primary()).await.expect("promoted");
    assert_eq!(std::fs::read(rig.target()).expect("read"), file);
    assert!(replica.digest(0, 0, 1).await.is_err());
}
