//! How fast a seed is, against `cp` of the same file followed by `sync` of the copy, in turns.

use crate::{Args, median, table::Row};
use causeway_tests::{Cluster, DEST, SOURCE, State, content};
use std::{path::Path, process::Command, time::Instant};

/// At least half of what `cp` and `sync` do; eight tenths is the goal.
const RATIO_MIN: f64 = 0.5;

pub fn measure(args: &Args) -> Vec<Row> {
    // Fine enough for what takes a second, and rare enough not to take processors from it: 10 ms cost a tenth of them.
    let cluster = args.cluster().flag("coordinator", "--observe-every-ms=50").start();
    let file = cluster.west().database("seed.db");
    content::filled(&file, args.seed_mb);
    let bytes = file.metadata().expect("the database").len() as f64;
    let (mut seeds, mut copies, mut efforts) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for round in 0..args.rounds {
        copies.push(bytes / 1e6 / copy(&file, &cluster.dir().join("copy.db")));
        let op = cluster.start_copy("seed.db");
        let before = cpu_seconds(&cluster);
        let started = Instant::now();
        op.until_it_within("seeded", std::time::Duration::from_secs(900), |op| {
            !matches!(op.state(), State::Queued | State::Preparing | State::Seeding)
        });
        seeds.push(bytes / 1e6 / started.elapsed().as_secs_f64());
        for ((efforts, after), before) in efforts.iter_mut().zip(cpu_seconds(&cluster)).zip(before) {
            efforts.push((after - before) / (bytes / 1e9));
        }
        op.until_ready();
        op.cancel();
        op.until_ended();
        eprintln!(
            "  round {round}: seed {:.0} MB/s, cp and sync {:.0} MB/s, processors {:.2} and {:.2} s/GB",
            seeds[seeds.len() - 1],
            copies[copies.len() - 1],
            efforts[0][efforts[0].len() - 1],
            efforts[1][efforts[1].len() - 1]
        );
    }
    let (seed, cp) = (median(&seeds), median(&copies));
    let row = Row::of(format!("seed of {} MB, TLS on", args.seed_mb), format!("{seed:.0} MB/s"))
        .against(format!("cp + sync {cp:.0} MB/s"), seed / cp)
        .bar(format!("at least {RATIO_MIN} of cp (goal 0.8)"), seed / cp >= RATIO_MIN);
    // Without a bar: it is the figure to watch where wall time is noisy.
    let effort = efforts.map(|efforts| median(&efforts));
    let figure = format!("{:.2} + {:.2} s/GB", effort[0], effort[1]);
    vec![row, Row::of("processor time of the seed, source + destination agent", figure)]
}

/// Processor time of source and destination agent so far, user and system.
fn cpu_seconds(cluster: &Cluster) -> [f64; 2] {
    [SOURCE, DEST].map(|party| cluster.processor_seconds(party))
}

/// Seconds for `cp` and `sync` of the copy.
fn copy(from: &Path, to: &Path) -> f64 {
    // As for a new destination: the file does not exist yet.
    let _ = std::fs::remove_file(to);
    let started = Instant::now();
    let cp = Command::new("cp").args([from, to]).status().expect("run cp");
    let sync = Command::new("sync").arg(to).status().expect("run sync");
    assert!(cp.success() && sync.success(), "cp and sync of {}", from.display());
    let took = started.elapsed().as_secs_f64();
    std::fs::remove_file(to).expect("remove the copy");
    took
}
