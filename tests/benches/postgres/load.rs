//! What a copy costs the source: transactions a second of a busy pgbench while its database is being seeded, beside the same
//! with peers, relative to nobody copying.

use super::{
    Side, data,
    peers::{self, PEERS},
};
use crate::{Args, table::Row};
use causeway_tests::Cluster;
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// How long it is left alone.
const UNDISTURBED: Duration = Duration::from_secs(10);

pub fn measure(args: &Args) -> Vec<Row> {
    let cluster = super::cluster(args);
    let scale = args.seed_mb.div_ceil(13).max(1);
    data::pgbench(&Side::west(&cluster), "load", scale);
    let (alone, _) = Load::start(&cluster).over(|| std::thread::sleep(UNDISTURBED));
    let ours = Load::start(&cluster).over(|| {
        let op = cluster.start_copy("load");
        op.until_ready_within(super::PATIENCE);
        op.cancel();
        op.until_ended();
    });
    let told =
        |(tps, seconds): (f64, f64)| format!("{:.0} % of {alone:.0} tps for {seconds:.0} s", tps / alone * 100.0);
    eprintln!("  Causeway: {}", told(ours));
    let mut rows = Vec::new();
    for peer in PEERS.iter().filter(|peer| peers::is_there(peer.program)) {
        peers::fresh(&cluster, "load");
        let theirs = Load::start(&cluster).over(|| (peer.copy_live)(&cluster, "load"));
        eprintln!("  {}: {}", peer.name, told(theirs));
        let row = Row::of("tps at the source while it is copied", told(ours));
        rows.push(row.against(format!("{}: {}", peer.name, told(theirs)), ours.0 / theirs.0));
        peers::fresh(&cluster, "load");
        Side::east(&cluster).sql("postgres", "DROP DATABASE load");
    }
    rows
}

/// A pgbench that tells every second how many transactions there were.
struct Load {
    pgbench: Child,
    told: mpsc::Receiver<f64>,
}

impl Load {
    fn start(cluster: &Cluster) -> Self {
        let mut pgbench = Side::west(cluster).command("pgbench");
        pgbench.args(["-n", "-c", "4", "-j", "1", "-P", "1", "-T", "3600", "load"]);
        let mut pgbench = pgbench.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("run pgbench");
        let says = BufReader::new(pgbench.stderr.take().expect("a pipe"));
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            // "progress: 1.0 s, 1234.5 tps, lat 0.123 ms stddev 0.045, 0 failed"
            let tps = |line: String| line.split(", ").nth(1)?.strip_suffix(" tps")?.parse().ok();
            says.lines().map_while(Result::ok).filter_map(tps).try_for_each(|tps| tell.send(tps)).ok();
        });
        let load = Self { pgbench, told };
        // The first seconds fill caches.
        load.told.recv().expect("pgbench runs");
        load.told.recv().expect("pgbench runs");
        load
    }

    /// Transactions a second while something goes on, and how many seconds it does.
    fn over(mut self, what: impl FnOnce()) -> (f64, f64) {
        self.told.try_iter().for_each(drop);
        let started = Instant::now();
        what();
        let seconds = started.elapsed().as_secs_f64();
        let all: Vec<f64> = self.told.try_iter().take(seconds.max(1.0) as usize).collect();
        let _ = self.pgbench.kill();
        let _ = self.pgbench.wait();
        assert!(!all.is_empty(), "it lasted at least a second");
        (all.iter().sum::<f64>() / all.len() as f64, seconds)
    }
}
