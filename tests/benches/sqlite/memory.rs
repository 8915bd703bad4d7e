//! The most memory each agent ever took (VmHWM) for databases of different sizes, which must not matter.

use crate::{Args, peak, table::Row};
use causeway_tests::{State, content};
use std::time::Duration;

const PEAK_MAX_MIB: f64 = 128.0;

pub fn measure(args: &Args) -> Vec<Row> {
    let sizes = if args.memory_mb.is_empty() { &[100, 2000][..] } else { &args.memory_mb };
    let peaks: Vec<_> = sizes.iter().map(|mb| (*mb, peaks(args, *mb))).collect();
    peak::rows(&peaks, PEAK_MAX_MIB)
}

/// Peaks of source and destination agent over a whole move with writers on.
fn peaks(args: &Args, mb: u64) -> [f64; 2] {
    let cluster = args.cluster().start();
    content::filled(&cluster.west().database("big.db"), mb);
    let mut application = cluster.application("big.db").start();
    let op = cluster.start_move("big.db");
    let patience = Duration::from_secs(900);
    op.until_it_within("readiness", patience, |op| op.state() == State::ReadyForCompletion);
    application.until_more_commits(1000);
    op.complete();
    op.until_it_within("the end", patience, causeway_tests::operation::ended);
    let peaks = peak::of_agents(&cluster);
    eprintln!("  {mb} MB: source {:.1} MiB, destination {:.1} MiB", peaks[0], peaks[1]);
    drop(application);
    peaks
}
