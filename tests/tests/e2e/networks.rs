//! Two peered networks: two network namespaces joined by a veth pair.

use crate::journeys::{assert_frozen_briefly, assert_moved};
use causeway_tests::{
    Cluster, Kind, State, content,
    network::{self, Networks},
    operation::request,
    v1::{Severity, StartOperationRequest},
};
use std::time::Duration;

#[test]
fn a_move_crosses_from_one_network_to_the_other() {
    let networks = Networks::joined();
    let cluster = across(&networks, network::EAST);
    content::filled(&cluster.west().database("shop.db"), 20);
    let mut application = cluster.application("shop.db").start();
    let op = cluster.start_move("shop.db");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    application.until_commits_at(&cluster.east().database("shop.db"), 100);
    let summary = application.finish();
    assert_frozen_briefly(&summary);
    assert_moved(&cluster, "shop.db", &summary);
}

#[test]
fn a_link_that_goes_down_while_catching_up_is_waited_for() {
    let networks = Networks::joined();
    let cluster = across(&networks, network::EAST);
    content::filled(&cluster.west().database("shop.db"), 20);
    let mut application = cluster.application("shop.db").start();
    let op = cluster.start_move("shop.db");
    op.until_it("past the seed", |op| matches!(op.state(), State::CatchingUp | State::ReadyForCompletion));
    let before = op.now().progress.unwrap_or_default();
    networks.cut();
    application.until_more_commits(1500);
    networks.mend();
    let resumed = op.until_it("the log flows again", |op| {
        op.state() == State::ReadyForCompletion
            && op.progress.as_ref().is_some_and(|p| p.transactions_applied > before.transactions_applied + 1000)
    });
    let progress = resumed.progress.unwrap_or_default();
    assert_eq!(progress.generation, before.generation, "the seed did not begin again");
    println!("reconnects {}, seed bytes sent {}", progress.reconnects, progress.seed_bytes_sent);
    op.complete_within(Duration::from_secs(20));
    op.until_succeeded();
    application.until_commits_at(&cluster.east().database("shop.db"), 100);
    assert_moved(&cluster, "shop.db", &application.finish());
}

#[test]
fn without_a_route_the_preflight_says_so() {
    let networks = Networks::joined();
    // Source agents are told an address that nobody in west's network can reach; the coordinator reaches everybody.
    let cluster = across(&networks, "10.99.7.7");
    content::chinook(&cluster.west().database("a.db"));
    let validate = StartOperationRequest { validate_only: true, ..request(Kind::Move, &["a.db"]) };
    let answer = cluster.try_start(validate).expect("validate");
    let findings: Vec<_> = answer.findings.into_iter().flat_map(|of| of.findings).collect();
    let path = findings.iter().find(|finding| finding.code == "NO_NETWORK_PATH");
    let path = path.unwrap_or_else(|| panic!("no word of the network in {findings:?}"));
    assert_eq!(path.severity(), Severity::Error);
    assert!(path.message.contains("10.99.7.7"), "{path:?}");
}

/// West and the coordinator in one network, east in the other. The tests' own clients enter west's network.
fn across(networks: &Networks, transfer_host: &str) -> Cluster {
    let mut builder = Cluster::builder()
        .site("coordinator", networks.site("west"))
        .site("west", networks.site("west"))
        .site("east", networks.site("east"));
    if transfer_host != network::EAST {
        builder = builder.transfer_host(transfer_host);
    }
    networks.enter("west");
    builder.start()
}
