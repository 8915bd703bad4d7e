//! Rows and transactions that are large: they pass, and agents take no more memory for them than is promised.

use super::cluster;
use causeway_tests::{DEST, SOURCE};

/// Beside twice the largest row.
const MEMORY_MAX_MIB: u64 = 192;

/// Rows of so many million bytes, seeded and in the log, and a transaction of so many rows.
fn passes(row_mb: u64, rows: u64) {
    let cluster = cluster();
    let (west, east) = (cluster.postgres("west"), cluster.postgres("east"));
    west.create("large");
    west.sql(
        "large",
        "CREATE TABLE many(id int PRIMARY KEY, v int);
         CREATE TABLE wide(id int PRIMARY KEY, n int, body text); ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
         CREATE TABLE keyless(n int, body bytea); ALTER TABLE keyless ALTER body SET STORAGE EXTERNAL",
    );
    let body = format!("string_agg(md5(i::text), '') FROM generate_series(1, {}) i", row_mb * 1_000_000 / 32);
    west.sql("large", &format!("INSERT INTO wide SELECT 1, 1, {body}"));
    west.sql("large", "INSERT INTO keyless SELECT 1, convert_to(body, 'UTF8') FROM wide");
    let op = cluster.start_move("large");
    op.until_ready_within(PATIENCE);
    west.sql("large", &format!("INSERT INTO many SELECT i, i FROM generate_series(1, {rows}) i"));
    west.sql("large", "BEGIN; UPDATE many SET v = v + 1 WHERE id % 2 = 0; DELETE FROM many WHERE id % 3 = 0; COMMIT");
    // One after the other in a transaction; unchanged; changed; moved to another key.
    west.sql("large", "BEGIN; INSERT INTO wide SELECT 2, 2, body || 'x' FROM wide; INSERT INTO wide SELECT 3, 3, 'y' || body FROM wide WHERE id = 1; COMMIT");
    west.sql("large", "UPDATE wide SET n = 10 WHERE id = 1; UPDATE wide SET body = body || 'z' WHERE id = 2; UPDATE wide SET id = 4 WHERE id = 3");
    west.sql("large", "INSERT INTO keyless SELECT 2, body FROM keyless");
    let content = west.content("large");
    op.until_ready_within(PATIENCE);
    op.complete();
    op.until_it_within("the end", PATIENCE, causeway_tests::operation::ended);
    op.until_succeeded();
    let found = east.content("large");
    let differ: Vec<_> = content.iter().filter(|hash| !found.contains(hash) && hash.table != "<definitions>").collect();
    assert!(differ.is_empty() && found.len() == content.len(), "{differ:?}");
    let most = MEMORY_MAX_MIB + 2 * row_mb * 1_000_000 / (1 << 20);
    for party in [SOURCE, DEST] {
        let mib = cluster.peak_rss_bytes(party) >> 20;
        println!("{}: {mib} MiB of at most {most}", party.name());
        assert!(mib < most, "{} took {mib} MiB, {most} are promised", party.name());
    }
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(900);

#[test]
fn a_row_of_50_mb_and_a_transaction_of_half_a_million_rows_pass() {
    passes(50, 500_000);
}

#[test]
#[ignore = "a soak: `make soak` runs it"]
fn a_row_of_200_mb_and_a_transaction_of_five_million_rows_pass() {
    passes(200, 5_000_000);
}
