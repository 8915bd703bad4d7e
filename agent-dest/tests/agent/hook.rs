//! The `on_online` hook: run once, recorded, and never in anybody's way.

use crate::{client::*, fake::World};
use causeway_agent_dest::config::Settings;
use proto::v1::Hook;
use std::time::Duration;

async fn promoted(world: &World, line: &str, timeout: Duration) -> Agent {
    let settings = Settings { on_online: Some(line.to_owned()), hook_timeout: timeout, ..settings() };
    let mut agent = Agent::start_with(world, settings, None, None).await;
    agent.prepare(1).await.expect("prepare");
    let mut source = agent.source(hello()).await;
    source.welcome().await;
    source.seed().await;
    source.marker(1, 10).await;
    agent.promote(1, 0).await.expect("promoted");
    agent
}

async fn outcome(line: &str) -> Hook {
    let mut agent = promoted(&World::default(), line, Duration::from_secs(30)).await;
    agent.finish().await.expect("finished").on_online.expect("a hook")
}

#[tokio::test]
async fn it_runs_once_and_knows_what_came_online() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ran");
    let line = format!("echo $CAUSEWAY_OPERATION $CAUSEWAY_DATABASE $CAUSEWAY_INSTANCE | tee -a {}", file.display());
    let world = World::default();
    let mut agent = promoted(&world, &line, Duration::from_secs(30)).await;
    assert!(agent.status().await.on_online.is_none());
    let first = agent.finish().await.expect("finished").on_online.expect("a hook");
    assert!(first.ok && first.exit_code == 0);
    assert_eq!(first.output.trim(), format!("{OP} shop east"));
    assert_eq!(agent.finish().await.expect("again").on_online, Some(first.clone()));
    assert_eq!(agent.status().await.on_online, Some(first.clone()));
    // Another agent, without a hook, still tells.
    let mut agent = agent.restart().await;
    assert_eq!(agent.finish().await.expect("again").on_online, Some(first));
    assert_eq!(std::fs::read_to_string(&file).expect("it ran").lines().count(), 1);
}

#[tokio::test]
async fn two_finishes_at_once_wait_for_one_hook() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ran");
    let mut agent =
        promoted(&World::default(), &format!("echo x >> {}; sleep 0.3", file.display()), Duration::from_secs(30)).await;
    let mut other = agent.client.clone();
    let second =
        tokio::spawn(
            async move { other.finish(proto::v1::FinishRequest { operation: OP.to_owned(), version: 6 }).await },
        );
    let first = agent.finish().await.expect("finished");
    assert_eq!(second.await.expect("no panic").expect("finished").into_inner(), first);
    assert_eq!(std::fs::read_to_string(&file).expect("it ran"), "x\n");
}

#[tokio::test]
async fn a_failing_hook_fails_nothing_and_tells_its_end() {
    let failed = outcome("i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done; echo woe >&2; exit 3").await;
    assert!(!failed.ok);
    assert_eq!(failed.exit_code, 3);
    assert!(failed.output.len() <= 2048 && failed.output.len() > 1900);
    assert!(failed.output.contains("line 999") && failed.output.contains("woe"));
    assert_eq!(outcome("kill -9 $$").await.exit_code, -1);
    assert_eq!(outcome("/no/such/command").await.exit_code, 127);
}

#[tokio::test]
async fn what_it_leaves_in_the_background_does_not_hold_it_up() {
    let started = std::time::Instant::now();
    let left = outcome("sleep 60 & echo done").await;
    assert!(left.ok && left.output.contains("done"), "{left:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn one_that_takes_too_long_is_ended_with_its_children() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("late");
    let line = format!("(sleep 1; touch {}) & wait", file.display());
    let mut agent = promoted(&World::default(), &line, Duration::from_millis(200)).await;
    let ended = agent.finish().await.expect("finished").on_online.expect("a hook");
    assert!(!ended.ok && ended.exit_code == -1);
    assert!(ended.output.contains("longer than"), "{ended:?}");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!file.exists(), "its child went on");
}

#[tokio::test]
async fn one_that_the_agent_did_not_survive_is_not_run_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ran");
    let world = World::default();
    let mut agent = promoted(&world, &format!("echo x >> {}; sleep 5", file.display()), Duration::from_secs(30)).await;
    let mut client = agent.client.clone();
    let finishing =
        tokio::spawn(
            async move { client.finish(proto::v1::FinishRequest { operation: OP.to_owned(), version: 6 }).await },
        );
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(agent.status().await.on_online.is_none(), "it is not over");
    let mut agent = agent.restart().await;
    let told = agent.finish().await.expect("finished").on_online.expect("an outcome");
    assert!(!told.ok && told.output.contains("run it by hand"), "{told:?}");
    assert_eq!(std::fs::read_to_string(&file).expect("it ran"), "x\n");
    finishing.abort();
}
