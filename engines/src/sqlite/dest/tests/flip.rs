//! Promote, finish and discard, interrupted between any two steps.

use super::*;
use crate::sqlite::tombstone::{self, Note};

fn note() -> Note {
    Note { operation: "op-0".into(), moved_to: "north".into(), moved_at_ms: 1 }
}

/// Every state of the disk that a crash of `promote` can leave, made by hand.
#[derive(Clone, Copy, Debug)]
enum Crash {
    Recorded,
    Renamed,
    Linked,
    Opened,
}

#[tokio::test]
async fn promote_rolls_forward_from_every_step() {
    for over_tombstone in [false, true] {
        for crash in [Crash::Recorded, Crash::Renamed, Crash::Linked, Crash::Opened] {
            let mut rig = Rig::new().await;
            if over_tombstone {
                tombstone::make(&rig.target(), &note()).expect("made");
            }
            let (replica, _) = rig.prepared().await;
            let (staging, primary) = (rig.staging(), rig.primary());
            let db = staging.join("db");
            match crash {
                Crash::Recorded => rig.dest.put_role(&primary).await.expect("recorded"),
                Crash::Renamed => {
                    rig.dest.put_role(&primary).await.expect("recorded");
                    let aside = staging.join("aside");
                    if over_tombstone {
                        std::fs::rename(rig.target(), &aside).expect("renamed");
                    }
                    std::fs::rename(&db, rig.target()).expect("renamed");
                    if over_tombstone {
                        std::fs::rename(&aside, &db).expect("renamed");
                    }
                }
                Crash::Linked => {
                    rig.dest.put_role(&primary).await.expect("recorded");
                    if over_tombstone {
                        std::fs::remove_file(rig.target()).expect("removed");
                    }
                    std::fs::hard_link(&db, rig.target()).expect("linked");
                }
                Crash::Opened => {
                    rig.dest.promote(&primary).await.expect("promoted");
                    assert!(staging.join("opened").exists());
                }
            }
            drop(replica);
            rig.restart().await;
            rig.dest.promote(&primary).await.unwrap_or_else(|e| panic!("{crash:?}, {over_tombstone}: {e}"));
            rig.assert_serves();
            // Clients write on; whatever is repeated later must leave their files alone.
            let client = rusqlite::Connection::open(rig.target()).expect("open");
            client.execute("INSERT INTO t VALUES(-5, 'a client')", []).expect("written");
            rig.restart().await;
            rig.dest.promote(&primary).await.expect("promoted again");
            rig.dest.finish(&primary).await.expect("finished");
            rig.dest.promote(&primary).await.expect("promoted after the finish");
            rig.dest.finish(&primary).await.expect("finished again");
            assert!(matches!(rig.dest.discard(&primary).await, Err(Error::Misuse(_))), "a primary was discarded");
            assert_eq!(rig.left(), Vec::<PathBuf>::new());
            client.execute("DELETE FROM t WHERE id = -5", []).expect("still written");
            drop(client);
            rig.assert_serves();
        }
    }
}

#[tokio::test]
async fn a_promotion_whose_database_is_gone_is_no_success() {
    let mut rig = Rig::new().await;
    let (replica, _) = rig.prepared().await;
    rig.dest.put_role(&rig.primary()).await.expect("recorded");
    drop(replica);
    std::fs::remove_file(rig.staging().join("db")).expect("removed");
    assert!(is_corrupt(rig.dest.promote(&rig.primary()).await));
    std::fs::remove_dir_all(rig.staging()).expect("removed");
    rig.restart().await;
    assert!(is_corrupt(rig.dest.promote(&rig.primary()).await));
}

#[tokio::test]
async fn a_name_that_was_taken_meanwhile_stops_the_flip_before_the_record() {
    let rig = Rig::new().await;
    let (_replica, _) = rig.prepared().await;
    for taken in ["shop.db", "shop.db-wal", "shop.db-journal"] {
        let path = rig.dir.join(taken);
        std::fs::write(&path, b"somebody's").expect("written");
        assert!(matches!(rig.dest.promote(&rig.primary()).await, Err(Error::NameTaken(_))), "{taken}");
        assert_eq!(rig.recorded().await, rig.role, "recorded all the same");
        assert_eq!(std::fs::read(&path).expect("read"), b"somebody's");
        std::fs::remove_file(&path).expect("removed");
    }
    // Taken between record and rename: the user's file stays, and the flip goes on when it is gone.
    rig.dest.put_role(&rig.primary()).await.expect("recorded");
    std::fs::write(rig.target(), b"somebody's").expect("written");
    assert!(matches!(rig.dest.promote(&rig.primary()).await, Err(Error::NameTaken(_))));
    assert_eq!(std::fs::read(rig.target()).expect("read"), b"somebody's");
    std::fs::remove_file(rig.target()).expect("removed");
    assert!(matches!(rig.dest.promote(&rig.role).await, Err(Error::Misuse(_))), "promoted to what it was");
    rig.dest.promote(&rig.primary()).await.expect("promoted");
    rig.assert_serves();
}

#[tokio::test]
async fn what_stands_beside_a_tombstone_does_not_get_into_the_new_database() {
    let rig = Rig::new().await;
    tombstone::make(&rig.target(), &note()).expect("made");
    // The WAL of the database that was here, which a drop that was interrupted has left.
    let wal = rig.dir.with_file_name("west.db-wal");
    let (_replica, _) = rig.prepared().await;
    std::fs::copy(wal, rig.dir.join("shop.db-wal")).expect("copied");
    rig.dest.promote(&rig.primary()).await.expect("promoted");
    assert!(!rig.dir.join("shop.db-wal").exists());
    rig.assert_serves();
}

#[tokio::test]
async fn discard_leaves_nothing_wherever_it_was_interrupted() {
    for step in 0..4 {
        let mut rig = Rig::new().await;
        let (replica, _) = rig.prepared().await;
        let discarding = DestRole { phase: Phase::Discarding, ..rig.role.clone() };
        rig.dest.put_role(&discarding).await.expect("recorded");
        let file = ["db", "progress", "spool"].get(step).map(|name| rig.staging().join(name));
        if let Some(file) = file {
            std::fs::remove_file(file).expect("removed");
        }
        if step < 3 {
            drop(replica);
            rig.restart().await;
        } else {
            // With the stream still open.
            rig.dest.discard(&discarding).await.expect("discarded");
            assert!(matches!(replica.sync().await, Err(Error::Misuse(_))));
        }
        rig.dest.discard(&discarding).await.expect("discarded");
        rig.dest.discard(&discarding).await.expect("discarded again");
        assert!(rig.dest.open(&discarding).await.is_err(), "a discarded replica was opened");
        assert_eq!(rig.left(), Vec::<PathBuf>::new());
        rig.dest.remove_role(&rig.role.operation, CommandVersion(9)).await.expect("forgotten");
        assert_eq!(rig.dest.watermark().await.expect("read"), CommandVersion(9));
        let files: Vec<_> = std::fs::read_dir(&rig.dir).expect("listed").flatten().map(|e| e.file_name()).collect();
        assert_eq!(files, [".causeway"], "a discarded database left files");
    }
}
