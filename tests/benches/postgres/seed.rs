//! How long a seed takes, indexes and constraints included, beside the ways people copy a database today.

use super::{
    Side, data,
    peers::{self, PEERS, Peer},
};
use crate::{Args, median, table::Row};
use causeway_tests::{Cluster, State};
use std::time::Instant;

/// Against the fastest of them.
const RATIO_MIN: f64 = 1.1;

pub fn measure(args: &Args) -> Vec<Row> {
    let cluster = super::cluster(args);
    let scale = args.seed_mb.div_ceil(13).max(1);
    data::pgbench(&Side::west(&cluster), "seed_pgbench", scale);
    data::wide(&Side::west(&cluster), "seed_wide", args.seed_mb * 1_000_000 / 800);
    let sets = [("seed_pgbench", format!("pgbench -s {scale}")), ("seed_wide", "5 wide tables".to_owned())];
    sets.iter().flat_map(|(database, what)| rows(args, &cluster, database, what)).collect()
}

fn rows(args: &Args, cluster: &Cluster, database: &str, what: &str) -> Vec<Row> {
    let bytes = data::table_bytes(&Side::west(cluster), database);
    let here: Vec<_> = PEERS.iter().filter(|peer| !args.alone && peers::is_there(peer.program)).collect();
    let mut ours = Vec::new();
    let mut theirs = vec![Vec::new(); here.len()];
    // Everybody is first once, and last once: files of the log that are there already are cheaper than new ones.
    for (round, turn) in (0..args.rounds as usize).flat_map(|round| (0..=here.len()).map(move |turn| (round, turn))) {
        let who = (round + turn) % (here.len() + 1);
        let (name, took, seconds) = match here.get(who) {
            None => ("Causeway", &mut ours, causeway(cluster, database)),
            Some(peer) => (peer.name, &mut theirs[who], by_peer(cluster, database, peer)),
        };
        took.push(seconds);
        eprintln!("  {what}, round {round}: {name} {seconds:.1} s");
    }
    let seconds = median(&ours);
    let figure = format!("{seconds:.1} s, {:.0} MB/s", bytes / 1e6 / seconds);
    let medians: Vec<f64> = theirs.iter().map(|times| median(times)).collect();
    let fastest = medians.iter().copied().fold(f64::INFINITY, f64::min);
    here.iter()
        .zip(&medians)
        .map(|(peer, theirs)| {
            let ratio = theirs / seconds;
            let row = Row::of(format!("seed of {what} ({:.0} MB), TLS on", bytes / 1e6), &figure)
                .against(format!("{} {theirs:.1} s", peer.name), ratio);
            match *theirs <= fastest {
                true => row
                    .bar(format!("at least {RATIO_MIN} times as fast as the fastest (goal 1.25)"), ratio >= RATIO_MIN),
                false => row,
            }
        })
        .collect()
}

/// Seconds that a peer takes. Nothing of it is left.
fn by_peer(cluster: &Cluster, database: &str, peer: &Peer) -> f64 {
    peers::fresh(cluster, database);
    let started = Instant::now();
    (peer.copy)(cluster, database);
    let took = started.elapsed().as_secs_f64();
    // The name has to be free for us.
    peers::fresh(cluster, database);
    Side::east(cluster).sql("postgres", &format!("DROP DATABASE {database}"));
    took
}

/// Seconds from the start command until the operation catches up, with every index and constraint built.
fn causeway(cluster: &Cluster, database: &str) -> f64 {
    super::settle(cluster);
    let started = Instant::now();
    let op = cluster.start_copy(database);
    op.until_it_within("seeded", super::PATIENCE, |op| {
        !matches!(op.state(), State::Queued | State::Preparing | State::Seeding)
    });
    let took = started.elapsed().as_secs_f64();
    op.cancel();
    op.until_ended();
    took
}
