//! Each planted fault makes the check fail with a problem of the right name.

mod support;

use causeway_ledger::{CheckOptions, FillOptions, History, Report, WriteOptions, fill};
use rusqlite::Connection;
use support::{Bench, assert_ok};

/// A database with 60 transactions or more of each of two writers, closed.
fn written() -> Bench {
    let bench = Bench::new();
    bench.run(&WriteOptions { writers: 2, ..bench.options() }, 130);
    assert_ok(&bench.check());
    bench
}

fn fails_with(report: &Report, kind: &str) {
    assert!(!report.is_ok() && report.has(kind), "{report}");
    assert!(report.problems.iter().any(|p| p.starts_with(&format!("{kind}: "))), "{report}");
}

#[test]
fn a_missing_row_is_lost() {
    let bench = written();
    bench.tamper("DELETE FROM ledger WHERE writer = 1 AND seq = 20");
    let report = bench.check();
    fails_with(&report, "lost");
    assert_eq!((report.lost, report.acknowledged - report.found), (1, 1));
    assert!(report.problems.iter().any(|p| p.contains("first 20 last 20")), "{report}");
}

#[test]
fn a_wholly_missing_newest_transaction_is_lost() {
    let bench = written();
    // Everything of the newest transaction of all is undone: only the history can tell.
    undo_newest(&bench, 1);
    let report = bench.check();
    fails_with(&report, "lost");
    assert_eq!((report.lost, report.problems.len()), (1, 1), "{report}");
}

#[test]
fn a_row_of_nobody_is_invented() {
    let bench = written();
    bench.tamper(
        "INSERT INTO ledger SELECT writer, seq + 1, src, dst, amount, note FROM ledger WHERE writer = 0
         ORDER BY seq DESC LIMIT 1",
    );
    let report = bench.check();
    fails_with(&report, "invented");
    assert_eq!(report.invented, 1);
}

#[test]
fn a_row_of_an_unknown_writer_is_invented() {
    let bench = written();
    bench.tamper("INSERT INTO ledger VALUES(77, 1, 0, 1, 1, x'00'), (-1, 0, 0, 1, 1, x'00')");
    assert_eq!(bench.check().invented, 2);
}

#[test]
fn a_swapped_list_is_reordered() {
    let bench = written();
    let key = "(SELECT key FROM list GROUP BY key HAVING count(*) > 1 LIMIT 1)";
    bench.tamper(&format!(
        "UPDATE list SET position = -position WHERE key = {key} AND position < 3;
         UPDATE list SET position = 3 + position WHERE position < 0"
    ));
    let report = bench.check();
    fails_with(&report, "reordered");
    assert_eq!(report.problem_counts.len(), 1, "{report}");
}

#[test]
fn another_chain_is_reordered() {
    let bench = written();
    bench.tamper("UPDATE chain SET digest = randomblob(16) WHERE writer = 0");
    fails_with(&bench.check(), "reordered");
}

#[test]
fn half_a_transfer_is_half_applied() {
    let bench = written();
    bench.tamper("UPDATE account SET balance = balance - 5 WHERE id = (SELECT dst FROM ledger LIMIT 1)");
    let report = bench.check();
    fails_with(&report, "half-applied");
    assert!(report.problems.iter().any(|p| p.contains("sum to -5")), "{report}");
}

#[test]
fn a_row_without_its_list_item_is_half_applied() {
    let bench = written();
    bench.tamper("DELETE FROM list WHERE position = (SELECT max(position) FROM list)");
    fails_with(&bench.check(), "half-applied");
}

#[test]
fn a_chain_behind_its_ledger_is_half_applied() {
    let bench = written();
    bench.tamper("UPDATE chain SET seq = seq - 1 WHERE writer = 0");
    fails_with(&bench.check(), "half-applied");
}

#[test]
fn other_bytes_are_wrong_content() {
    let bench = written();
    bench.tamper("UPDATE ledger SET note = zeroblob(length(note)) WHERE writer = 0 AND seq = 3");
    fails_with(&bench.check(), "wrong-content");
}

#[test]
fn a_loss_that_the_writer_would_write_again_is_noticed() {
    let bench = written();
    undo_newest(&bench, 3);
    let summary = bench.spawn(&WriteOptions { writers: 2, transactions: 30, ..bench.options() });
    let summary = summary.wait_at_most(support::PATIENCE).expect("the writer ends");
    assert!(summary.losses_noticed > 0, "{summary:?}");
    fails_with(&bench.check(), "lost");
}

#[test]
fn two_places_at_once_are_two_primaries() {
    let bench = written();
    let line = |writer: u32, at: u64, rest: &str| format!("M {writer} 0 {at} {rest}\n");
    let mut text = std::fs::read_to_string(bench.path("app.hist")).expect("the history");
    let last = History::read(&[bench.path("app.hist")]).expect("the history").reigns[0][0].clone();
    // Writer 0 ends at another place, before writer 1 ends at the old one.
    text.insert_str(text.rfind("C 0 ").expect("a commit"), &line(0, last.last_us, "elsewhere"));
    std::fs::write(bench.path("app.hist"), text + &line(1, last.last_us, "elsewhere")).expect("a history");
    // Only if writer 1 was acknowledged after that is it wrong; make sure of it.
    let late = format!("A 1 9999 {0} 1\nC 1 9999 {0}\n", last.last_us + 1000);
    let text = std::fs::read_to_string(bench.path("app.hist")).expect("the history");
    std::fs::write(bench.path("app.hist"), text.replace("M 1 0", &format!("{late}M 1 0"))).expect("a history");
    let report = bench.check();
    assert!(report.has("two-primaries"), "{report}");
}

