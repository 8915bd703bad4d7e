//! Moves and copies under load, with nothing going wrong.

use causeway_tests::{Cluster, content};

#[test]
fn a_move_carries_a_database_its_writers_and_every_transaction() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 10);
    let before = cluster.west().content("shop.db");
    let mut application = cluster.application("shop.db").start();

    let op = cluster.start_move("shop.db");
    op.until_ready();
    application.until_more_commits(200);
    op.complete();
    let moved = op.until_succeeded();
    application.until_commits_at(&cluster.east().database("shop.db"), 200);
    let summary = application.finish();

    assert_eq!(moved.attempt, 1);
    assert!(moved.freeze_ms > 0, "a move measures its freeze: {moved:?}");
    let freeze_ms = summary.freeze_ms.expect("the application changed its place");
    assert!(freeze_ms > 0.0 && freeze_ms < 5000.0, "freeze of {freeze_ms} ms");
    println!("freeze {freeze_ms:.1} ms as the writers saw it, {} as the coordinator did", moved.freeze_ms);

    let history = cluster.dir().join("shop.db.history");
    let report = cluster.assert_sound(&cluster.east().database("shop.db"), &history);
    assert_eq!(report.acknowledged, summary.committed);
    let filler = |content: &[ledger::driver::TableHash]| content.iter().find(|t| t.table.contains("fill")).cloned();
    assert_eq!(filler(&before), filler(&cluster.east().content("shop.db")));
    assert!(cluster.west().is_tombstone("shop.db"), "{:?}", cluster.west().traces());
    assert!(!cluster.west().is_writable("shop.db"));
}
