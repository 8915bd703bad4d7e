//! Makes a PostgreSQL database of a wanted size quickly: something to move.

use super::{connect, create_tables, error};
use crate::{driver::Error, sqlite::fill::Filled};

/// Bytes of a row with its header and its entries in the two indexes; seven rows fill a page.
const ROW_BYTES: u64 = 1200;

/// Fills an empty database: a filler table of about `mb` million bytes with a second index, and the ledger's tables.
pub fn fill(dsn: &str, mb: u64) -> Result<Filled, Error> {
    let mut client = connect(dsn)?;
    let rows = mb.saturating_mul(1_000_000) / ROW_BYTES;
    let last = i64::try_from(rows).unwrap_or(i64::MAX);
    let mut make = || {
        client.batch_execute("CREATE TABLE filler(id bigint PRIMARY KEY, tag integer NOT NULL, body text NOT NULL)")?;
        // Below the size at which a value is compressed or moved out of its row.
        let sql = "INSERT INTO filler SELECT i, hashint8(i),
                   (SELECT string_agg(md5((i * 31 + part)::text), '') FROM generate_series(1, 32) part) || md5(i::text)
                   FROM generate_series(1, $1::bigint) i";
        client.execute(sql, &[&last])?;
        client.batch_execute("CREATE INDEX filler_tag ON filler(tag); ANALYZE filler")?;
        client.query_one("SELECT pg_database_size(current_database())", &[])?.try_get::<_, i64>(0)
    };
    let bytes = make().map_err(error("fill the database"))?.unsigned_abs();
    create_tables(&mut client)?;
    Ok(Filled { bytes, rows })
}