#[test]
fn a_broken_page_is_found_whatever_it_holds() {
    let bench = written();
    let mut bytes = std::fs::read(bench.path("app.db")).expect("the file");
    let pages = bytes.len() / 4096;
    bytes[4096..pages * 4096 / 2].fill(0x55);
    std::fs::write(bench.path("app.db"), bytes).expect("the file");
    let report = bench.check();
    assert!(report.has("unreadable") || report.has("corrupt"), "{report}");
    std::fs::write(bench.path("app.db"), b"no database").expect("the file");
    assert!(causeway_ledger::check(&bench.check_options()).is_err());
    std::fs::remove_file(bench.path("app.db")).expect("no file");
    assert!(causeway_ledger::check(&bench.check_options()).is_err());
    assert_eq!(bench.files(), ["app.hist"]);
}

#[test]
fn other_tables_and_pages_differ() {
    let bench = written();
    std::fs::copy(bench.path("app.db"), bench.path("copy.db")).expect("a copy");
    let same = || bench.check_options().same_as(bench.path("copy.db")).pages_of(bench.path("copy.db"));
    let report = bench.check_with(same());
    assert_ok(&report);
    assert!(report.content_hash.is_some() && report.content_hash == report.other_content_hash);
    assert!(report.pages_compared.is_some_and(|pages| pages > 10), "{report}");
    bench.tamper("INSERT INTO scratch(body) VALUES('x')");
    let report = bench.check_with(same());
    fails_with(&report, "differs");
    assert!(report.problems.iter().any(|p| p.contains("table scratch: 1 rows here, 0 there")), "{report}");
    assert_ok(&bench.check());
}

/// A copy, made while a writer goes on, of which some newest transactions are then undone.
#[test]
fn a_copy_ends_at_one_moment() {
    let bench = written();
    let all = bench.check();
    undo_newest(&bench, 5);
    let report = bench.check_with(bench.check_options().prefix());
    assert_ok(&report);
    assert_eq!((report.behind, report.lost, report.found), (5, 0, all.found - 5));
    fails_with(&bench.check(), "lost");
    let far = u64::MAX;
    fails_with(&bench.check_with(bench.check_options().acknowledged_before(far)), "lost");
    assert_ok(&bench.check_with(bench.check_options().acknowledged_before(1)));

    // One writer's newest alone is missing, although the other's newer ones are there: no moment of the source.
    let bench = written();
    undo_newest_of(&bench, "writer = 0", 5);
    let report = bench.check_with(bench.check_options().prefix());
    fails_with(&report, "lost");
}

#[test]
fn a_filled_database_has_the_size_and_the_tables() {
    let bench = Bench::new();
    let filled = fill(&FillOptions { page_size: 8192, ..FillOptions::new(bench.path("app.db"), 20) }).expect("a fill");
    assert!((20_000_000..20_800_000).contains(&filled.bytes) && filled.rows > 1000, "{filled:?}");
    assert!(fill(&FillOptions::new(bench.path("app.db"), 1)).is_err());
    bench.run(&WriteOptions { no_setup: true, ..bench.options() }, 20);
    assert_ok(&bench.check());
    let again = FillOptions { page_size: 8192, ..FillOptions::new(bench.path("again.db"), 20) };
    fill(&again).expect("a second fill");
    let other = CheckOptions::new(bench.path("app.db"), bench.path("app.hist")).same_as(bench.path("again.db"));
    let report = bench.check_with(other);
    assert!(!report.problems.iter().any(|p| p.contains("filler")), "same seed, same content: {report}");
}

/// Undoes the newest transactions of all wholly, as if the database had ended before them.
fn undo_newest(bench: &Bench, count: usize) {
    undo_newest_of(bench, "true", count);
}

fn undo_newest_of(bench: &Bench, which: &str, count: usize) {
    let history = History::read(&[bench.path("app.hist")]).expect("the history");
    let conn = Connection::open(bench.path("app.db")).expect("the database opens");
    let mut newest: Vec<(u64, u32, u64)> = Vec::new();
    for (writer, known) in history.writers.iter().filter(|(w, _)| which == "true" || **w == 0) {
        newest.extend((1..).zip(known).map(|(seq, k)| (k.attempted_us, *writer, seq)));
    }
    newest.sort_unstable();
    for (_, writer, seq) in newest.into_iter().rev().take(count) {
        let undo = format!(
            "UPDATE account SET balance = balance + l.amount FROM ledger l
                WHERE l.writer = {writer} AND l.seq = {seq} AND id = l.src;
             UPDATE account SET balance = balance - l.amount FROM ledger l
                WHERE l.writer = {writer} AND l.seq = {seq} AND id = l.dst;
             DELETE FROM list WHERE writer = {writer} AND seq = {seq};
             DELETE FROM ledger WHERE writer = {writer} AND seq = {seq};"
        );
        conn.execute_batch(&undo).expect("an undo");
        let chain = causeway_ledger::transaction::Chain::default();
        let chain = (1..seq)
            .fold(chain, |chain, seq| chain.after(&causeway_ledger::transaction::Transaction::of(writer, seq, 200)));
        conn.execute(
            "UPDATE chain SET seq = ?, digest = ? WHERE writer = ?",
            rusqlite::params![chain.seq as i64, chain.digest, writer],
        )
        .expect("a chain");
    }
}
