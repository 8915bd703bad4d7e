//! The most memory each agent ever took (VmHWM) for databases of different sizes, which must not matter.

use crate::{Args, table::Row};
use causeway_tests::{Cluster, DEST, Party, SOURCE, State, content};
use std::{fs, time::Duration};

const MIB: f64 = 1024.0 * 1024.0;
const PEAK_MAX_MIB: f64 = 128.0;
/// "About equal": within a quarter, or within what an allocator keeps back by chance.
const GROWTH_MAX: f64 = 1.25;
const CHANCE_MIB: f64 = 12.0;

pub fn measure(args: &Args) -> Vec<Row> {
    let peaks: Vec<(u64, [f64; 2])> = args.memory_mb.iter().map(|mb| (*mb, peaks(args, *mb))).collect();
    let mut rows = Vec::new();
    for (n, agent) in ["source agent", "destination agent"].into_iter().enumerate() {
        for (mb, peaks) in &peaks {
            let row = Row::of(format!("peak RSS of the {agent}, {mb} MB"), format!("{:.1} MiB", peaks[n]));
            rows.push(row.bar(format!("below {PEAK_MAX_MIB:.0} MiB"), peaks[n] < PEAK_MAX_MIB));
        }
        if let (Some((small, least)), Some((large, most))) = (peaks.first(), peaks.last())
            && small != large
        {
            let ratio = most[n] / least[n];
            let equal = ratio < GROWTH_MAX || most[n] - least[n] < CHANCE_MIB;
            let row = Row::of(format!("the same, {large} MB to {small} MB"), format!("{ratio:.2}"));
            rows.push(row.bar("about equal", equal));
        }
    }
    rows
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
    let peaks = [SOURCE, DEST].map(|party| peak_mib(&cluster, party));
    eprintln!("  {mb} MB: source {:.1} MiB, destination {:.1} MiB", peaks[0], peaks[1]);
    drop(application);
    peaks
}

fn peak_mib(cluster: &Cluster, party: Party) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.pid(party))).expect("read the agent's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of KiB");
    kib * 1024.0 / MIB
}
