//! Names, preflight, the listing and purge.

use super::*;
use crate::sqlite::{
    tombstone::{self, Note},
    wire::{Journal, Requirements, VERSION},
};
use handover::Severity;

fn requirements() -> Requirements {
    let sqlite_version = u32::try_from(rusqlite::version_number()).expect("positive");
    Requirements {
        format: VERSION,
        page_size: 4096,
        bytes: 1 << 20,
        sqlite_version,
        written_by: 3_040_000,
        journal: Journal::Wal,
        mode: 0o644,
    }
}

async fn codes(dest: &SqliteDest, name: &str, wanted: &Requirements, operation: Option<&str>) -> Vec<String> {
    let operation = operation.map(|o| OperationId::parse(o).expect("an id"));
    let name = DatabaseName::parse(name).expect("a name");
    let bytes = wanted.encode().expect("encoded");
    let findings = dest.preflight(&name, &bytes, operation.as_ref()).await.expect("judged");
    assert!(findings.iter().all(|f| !f.message.is_empty() && !f.remedy.is_empty()));
    findings.into_iter().map(|f| f.code).collect()
}

#[tokio::test]
async fn preflight_finds_everything_at_once_and_changes_nothing() {
    let rig = Rig::new().await;
    let fine = requirements();
    assert_eq!(codes(&rig.dest, "other.db", &fine, None).await, [""; 0]);
    assert_eq!(codes(&rig.dest, "shop.db", &fine, Some("op-1")).await, [""; 0], "its own reservation");
    assert_eq!(codes(&rig.dest, "shop.db", &fine, None).await, ["OPERATION_EXISTS"]);
    assert_eq!(codes(&rig.dest, "shop.db", &fine, Some("op-2")).await, ["OPERATION_EXISTS"]);

    std::fs::write(rig.dir.join("there.db"), b"x").expect("written");
    std::fs::write(rig.dir.join("half.db-journal"), b"x").expect("written");
    std::fs::create_dir(rig.dir.join("folder.db")).expect("made");
    std::os::unix::fs::symlink("nowhere", rig.dir.join("link.db")).expect("linked");
    for taken in ["there.db", "half.db", "folder.db", "link.db"] {
        assert_eq!(codes(&rig.dest, taken, &fine, None).await, ["NAME_TAKEN"], "{taken}");
    }
    let greedy = Requirements { bytes: 1 << 60, sqlite_version: 3_999_000, ..fine.clone() };
    assert_eq!(codes(&rig.dest, "there.db", &greedy, None).await, ["NAME_TAKEN", "NO_SPACE", "VERSION_OLDER"]);
    let newer = Requirements { written_by: 3_999_000, ..fine.clone() };
    assert_eq!(codes(&rig.dest, "other.db", &newer, None).await, ["WRITER_NEWER"]);
    for bad in ["..", ".hidden.db", "a.db-wal", "a.db-journal", "a.db-shm", &"x".repeat(250)] {
        assert_eq!(codes(&rig.dest, bad, &fine, None).await, ["INVALID_NAME"], "{bad}");
        let role = DestRole { database: DatabaseName::parse(bad).expect("a name"), ..role("op-9", Phase::Seeding) };
        assert!(rig.dest.prepare(&role).await.is_err(), "{bad} was prepared");
    }
    let name = DatabaseName::parse("other.db").expect("a name");
    for bad in [&b"not json"[..], b"{}"] {
        assert!(is_corrupt(rig.dest.preflight(&name, &Bytes::from_static(bad), None).await));
    }
    assert_eq!(rig.dest.preflight(&name, &Bytes::new(), None).await.expect("judged"), []);
    assert_eq!(rig.recorded().await, rig.role);
    assert!(!rig.dir.join("other.db").exists());

    let nowhere = engine(&rig.dir.join("nowhere"));
    nowhere.take_over().await.expect("taken");
    std::fs::remove_dir_all(rig.dir.join("nowhere")).expect("removed");
    assert_eq!(codes(&nowhere, "other.db", &fine, None).await, ["DIRECTORY_NOT_WRITABLE"]);
}

#[tokio::test]
async fn of_two_operations_one_gets_the_name() {
    let rig = Rig::new().await;
    rig.dest.prepare(&rig.role).await.expect("the same again");
    let other = role("op-2", Phase::Seeding);
    assert!(matches!(rig.dest.prepare(&other).await, Err(Error::NameTaken(_))));
    let discarded = DestRole { phase: Phase::Discarded, ..rig.role.clone() };
    rig.dest.put_role(&discarded).await.expect("recorded");
    rig.dest.prepare(&other).await.expect("the name is free again");
    assert_eq!(rig.dest.roles().await.expect("read"), [discarded, other]);
}

#[tokio::test]
async fn the_listing_tells_what_is_what_and_purge_takes_tombstones_only() {
    let rig = Rig::new().await;
    let (_replica, _) = rig.prepared().await;
    let path = |name: &str| rig.dir.join(name);
    std::fs::write(path("live.db"), rig.feed.file()).expect("written");
    let mut fenced = rig.feed.file();
    fenced[18] = 3;
    std::fs::write(path("fenced"), &fenced).expect("written");
    std::fs::write(path("broken.sqlite"), [1; 5000]).expect("written");
    std::fs::write(path("notes.txt"), b"no database").expect("written");
    std::fs::write(path("live.db-wal"), b"").expect("written");
    let note = Note { operation: "op-0".into(), moved_to: "north".into(), moved_at_ms: 1 };
    tombstone::make(&path("gone.db"), &note).expect("made");
    std::fs::write(path("gone.db-journal"), b"left").expect("written");

    let found = rig.dest.databases().await.expect("listed");
    let states: Vec<_> = found.iter().map(|d| (d.name.as_str(), d.state.as_str())).collect();
    let want = [
        ("broken.sqlite", "unreadable"),
        ("fenced", "fenced"),
        ("gone.db", "tombstone"),
        ("live.db", "online"),
        ("shop.db", "incoming"),
    ];
    assert_eq!(states, want);
    assert!(found[2].findings[0].message.contains("north"), "a tombstone tells where its database went");
    assert!(found.iter().flat_map(|d| &d.findings).all(|f| f.severity == Severity::Warning));
    assert!(found[4].size_bytes > 100_000);

    let purge = async |name: &str| rig.dest.purge(&DatabaseName::parse(name).expect("a name")).await;
    for kept in ["live.db", "fenced", "broken.sqlite", ".."] {
        assert!(matches!(purge(kept).await, Err(Error::Unsupported { .. })), "{kept}");
    }
    assert_eq!(std::fs::read(path("live.db")).expect("there"), rig.feed.file());
    purge("gone.db").await.expect("purged");
    assert!(!path("gone.db").exists() && !path("gone.db-journal").exists());
    assert!(matches!(purge("gone.db").await, Err(Error::NoDatabase(_))));
    assert!(matches!(purge("shop.db").await, Err(Error::NoDatabase(_))), "an incoming database is no tombstone");
}
