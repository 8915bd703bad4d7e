//! PostgreSQL databases between real servers: what holds for SQLite holds for them, and what is their own.

mod agents;
mod backup;
mod budget;
mod changes;
mod ddl;
mod fences;
mod journeys;
mod kills;
mod large;
mod objects;
mod pgbench;
mod preflights;

use causeway_tests::{Cluster, POSTGRES, v1::Operation};
use ledger::{Summary, postgres::fill};

/// Far above what a freeze takes, so that a busy machine fails no test; `make bench` measures it.
const FREEZE_MS_MAX: f64 = 10_000.0;

fn cluster() -> Cluster {
    Cluster::builder().engine(POSTGRES).start()
}

/// Makes the application's database with a table of `mb` million bytes beside the ledger's.
#[track_caller]
fn filled(cluster: &Cluster, database: &str, mb: u64) {
    cluster.postgres("west").create(database);
    let place = cluster.database("west", database);
    fill(&place.to_string_lossy(), mb).unwrap_or_else(|e| panic!("fill {database}: {e:?}"));
}

/// The tables the application does not touch.
fn untouched(cluster: &Cluster, instance: &str, database: &str) -> Vec<ledger::driver::TableHash> {
    let content = cluster.postgres(instance).content(database);
    content.into_iter().filter(|hash| hash.table == "public.filler").collect()
}

/// What holds after every move from west to east.
#[track_caller]
fn assert_moved(cluster: &Cluster, database: &str, summary: &Summary) {
    assert_frozen_briefly(summary);
    assert_carried(cluster, database);
}

/// The same, whatever the application had to go through meanwhile.
#[track_caller]
fn assert_carried(cluster: &Cluster, database: &str) {
    let history = cluster.dir().join(format!("{database}.history"));
    let report = cluster.assert_sound(&cluster.database("east", database), &history);
    println!("{report}");
    assert_eq!((report.lost, report.invented), (0, 0));
    let (west, east) = (cluster.postgres("west"), cluster.postgres("east"));
    assert!(!west.databases().contains(&database.to_owned()), "the source still has it");
    assert!(east.is_writable(database), "the destination takes no writes");
    west.until_clean();
    east.until_clean();
}

#[track_caller]
fn assert_frozen_briefly(summary: &Summary) {
    let freeze_ms = summary.freeze_ms.expect("the application changed its place");
    println!("freeze {freeze_ms:.1} ms, {summary}");
    assert!(freeze_ms > 0.0 && freeze_ms < FREEZE_MS_MAX, "freeze of {freeze_ms} ms");
}

fn reason(operation: &Operation) -> String {
    operation.reason.clone().unwrap_or_default().code
}
