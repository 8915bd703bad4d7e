//! Fence, mark, promote, release: never two that serve, and going back as if nothing had been.

use super::rig::Rig;

use handover::{Attempt, Kind};

/// After the fence no client writes at the source; after the flip clients write at the destination; then the source is gone.
pub async fn a_move_refuses_writes_and_serves_at_the_destination(rig: &mut Rig) {
    let pipe = rig.replicate(Kind::Move).await;
    let end = rig.fence(1).await;
    assert!(!rig.harness.write("refused", Some("1")).await, "a fenced source takes no write");
    assert!(!rig.harness.write_at_dest("early", "1").await, "a replica takes no write");
    pipe.catch_up_to(&end).await;
    let expected = rig.harness.rows().await;
    rig.promote(&pipe, 1, &end).await;
    assert_eq!(rig.harness.rows_at_dest().await, expected);
    assert!(rig.harness.write_at_dest("late", "1").await, "the destination takes writes after the flip");
    rig.finish(1).await;
    assert!(!rig.harness.write("gone", Some("1")).await, "a dropped source takes no write");
    assert_eq!(rig.harness.leftovers(), Vec::<String>::new());
}

/// An aborted attempt leaves a source that takes writes, and a second attempt carries them.
pub async fn an_unfenced_source_serves_again(rig: &mut Rig) {
    let pipe = rig.replicate(Kind::Move).await;
    let end = rig.fence(1).await;
    pipe.catch_up_to(&end).await;
    rig.unfence(1).await;
    assert!(rig.harness.write("between", Some("1")).await, "an unfenced source takes writes");
    pipe.catch_up().await;
    let end = rig.fence(2).await;
    assert!(!rig.harness.write("refused", Some("1")).await);
    pipe.catch_up_to(&end).await;
    let expected = rig.harness.rows().await;
    assert_eq!(expected.get("between").map(String::as_str), Some("1"));
    rig.promote(&pipe, 2, &end).await;
    assert_eq!(rig.harness.rows_at_dest().await, expected);
    assert!(rig.harness.write_at_dest("late", "1").await, "no trace of the fences came along");
}

/// The fence is in the instance, not in the agent; and a new agent can lift it.
pub async fn a_fence_outlives_the_agent(rig: &mut Rig) {
    let pipe = rig.replicate(Kind::Move).await;
    rig.fence(1).await;
    drop(pipe);
    rig.restart_source().await;
    assert!(!rig.harness.write("refused", Some("1")).await, "fenced without an agent");
    let found = rig.source.roles().await.expect("read the records");
    assert_eq!(found, [rig.role()], "the record is what was recorded");
    rig.unfence(1).await;
    assert!(rig.harness.write("again", Some("1")).await);
    let mut pipe = rig.connect().await;
    pipe.seed().await;
    pipe.catch_up().await;
    rig.flip_and_compare(&pipe, 2).await;
}

/// A copy is the source as of its mark, and the source never stops serving.
pub async fn a_copy_ends_at_its_mark(rig: &mut Rig) {
    let pipe = rig.replicate(Kind::Copy).await;
    assert!(rig.harness.write("before", Some("1")).await);
    let expected = rig.harness.rows().await;
    let mark = rig.source.mark(&rig.role(), Attempt(1)).await.expect("mark");
    assert!(rig.harness.write("beyond", Some("2")).await, "a copy refuses nobody");
    pipe.catch_up_to(&mark).await;
    rig.promote(&pipe, 1, &mark).await;
    assert_eq!(rig.harness.rows_at_dest().await, expected, "exactly what was there at the mark");
    rig.finish(1).await;
    assert!(rig.harness.write("still", Some("3")).await, "the source goes on");
    assert_eq!(rig.harness.leftovers(), Vec::<String>::new());
}

/// Whoever crashed in the middle does it again.
pub async fn promote_and_release_can_be_repeated(rig: &mut Rig) {
    let pipe = rig.replicate(Kind::Move).await;
    let end = rig.fence(1).await;
    pipe.catch_up_to(&end).await;
    let expected = rig.harness.rows().await;
    rig.promote(&pipe, 1, &end).await;
    rig.restart_dest().await;
    let role = rig.dest_role();
    rig.dest.promote(&role).await.expect("promote again");
    assert!(rig.harness.write_at_dest("late", "1").await);
    rig.dest.promote(&role).await.expect("and again, with clients writing");
    assert_eq!(rig.harness.rows_at_dest().await.len(), expected.len() + 1, "a repeated promote undoes nothing");
    rig.finish(1).await;
    let mut released = rig.role();
    released.phase = handover::source_role::Phase::Releasing { attempt: Attempt(1) };
    rig.restart_source().await;
    rig.source.release(&released, "east").await.expect("release again");
    rig.dest.finish(&role).await.expect("finish again");
}

/// What a move leaves at the source counts as a free name.
pub async fn a_moved_database_can_come_back(rig: &mut Rig) {
    let pipe = rig.replicate(Kind::Move).await;
    let end = rig.fence(1).await;
    pipe.catch_up_to(&end).await;
    rig.promote(&pipe, 1, &end).await;
    rig.finish(1).await;
    drop(pipe);
    assert!(rig.harness.write_at_dest("there", "1").await);
    rig.harness.swap();
    rig.restart_source().await;
    rig.restart_dest().await;
    let pipe = rig.replicate(Kind::Move).await;
    let end = rig.fence(1).await;
    pipe.catch_up_to(&end).await;
    let expected = rig.harness.rows().await;
    assert_eq!(expected.get("there").map(String::as_str), Some("1"));
    rig.promote(&pipe, 1, &end).await;
    rig.finish(1).await;
    assert_eq!(rig.harness.rows_at_dest().await, expected);
    assert!(rig.harness.write_at_dest("back", "1").await);
    assert_eq!(rig.harness.leftovers(), Vec::<String>::new());
    let missing = rig.source.preflight(&rig.harness.database(), Kind::Move, None).await.expect("examine the tombstone");
    // What is left under the name, if the engine leaves something there, is no database.
    let gone = ["TOMBSTONE", "DATABASE_NOT_FOUND"];
    assert!(missing.findings.iter().any(|f| gone.contains(&f.code.as_str())), "{:?}", missing.findings);
}
