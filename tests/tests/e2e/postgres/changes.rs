//! Changes that are hard to follow in a log: each kind once, while seeding and afterwards, and every table is equal in the end.

use super::cluster;
use causeway_tests::{Cluster, POSTGRES, State};

const TABLES: &str = r#"
    CREATE TABLE swap(id int PRIMARY KEY, name text UNIQUE, place int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE toast(id int PRIMARY KEY, small int, large text, other text);
    ALTER TABLE toast ALTER large SET STORAGE EXTERNAL;
    CREATE TABLE always(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED);
    CREATE TABLE late(id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v int);
    CREATE TABLE keyless(a int, b text, c float8, d numeric);
    CREATE TABLE empty_row();
    CREATE TABLE full_identity(a int, b int); ALTER TABLE full_identity REPLICA IDENTITY FULL;
    CREATE TABLE by_index(a int NOT NULL, b int); CREATE UNIQUE INDEX by_index_a ON by_index(a);
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_a;
    CREATE TABLE parted(id int, region text, v int, PRIMARY KEY(id, region)) PARTITION BY LIST(region);
    CREATE TABLE parted_n PARTITION OF parted FOR VALUES IN ('n');
    CREATE TABLE parted_s PARTITION OF parted FOR VALUES IN ('s');
    CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
    CREATE TABLE parent(id int PRIMARY KEY, v text); CREATE TABLE child(w int, PRIMARY KEY(id)) INHERITS (parent);
    CREATE TABLE master(id int PRIMARY KEY); CREATE TABLE detail(id int PRIMARY KEY, m int REFERENCES master ON DELETE CASCADE);
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE typed(id int PRIMARY KEY, m mood, ms mood[], p pair, ps pair[], r int4range, d positive, j jsonb, n numeric,
        t timestamptz, i interval, u uuid, b bytea, x xml, bits varbit, f float8, h money);
    CREATE TABLE "Odd ""name"""("col umn" int PRIMARY KEY, "sel""ect" text);
    CREATE TABLE a23456789012345678901234567890123456789012345678901234567890123(a23456789012345678901234567890123456789012345678901234567890123 int PRIMARY KEY);
    CREATE SEQUENCE counted; CREATE SEQUENCE backwards INCREMENT -3 MAXVALUE 0;
    CREATE UNLOGGED TABLE quick(id int PRIMARY KEY, v text);
    CREATE MATERIALIZED VIEW summed AS SELECT region, sum(v) FROM parted GROUP BY region;
    CREATE MATERIALIZED VIEW counted_view AS SELECT count(*) FROM summed;
    CREATE TABLE trap(id int PRIMARY KEY, fired int DEFAULT 0);
    CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.fired := coalesce(NEW.fired, 0) + 1; RETURN NEW; END';
    CREATE TRIGGER fires BEFORE INSERT OR UPDATE ON trap FOR EACH ROW EXECUTE FUNCTION fire();
    CREATE TABLE walled(id int PRIMARY KEY, who text); ALTER TABLE walled ENABLE ROW LEVEL SECURITY; ALTER TABLE walled FORCE ROW LEVEL SECURITY;
    CREATE POLICY only_mine ON walled USING (who = current_user);
"#;

const ROWS: &str = r#"
    INSERT INTO swap SELECT i, 'n' || i, i FROM generate_series(1, 500) i;
    INSERT INTO toast SELECT i, i, repeat(md5(i::text), 400), 'o' FROM generate_series(1, 60) i;
    INSERT INTO always(v) SELECT i FROM generate_series(1, 500) i;
    INSERT INTO late SELECT i, i FROM generate_series(1, 500) i;
    INSERT INTO keyless SELECT i % 50, CASE WHEN i % 3 > 0 THEN 'b' || i % 7 END, 'NaN', NULL FROM generate_series(1, 2000) i;
    INSERT INTO empty_row SELECT FROM generate_series(1, 7);
    INSERT INTO full_identity SELECT i, i FROM generate_series(1, 300) i;
    INSERT INTO by_index SELECT i, i FROM generate_series(1, 300) i;
    INSERT INTO parted SELECT i, (ARRAY['n', 's', 'x'])[1 + i % 3], i FROM generate_series(1, 600) i;
    INSERT INTO parent SELECT i, 'p' FROM generate_series(1, 100) i; INSERT INTO child SELECT i, 'c', i FROM generate_series(101, 200) i;
    INSERT INTO master SELECT generate_series(1, 100); INSERT INTO detail SELECT i, 1 + i % 100 FROM generate_series(1, 400) i;
    INSERT INTO typed SELECT i, 'ok', '{sad,happy}', (i, 'x')::pair, ARRAY[(1, 'a')::pair, NULL], int4range(i, i + 5), i, jsonb_build_object('k', i),
        i / 7.0, '2026-01-01 00:00:00+02'::timestamptz + i * interval '1 s', '1 mon 2 days 3 s', md5(i::text)::uuid, sha256(i::text::bytea),
        '<a/>', B'1011', 1.0 / i, i FROM generate_series(1, 200) i;
    INSERT INTO "Odd ""name""" SELECT i, 'q"''' FROM generate_series(1, 50) i;
    INSERT INTO a23456789012345678901234567890123456789012345678901234567890123 SELECT generate_series(1, 50);
    INSERT INTO quick SELECT i, 'q' FROM generate_series(1, 500) i;
    INSERT INTO trap(id) SELECT generate_series(1, 50); INSERT INTO walled SELECT i, 'x' || i % 3 FROM generate_series(1, 30) i;
    SELECT nextval('counted'), nextval('backwards') FROM generate_series(1, 20);
    REFRESH MATERIALIZED VIEW summed; REFRESH MATERIALIZED VIEW counted_view;
"#;

/// Statements by themselves, and groups that are one transaction. `$n` is the round.
const CHANGES: [&str; 26] = [
    // Values of a unique column exchanged, in one statement and over several.
    "UPDATE swap SET place = 501 - place",
    "BEGIN; UPDATE swap SET name = 'tmp' WHERE id = 1; UPDATE swap SET name = 'n1' WHERE id = 2; UPDATE swap SET name = 'n2' WHERE id = 1; \
     UPDATE swap SET name = 'n2x' WHERE id = 1; UPDATE swap SET name = 'n2' WHERE id = 2; UPDATE swap SET name = 'n1' WHERE id = 1; COMMIT",
    "BEGIN; DELETE FROM swap WHERE id = 3; INSERT INTO swap VALUES (3, 'again$n', 1003 + $n); COMMIT",
    "UPDATE swap SET id = -id WHERE id BETWEEN 10 AND 20",
    "BEGIN; UPDATE swap SET id = id + 2000 WHERE id BETWEEN 400 AND 450; UPDATE swap SET id = id - 1999 WHERE id > 2000 AND id <= 2449; \
     DELETE FROM swap WHERE id = 2450; COMMIT",
    // Large values that stay, change, and come back.
    "UPDATE toast SET small = small + 1",
    "UPDATE toast SET large = large || 'x', other = 'p' WHERE id % 5 = 0",
    "BEGIN; UPDATE toast SET large = 'short' WHERE id = 7; UPDATE toast SET small = -1 WHERE id = 7; COMMIT",
    "BEGIN; INSERT INTO toast VALUES (1000 + $n, 1, repeat('y', 100000), NULL); UPDATE toast SET small = 2 WHERE id = 1000 + $n; COMMIT",
    "UPDATE toast SET id = id + 5000 WHERE id < 5",
    "INSERT INTO always(v) SELECT i FROM generate_series(1, 100) i; UPDATE always SET v = v + 1 WHERE id % 2 = 0; DELETE FROM always WHERE id % 11 = 0",
    "INSERT INTO always(id, v) OVERRIDING SYSTEM VALUE VALUES (100000 + $n, 5)",
    "BEGIN; UPDATE late SET id = id + 1; DELETE FROM late WHERE id % 17 = 0; COMMIT",
    // Rows that are equal to others, NULLs and NaN in them.
    "DELETE FROM keyless WHERE ctid IN (SELECT ctid FROM keyless WHERE a = 3 LIMIT 5)",
    "UPDATE keyless SET b = 'u$n' WHERE ctid IN (SELECT ctid FROM keyless WHERE a = 4 AND b IS NULL LIMIT 3)",
    "INSERT INTO keyless SELECT 3, NULL, 'NaN', 1.10 FROM generate_series(1, 10); UPDATE keyless SET d = 1.1 WHERE a = 3 AND b IS NULL",
    "INSERT INTO empty_row DEFAULT VALUES",
    "UPDATE full_identity SET b = a + b WHERE a % 3 = 0; DELETE FROM full_identity WHERE a % 29 = 0; INSERT INTO full_identity VALUES (1, 1), (1, 1)",
    "UPDATE by_index SET a = a + 1000 WHERE a % 10 = 0; UPDATE by_index SET b = 0 WHERE a % 7 = 0",
    // From one partition to another; a parent's rows and a child's.
    "UPDATE parted SET region = 's' WHERE region = 'n' AND id % 4 = 0; UPDATE parted SET v = v + 1; DELETE FROM parted WHERE id % 31 = 0",
    "UPDATE parent SET v = v || '!' WHERE id % 2 = 0; DELETE FROM ONLY parent WHERE id % 13 = 0; DELETE FROM master WHERE id % 9 = 0",
    "UPDATE typed SET m = 'happy', ms = ms || 'sad'::mood, p = (id, 'changed')::pair, ps = ps || (2, NULL)::pair, d = d + 1, n = n * 1.10, \
     i = i + interval '1 day', x = '<b>$n</b>', bits = bits || B'0' WHERE id % 3 = 0",
    "UPDATE \"Odd \"\"name\"\"\" SET \"sel\"\"ect\" = 'r' WHERE \"col umn\" % 2 = 0; \
     DELETE FROM a23456789012345678901234567890123456789012345678901234567890123 WHERE a23456789012345678901234567890123456789012345678901234567890123 % 6 = 0",
    "BEGIN; INSERT INTO trap(id) VALUES (200 + $n); SAVEPOINT s; DELETE FROM trap; ROLLBACK TO s; UPDATE trap SET fired = fired; \
     SAVEPOINT t; INSERT INTO trap(id) VALUES (300 + $n); RELEASE t; COMMIT",
    "BEGIN; TRUNCATE full_identity, empty_row; INSERT INTO full_identity VALUES ($n, $n); INSERT INTO empty_row DEFAULT VALUES; COMMIT",
    "UPDATE walled SET who = who || '.'; UPDATE quick SET v = 'r$n'; SELECT nextval('counted'), nextval('backwards'); \
     SELECT setval('counted', 7, false)",
];

fn make(cluster: &Cluster) {
    let west = cluster.postgres("west");
    west.create("hard");
    west.sql("hard", TABLES);
    west.sql("hard", ROWS);
}

fn change(cluster: &Cluster, round: u32) {
    for statements in CHANGES {
        let statements = statements.replace("$n", &round.to_string());
        cluster.postgres("west").sql("hard", &statements);
    }
}

#[track_caller]
fn assert_equal(cluster: &Cluster, west: &[ledger::driver::TableHash]) {
    let east = cluster.postgres("east").content("hard");
    // While an operation runs, some tables at the source have another replica identity.
    let differ: Vec<_> = west
        .iter()
        .filter(|hash| !east.contains(hash) && hash.table != "<definitions>")
        .map(|hash| (&hash.table, hash.rows))
        .collect();
    assert!(
        differ.is_empty() && west.len() == east.len(),
        "differ: {differ:?}\n{:?}",
        cluster.postgres("east").content("hard")
    );
}

#[test]
fn every_kind_of_change_arrives() {
    let cluster = Cluster::builder().engine(POSTGRES).flag("source", "--seed-bytes-per-second=1000000").start();
    make(&cluster);
    let op = cluster.start_move("hard");
    op.until_it("seeding", |op| op.state() != State::Preparing && op.state() != State::Queued);
    change(&cluster, 1);
    op.until_ready();
    change(&cluster, 2);
    cluster.postgres("west").sql("hard", "REFRESH MATERIALIZED VIEW summed; REFRESH MATERIALIZED VIEW counted_view");
    change(&cluster, 3);
    // The statistics of a materialized view are those of its last refresh, not of its inputs.
    cluster.postgres("west").sql("hard", "REFRESH MATERIALIZED VIEW summed; REFRESH MATERIALIZED VIEW counted_view");
    let content = cluster.postgres("west").content("hard");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    assert_equal(&cluster, &content);
    // And it goes on working there: sequences, identities, triggers, foreign keys.
    cluster
        .postgres("east")
        .sql("hard", "INSERT INTO always(v) VALUES (1); INSERT INTO trap(id) VALUES (9999); SELECT nextval('counted')");
    let fired = cluster.postgres("east").value("hard", "SELECT fired FROM trap WHERE id = 9999");
    assert_eq!(fired, "1");
    let refused = cluster.postgres("east").try_sql("postgres", "hard", "INSERT INTO detail VALUES (99999, 9)");
    assert_eq!(refused.map_err(|refusal| refusal.state), Err("23503".to_owned()));
    cluster.postgres("west").until_clean();
    cluster.postgres("east").until_clean();
}

/// Neither waits for the seed, and the seed does not begin anew for it.
#[test]
fn tables_are_truncated_and_rewritten_while_they_are_seeded() {
    let cluster = Cluster::builder().engine(POSTGRES).flag("source", "--seed-bytes-per-second=2000000").start();
    let west = cluster.postgres("west");
    west.create("hard");
    west.sql("hard", TRUNCATED);
    let op = cluster.start_move("hard");
    op.until_it("seeding", |op| op.state() != State::Preparing && op.state() != State::Queued);
    for round in 0..3 {
        // Whoever would wait for the seed would wait for seconds.
        let statements = format!("SET lock_timeout = '1s'; {}", WHILE_SEEDED.replace("$n", &round.to_string()));
        west.sql("hard", &statements);
        west.sql("hard", "VACUUM FULL compacted");
    }
    assert_eq!(op.now().state(), State::Seeding, "the tables are sent after the ballast");
    op.until_ready();
    west.sql("hard", "UPDATE keyed SET v = 'ready'; DELETE FROM keyless WHERE a = 1; UPDATE parted SET v = v + 1");
    let content = west.content("hard");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    assert_equal(&cluster, &content);
    let log = std::fs::read_to_string(cluster.log("source-west")).expect("the agent's log");
    assert!(log.contains("operation begun") && !log.contains("starts over"), "{log}");
}

/// The ballast is sent first.
const TRUNCATED: &str = "
    CREATE TABLE ballast AS SELECT i, repeat(md5(i::text), 30) AS v FROM generate_series(1, 12000) i;
    CREATE TABLE keyed(id int PRIMARY KEY, v text); INSERT INTO keyed SELECT i, 'seed' FROM generate_series(1, 2000) i;
    CREATE TABLE keyless(a int, b text); INSERT INTO keyless SELECT i % 50, 'seed' FROM generate_series(1, 2000) i;
    CREATE TABLE parted(id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000);
    CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (1000) TO (9000);
    INSERT INTO parted SELECT i, 0 FROM generate_series(1, 2000) i;
    CREATE TABLE compacted(id int PRIMARY KEY, v text); INSERT INTO compacted SELECT i, 'seed' FROM generate_series(1, 2000) i";

const WHILE_SEEDED: &str = "
    UPDATE keyed SET v = 'before $n'; DELETE FROM keyless WHERE a < 5; UPDATE parted SET v = $n; DELETE FROM parted WHERE id < 9;
    BEGIN; TRUNCATE keyed, keyless, parted_1; INSERT INTO keyed SELECT i, 'after $n' FROM generate_series(1, 100) i;
    INSERT INTO keyless VALUES (1, 'after $n'), (1, 'after $n'), (2, NULL); COMMIT; INSERT INTO parted VALUES (7$n, 1);
    UPDATE keyed SET v = v || '!' WHERE id < 50; UPDATE compacted SET v = 'round $n' WHERE id % 3 = $n";

#[test]
fn a_copy_is_as_of_its_marker_also_where_the_log_is_silent() {
    let cluster = cluster();
    make(&cluster);
    let op = cluster.start_copy("hard");
    op.until_ready();
    change(&cluster, 1);
    cluster.postgres("west").sql(
        "hard",
        "REFRESH MATERIALIZED VIEW summed; REFRESH MATERIALIZED VIEW counted_view; SELECT pg_switch_wal()",
    );
    let content = cluster.postgres("west").content("hard");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    change(&cluster, 2);
    assert_equal(&cluster, &content);
    cluster.postgres("west").until_clean();
    cluster.postgres("east").until_clean();
}
