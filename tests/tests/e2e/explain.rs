//! `causeway operation explain` with real processes: what it says is true, and what it offers is taken.

use causeway_tests::{
    Cluster, DEST, SOURCE, State, content,
    operator::{done, explained},
};

#[track_caller]
fn says(told: &str, words: &[&str]) {
    for words in words {
        assert!(told.contains(words), "{words:?} is not in\n{told}");
    }
}

#[test]
fn a_source_that_is_fenced_while_the_destination_is_away() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 5);
    let mut application = cluster.application("shop.db").start();
    let op = cluster.start_move("shop.db");
    op.until_ready();
    let ready = explained(&cluster, &op);
    says(
        &ready,
        &[
            "Ready for completion since 20",
            "Clients may write at west.",
            "causeway move complete",
            "causeway move cancel",
        ],
    );
    assert!(!ready.contains("override"), "{ready}");

    cluster.stop(DEST);
    op.complete();
    application.until_fenced();
    cluster.kill(DEST);
    op.cancel();
    op.until_it("closing the attempt", |op| op.step.contains("closing attempt") && !op.waiting_for.is_empty());
    let waiting = explained(&cluster, &op);
    says(
        &waiting,
        &[
            "Nobody: west is closed, and east is not open.",
            "source agent of west: it is fenced",
            "destination agent of east: it does not answer",
            "It waits for destination agent east",
            "(since 20",
            "Start the destination agent of east again",
            "causeway operation force-unfence",
            "(override, asks twice)",
        ],
    );
    assert!(!waiting.contains("forget --side source"), "the source answers: {waiting}");
    // What it offers is taken.
    done(&cluster, &op, &["forget", "--side", "dest"]);
    application.until_more_commits(100);
    op.until_it("discarding", |op| op.state() == State::Cancelling && !op.waiting_for.is_empty());
    let cleaning = explained(&cluster, &op);
    says(&cleaning, &["It is being ended without a flip", "Clients may write at west.", "forget --side dest"]);
    done(&cluster, &op, &["forget", "--side", "dest"]);
    op.until_it("only the record is left", |op| op.step.contains("records"));
    done(&cluster, &op, &["forget", "--side", "dest"]);
    op.until(State::Cancelled);
    says(&explained(&cluster, &op), &["It was cancelled", "a side that was forgotten may still have something of it"]);
    application.finish();
}

#[test]
fn a_flip_whose_source_is_away() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 5);
    let op = cluster.start_move("shop.db");
    op.until_ready();
    cluster.kill(SOURCE);
    done(&cluster, &op, &["force-promote"]);
    op.until_it("waiting for the source", |op| !op.waiting_for.is_empty());
    let half = explained(&cluster, &op);
    says(
        &half,
        &[
            "The flip has happened: east is primary and serves.",
            "west, which is closed, has to drop its shop.db",
            "Clients write at east; west is closed.",
            "Start the source agent of west again",
            "forget --side source",
        ],
    );
    assert!(!half.contains("force-unfence") && !half.contains("move cancel"), "{half}");
    done(&cluster, &op, &["forget", "--side", "source"]);
    op.until_succeeded();
    says(&explained(&cluster, &op), &["shop.db has moved to east", "Succeeded since 20"]);
}
