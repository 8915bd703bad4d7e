//! The databases that are measured.

use super::Side;

/// pgbench's own, 13 MB a unit of scale.
pub fn pgbench(side: &Side<'_>, database: &str, scale: u64) {
    empty(side, database);
    side.run("pgbench", &["-i", "-q", "-s", &scale.to_string(), database]);
    side.sql(database, "VACUUM ANALYZE");
}

/// Five tables of mixed types with two secondary indexes each, about 800 bytes a row; their shares are 36, 24, 18, 14 and 8 %.
pub fn wide(side: &Side<'_>, database: &str, rows: u64) {
    empty(side, database);
    for (n, percent) in [36, 24, 18, 14, 8].into_iter().enumerate() {
        side.sql(database, &wide_table(&format!("w{}", n + 1), rows * percent / 100));
    }
    side.sql(database, "VACUUM ANALYZE");
}

fn wide_table(name: &str, rows: u64) -> String {
    format!(
        "CREATE TABLE {name} (id bigint PRIMARY KEY, u uuid NOT NULL, body text NOT NULL, doc jsonb NOT NULL, \
           amount numeric(14,4) NOT NULL, at timestamptz NOT NULL, tags int[] NOT NULL, raw bytea NOT NULL); \
         INSERT INTO {name} SELECT i, md5('u' || i)::uuid, repeat(m, 3) || md5('b' || m) || md5('c' || m) || md5('d' || m), \
           jsonb_build_object('id', i, 'name', md5('n' || i), 'active', i % 2 = 0, 'score', (i * 7919 % 100000) / 100.0, \
             'street', md5('s' || i), 'zip', i % 99999, 'labels', jsonb_build_array(left(m, 8), right(m, 8)), 'note', m || m), \
           (i * 104729 % 1000000000) / 10000.0, timestamptz '2020-01-01' + i * 37 % 157680000 * interval '1 second', \
           ARRAY[i % 10, i % 100, i % 1000]::int[], decode(repeat(m, 6), 'hex') \
         FROM (SELECT i, md5(i::text) AS m FROM generate_series(1::bigint, {rows}) i) AS s; \
         CREATE INDEX ON {name} (u); CREATE INDEX ON {name} (at, amount)"
    )
}

/// pgbench's tables, and one each for inserts and random updates.
pub fn catchup(side: &Side<'_>, database: &str) {
    pgbench(side, database, 20);
    side.sql(database,
        "CREATE TABLE inserted (id bigserial PRIMARY KEY, a int NOT NULL, b text NOT NULL, at timestamptz NOT NULL DEFAULT now()); \
         CREATE TABLE updated (id bigint PRIMARY KEY, n int NOT NULL, pad text NOT NULL, at timestamptz NOT NULL); \
         INSERT INTO updated SELECT i, 0, repeat('x', 80), now() FROM generate_series(1, 1000000) i; \
         CREATE TABLE marker (id bigint PRIMARY KEY)",
    );
    side.sql(database, "VACUUM ANALYZE");
}

/// Ten rows an insert, padded to a usual width.
pub const INSERTS: &str = "\\set r random(1, 1000000)\nINSERT INTO inserted (a, b) SELECT :r + i, 'row ' || (:r + i) || \
    ' of a ten row insert, padded to a usual width' FROM generate_series(1, 10) i;\n";

/// Ten random rows an update.
pub fn updates() -> String {
    let names: Vec<String> = ('a'..='j').map(|name| format!(":{name}")).collect();
    let set: String = ('a'..='j').map(|name| format!("\\set {name} random(1, 1000000)\n")).collect();
    format!("{set}UPDATE updated SET n = n + 1, at = now() WHERE id IN ({});\n", names.join(", "))
}

/// An empty database of that name.
pub fn empty(side: &Side<'_>, database: &str) {
    side.sql("postgres", &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"));
    side.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0"));
}

/// Bytes of the tables, without indexes.
pub fn table_bytes(side: &Side<'_>, database: &str) -> f64 {
    let sum = "SELECT sum(pg_table_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    side.value(database, sum).parse().expect("a number")
}
