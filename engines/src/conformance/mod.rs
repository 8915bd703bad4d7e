//! One suite for every engine: what the contract says, tried through the contract alone.
//!
//! An engine gives a [`Harness`] and calls [`crate::conformance_suite!`], which makes a test of each case.

pub mod flip;
pub mod guard;
pub mod rig;
pub mod transfer;

pub use rig::{Harness, Rig};

/// Makes a test of every case of the suite; `$make` is an expression that gives a fresh [`Harness`].
#[macro_export]
macro_rules! conformance_suite {
    ($make:expr) => {
        $crate::conformance_suite!(@ $make, transfer:
            seeds_while_clients_write, repeats_change_nothing, resumes_after_a_crash_of_the_source,
            resumes_after_a_crash_of_the_destination, verifies_after_the_log_was_lost, refuses_holes, respects_the_budget);
        $crate::conformance_suite!(@ $make, flip:
            a_move_refuses_writes_and_serves_at_the_destination, an_unfenced_source_serves_again, a_fence_outlives_the_agent,
            a_copy_ends_at_its_mark, promote_and_release_can_be_repeated, a_moved_database_can_come_back);
        $crate::conformance_suite!(@ $make, guard:
            a_cancel_leaves_no_trace, a_superseded_source_writes_nothing, a_superseded_destination_writes_nothing,
            the_watermark_only_rises, a_taken_name_is_found, unknown_databases_are_findings);
    };
    (@ $make:expr, $module:ident: $($case:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let mut rig = $crate::conformance::Rig::new($make).await;
                $crate::conformance::$module::$case(&mut rig).await;
            }
        )+
    };
}
