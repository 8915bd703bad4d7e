//! Every finding of the preflight, and what a listing says.

use super::{app::App, rig::Rig};
use crate::{
    source::SourceEngine,
    sqlite::{
        tombstone::{self, Note},
        wire::{Journal, Requirements},
    },
};
use handover::{DatabaseName, Kind, OperationId, Severity};
use std::os::unix::fs::FileExt;

const WAL: &str = "PRAGMA journal_mode=wal";

async fn codes(rig: &Rig, name: &str) -> Vec<String> {
    let name = DatabaseName::parse(name).expect("a name");
    let before = rig.files();
    let facts = rig.source.preflight(&name, Kind::Move, None).await.expect("examined");
    assert_eq!(rig.files(), before, "a preflight changes nothing");
    for finding in &facts.findings {
        assert!(!finding.message.is_empty() && !finding.remedy.is_empty());
    }
    facts.findings.into_iter().map(|f| f.code).collect()
}

fn poke(rig: &Rig, at: u64, bytes: &[u8]) {
    std::fs::OpenOptions::new().write(true).open(rig.path()).expect("open").write_all_at(bytes, at).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_database_has_none() {
    let rig = Rig::new(WAL).await;
    let was = std::fs::read(rig.path()).expect("read");
    let facts = rig.source.preflight(&rig.name, Kind::Move, None).await.expect("examined");
    let errors: Vec<_> = facts.findings.iter().filter(|f| f.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(facts.seed_bytes, was.len() as u64);
    let requirements = Requirements::decode(&facts.requirements).expect("decoded");
    assert_eq!((requirements.page_size, requirements.journal), (4096, Journal::Wal));
    assert!(std::fs::read(rig.path()).expect("read") == was);
    let again = rig.source.preflight(&rig.name, Kind::Move, None).await.expect("examined");
    assert_eq!(again.incarnation, facts.incarnation);
    let listed = rig.source.databases().await.expect("listed");
    assert_eq!((listed.len(), listed[0].name.as_str(), listed[0].state.as_str()), (1, "shop.db", "online"));
    assert!(listed[0].findings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_none() {
    let rig = Rig::new(WAL).await;
    assert_eq!(codes(&rig, "nothing.db").await, ["DATABASE_NOT_FOUND"]);
    std::fs::create_dir(rig.dir.path().join("folder.db")).expect("made");
    std::os::unix::fs::symlink(rig.path(), rig.dir.path().join("link.db")).expect("linked");
    std::fs::write(rig.dir.path().join("secret.db"), [7; 8192]).expect("written");
    std::fs::write(rig.dir.path().join("short.db"), b"SQLite format 3\0").expect("written");
    std::fs::write(rig.dir.path().join("empty.db"), b"").expect("written");
    std::fs::write(rig.dir.path().join("notes.txt"), b"no database").expect("written");
    assert_eq!(codes(&rig, "folder.db").await, ["DATABASE_NOT_FOUND"]);
    assert_eq!(codes(&rig, "link.db").await, ["DATABASE_NOT_FOUND"]);
    assert_eq!(codes(&rig, "secret.db").await, ["ENCRYPTED_OR_NOT_SQLITE"]);
    assert_eq!(codes(&rig, "short.db").await, ["CORRUPT"]);
    assert_eq!(codes(&rig, "empty.db").await, ["EMPTY"]);
    let listed = rig.source.databases().await.expect("listed");
    let names: Vec<_> = listed.iter().map(|d| (d.name.as_str(), d.state.as_str())).collect();
    let unusable = |name| (name, "unusable");
    assert_eq!(names, [unusable("empty.db"), unusable("secret.db"), ("shop.db", "online"), unusable("short.db")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_not_understood() {
    let rig = Rig::new(WAL).await;
    poke(&rig, 18, &[3]);
    assert_eq!(codes(&rig, "shop.db").await, ["UNSUPPORTED_HEADER"]);
    poke(&rig, 18, &[2, 4]);
    assert_eq!(codes(&rig, "shop.db").await, ["UNSUPPORTED_HEADER"]);
    poke(&rig, 18, &[2, 2]);
    assert!(codes(&rig, "shop.db").await.is_empty());
    poke(&rig, 16, &[0x12, 0x34]);
    assert_eq!(codes(&rig, "shop.db").await, ["CORRUPT"]);
    poke(&rig, 16, &[0x10, 0x00]);
    let file = std::fs::OpenOptions::new().write(true).open(rig.path()).expect("open");
    let len = file.metadata().expect("length").len();
    file.set_len(len - 4096).expect("cut");
    assert_eq!(codes(&rig, "shop.db").await, ["CORRUPT"]);
    file.set_len(len - 100).expect("cut");
    assert_eq!(codes(&rig, "shop.db").await, ["CORRUPT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_in_the_wal_alone_is_seen() {
    let rig = Rig::new(WAL).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    stream.plan(&Default::default()).await.expect("planned");
    let (role, _) = rig.fence(&role, 1).await.expect("fenced");
    assert_eq!(std::fs::read(rig.path()).expect("read")[18], 2);
    assert_eq!(codes(&rig, "shop.db").await, ["OPERATION_EXISTS", "UNSUPPORTED_HEADER"]);
    let own = rig.source.preflight(&rig.name, Kind::Move, Some(&role.operation)).await.expect("examined");
    assert!(own.findings.is_empty(), "{:?}", own.findings);
    let other = OperationId::parse("op-2").expect("an id");
    let other = rig.source.preflight(&rig.name, Kind::Move, Some(&other)).await.expect("examined");
    assert_eq!(other.findings.len(), 2);
    assert_eq!(rig.source.databases().await.expect("listed")[0].state, "fenced");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_to_be_known() {
    let rig = Rig::new("PRAGMA journal_mode=delete").await;
    assert_eq!(codes(&rig, "shop.db").await, ["ROLLBACK_JOURNAL"]);
    rusqlite::Connection::open(rig.dir.path().join("other"))
        .expect("open")
        .execute_batch("CREATE TABLE t(a)")
        .expect("made");
    assert_eq!(codes(&rig, "shop.db").await, ["ROLLBACK_JOURNAL", "ATTACHED"]);
    let rig = Rig::with(WAL, |c| c.log_budget_bytes = 1 << 60).await;
    assert_eq!(codes(&rig, "shop.db").await, ["SPACE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_is_not_moved() {
    let rig = Rig::new(WAL).await;
    let note = Note { operation: "op-0".into(), moved_to: "east".into(), moved_at_ms: 1 };
    tombstone::make(&rig.path(), &note).expect("made");
    assert_eq!(codes(&rig, "shop.db").await, ["TOMBSTONE"]);
    let listed = rig.source.databases().await.expect("listed");
    assert_eq!((listed[0].state.as_str(), listed[0].findings[0].code.as_str()), ("tombstone", "TOMBSTONE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_in_exclusive_mode() {
    for setup in [WAL, "PRAGMA journal_mode=delete"] {
        let rig = Rig::new(setup).await;
        let app = App::start(&rig.path(), 1, "write sql:PRAGMA+locking_mode=exclusive");
        app.wait_acknowledged(1);
        let found = rig.source.preflight(&rig.name, Kind::Move, None).await.expect("examined").findings;
        assert!(found.iter().any(|f| f.code == "LOCKED_EXCLUSIVE"), "{found:?}");
    }
}
