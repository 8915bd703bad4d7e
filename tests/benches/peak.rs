//! The most memory a process ever took, and what may be said of it.

use crate::table::Row;
use causeway_tests::{Cluster, DEST, SOURCE};

pub const MIB: f64 = 1024.0 * 1024.0;
/// "About equal": within a quarter, or within what an allocator keeps back by chance.
const GROWTH_MAX: f64 = 1.25;
const CHANCE_MIB: f64 = 12.0;

/// Peaks of source and destination agent in MiB for a database of so many MB.
pub type Peaks = (u64, [f64; 2]);

/// A row for each agent and size, and one for how they compare.
pub fn rows(peaks: &[Peaks], most_mib: f64) -> Vec<Row> {
    let mut rows = Vec::new();
    for (n, agent) in ["source agent", "destination agent"].into_iter().enumerate() {
        for (mb, peaks) in peaks {
            let row = Row::of(format!("peak RSS of the {agent}, {mb} MB"), format!("{:.1} MiB", peaks[n]));
            rows.push(row.bar(format!("below {most_mib:.0} MiB"), peaks[n] < most_mib));
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

/// The peaks so far (VmHWM) of the agents between west and east.
pub fn of_agents(cluster: &Cluster) -> [f64; 2] {
    [SOURCE, DEST].map(|party| cluster.peak_rss_bytes(party) as f64 / MIB)
}
