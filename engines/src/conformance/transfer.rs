//! Seed and log: nothing lost, nothing twice, resumed where it was.

use super::rig::Rig;
use crate::Error;
use handover::Kind;

/// Rows written before, during and after the seed are all there.
pub async fn seeds_while_clients_write(rig: &mut Rig) {
    rig.begin(Kind::Move).await;
    let mut pipe = rig.connect().await;
    assert!(rig.harness.write("during", Some("1")).await);
    assert!(rig.harness.write("k7", None).await);
    pipe.seed().await;
    assert!(rig.harness.write("after", Some("2")).await);
    assert!(rig.harness.write("k8", Some("new")).await);
    pipe.catch_up().await;
    rig.flip_and_compare(&pipe, 1).await;
}

/// Every call made twice has the effect of one.
pub async fn repeats_change_nothing(rig: &mut Rig) {
    rig.begin(Kind::Move).await;
    let (role, dest_role) = (rig.role(), rig.dest_role());
    rig.source.begin(&role).await.expect("begin again");
    rig.dest.prepare(&dest_role).await.expect("prepare again");
    let mut pipe = rig.connect().await;
    pipe.replica.plan(&pipe.plan).await.expect("the same plan again");
    let part = pipe.plan.parts[0].part;
    pipe.send_chunk(part, 0).await.expect("send a chunk");
    pipe.send_chunk(part, 0).await.expect("send it again");
    pipe.seed().await;
    pipe.replica.seed_done().await.expect("the seed is whole, again");
    assert!(rig.harness.write("x", Some("1")).await);
    let at = pipe.at().await;
    let batch = pipe.stream.log(&at, 1 << 20, None).await.expect("read log");
    pipe.replica.log(batch.clone()).await.expect("take log");
    pipe.replica.log(batch).await.expect("take it again");
    pipe.catch_up().await;
    rig.flip_and_compare(&pipe, 1).await;
}

/// A source agent that is killed goes on, or has the seed verified; either way nothing is lost.
pub async fn resumes_after_a_crash_of_the_source(rig: &mut Rig) {
    rig.begin(Kind::Move).await;
    let mut pipe = rig.connect().await;
    let part = pipe.plan.parts[0].part;
    pipe.send_chunk(part, 0).await.expect("send a chunk");
    pipe.replica.sync().await.expect("sync");
    drop(pipe);
    rig.restart_source().await;
    assert!(rig.harness.write("between", Some("1")).await);
    let mut pipe = rig.connect().await;
    pipe.seed().await;
    pipe.catch_up().await;
    drop(pipe);
    rig.restart_source().await;
    assert!(rig.harness.write("between again", Some("2")).await);
    let mut pipe = rig.connect().await;
    pipe.seed().await;
    pipe.catch_up().await;
    rig.flip_and_compare(&pipe, 1).await;
}

/// A destination agent that is killed has what was durable, and the rest is sent again.
pub async fn resumes_after_a_crash_of_the_destination(rig: &mut Rig) {
    rig.begin(Kind::Move).await;
    let mut pipe = rig.connect().await;
    let part = pipe.plan.parts[0].part;
    pipe.send_chunk(part, 0).await.expect("send a chunk");
    pipe.replica.sync().await.expect("sync");
    drop(pipe);
    rig.restart_dest().await;
    let mut pipe = rig.connect().await;
    assert_eq!(pipe.plan.generation, 1, "nothing begins anew because the destination restarts");
    let held = pipe.replica.durable().await.expect("say what is held").held;
    let first = held.parts.iter().find(|h| h.part == part).expect("the part is known");
    assert!(first.durable > 0 || first.done, "what was synced need not be sent again");
    pipe.seed().await;
    assert!(rig.harness.write("logged", Some("1")).await);
    pipe.catch_up().await;
    let durable = pipe.replica.sync().await.expect("sync").log.expect("log is durable");
    assert!(rig.harness.write("not synced", Some("2")).await);
    pipe.catch_up().await;
    drop(pipe);
    rig.restart_dest().await;
    let mut pipe = rig.connect().await;
    let (resumed, due) = (pipe.stream.backlog(&pipe.plan.log_resume).await, pipe.stream.backlog(&durable).await);
    let (resumed, due) = (resumed.expect("know the backlog").bytes, due.expect("know the backlog").bytes);
    // A server that outlives its agent may hold more than was synced.
    assert!(resumed <= due, "the log goes on from what was durable, or later: {resumed} of {due} bytes");
    pipe.seed().await;
    pipe.catch_up().await;
    rig.flip_and_compare(&pipe, 1).await;
}

/// When the log cannot be continued, the seed is verified by digests, and only differences travel.
pub async fn verifies_after_the_log_was_lost(rig: &mut Rig) {
    let pipe = rig.replicate(Kind::Move).await;
    let first = pipe.sent;
    pipe.replica.sync().await.expect("sync");
    pipe.stream.close().await;
    drop(pipe);
    rig.restart_source().await;
    assert!(rig.harness.write("lost", Some("1")).await);
    assert!(rig.harness.write("k9", None).await);
    let lost = rig.harness.lose_log().await;
    let mut pipe = rig.connect().await;
    assert!(
        !lost || pipe.plan.verify && pipe.plan.generation > 1,
        "the plan must be a new one: {:?}",
        pipe.plan.generation
    );
    pipe.seed().await;
    assert!(pipe.sent < first, "{} bytes were sent again of {first}", pipe.sent);
    pipe.catch_up().await;
    rig.flip_and_compare(&pipe, 1).await;
}

/// A destination never takes what leaves a hole.
pub async fn refuses_holes(rig: &mut Rig) {
    rig.begin(Kind::Move).await;
    let mut pipe = rig.connect().await;
    assert!(matches!(pipe.replica.seed_done().await, Err(Error::Gap { .. })), "a seed with parts missing");
    pipe.seed().await;
    pipe.catch_up().await;
    assert!(rig.harness.write("one", Some("1")).await);
    let at = pipe.at().await;
    let first = pipe.stream.log(&at, 1, None).await.expect("read log");
    assert!(rig.harness.write("two", Some("2")).await);
    let second = pipe.stream.log(&first.to, 1, None).await.expect("read log");
    let marker = second.to.clone();
    assert!(matches!(pipe.replica.log(second).await, Err(Error::Gap { .. })), "a record is missing");
    assert!(
        matches!(pipe.replica.prepare_marker(&marker).await, Err(Error::Gap { .. })),
        "a marker beyond what is held"
    );
}

/// At the cap the log is no longer given, so that the operation ends before the source's disk is full.
pub async fn respects_the_budget(rig: &mut Rig) {
    rig.begin(Kind::Move).await;
    let mut role = rig.role();
    role.log_budget_bytes = 1;
    rig.source.put_role(&role).await.expect("record the budget");
    rig.source_role = Some(role);
    let mut pipe = rig.connect().await;
    pipe.seed().await;
    assert!(rig.harness.write("much", Some(&"x".repeat(10_000))).await);
    let read =
        tokio::time::timeout(std::time::Duration::from_secs(20), pipe.stream.log(&pipe.plan.log_resume, 1 << 20, None));
    let first = read.await.expect("the stream answers");
    let refused = match first {
        Err(error) => error,
        Ok(batch) => pipe.stream.log(&batch.to, 1 << 20, None).await.expect_err("the budget is exceeded"),
    };
    assert!(matches!(refused, Error::Budget { .. }), "{refused}");
    assert!(matches!(pipe.stream.health().await, Err(Error::Budget { .. })), "also known without asking for log");
}
