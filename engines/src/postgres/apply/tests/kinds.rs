//! Every kind of table and of change.

use super::rig::Pair;
use crate::Error;

const TABLES: &str = "\
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy'); CREATE DOMAIN pos AS int CHECK (value > 0); \
    CREATE TYPE pair AS (a int, b text); CREATE TYPE floats AS RANGE (subtype = float8); \
    CREATE TABLE zoo (id bigint PRIMARY KEY, b bool, s smallint, r real, d double precision, n numeric, n2 numeric(10, 2), \
        m money, t text, v varchar(20), c char(5), c0 bpchar, q \"char\", by bytea, ts timestamp, tz timestamptz, da date, \
        ti time, tt timetz, iv interval, u uuid, j json, jb jsonb, x xml, ip inet, ci cidr, ma macaddr, bi bit(3), bi1 bit, \
        vb bit varying, pt point, bx box, tv tsvector, tq tsquery, ir int4range, mr int4multirange, nr numrange, ln pg_lsn, \
        mo mood, po pos, ia int[], ta text[], ba box[], nn name); \
    CREATE TABLE bound (id int PRIMARY KEY, moods mood[], p pair, ps pair[], f floats, rc regclass, acl aclitem, acls aclitem[], po pos[]); \
    CREATE TABLE \"Quo\"\"ted tä\" (\"Id \"\"x\" int, \"select\" text, PRIMARY KEY (\"Id \"\"x\")); \
    CREATE TABLE toast (id int PRIMARY KEY, n int, big text); \
    CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int); \
    CREATE TABLE always2 (id int PRIMARY KEY, serial int GENERATED ALWAYS AS IDENTITY, n int, big text); \
    CREATE TABLE gen (id int PRIMARY KEY, n int, g int GENERATED ALWAYS AS (n * 2) STORED, z int); \
    CREATE TABLE nokey (a int, b text, c numeric); CREATE TABLE nohash (j json, x xml); CREATE TABLE nothing (); \
    CREATE TABLE defkey (id int PRIMARY KEY DEFERRABLE, n int); \
    CREATE TABLE byindex (a int NOT NULL, b text); CREATE UNIQUE INDEX byindex_a ON byindex (a); \
    ALTER TABLE byindex REPLICA IDENTITY USING INDEX byindex_a; \
    CREATE TABLE fullkey (id int PRIMARY KEY, n int, big text); ALTER TABLE fullkey REPLICA IDENTITY FULL; \
    CREATE TABLE parent (id int PRIMARY KEY, n int); CREATE TABLE child (extra text, PRIMARY KEY (id)) INHERITS (parent); \
    CREATE TABLE parted (id int, k int, n int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k); \
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100); \
    CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (100) TO (200); \
    CREATE TABLE numkey (k numeric PRIMARY KEY, n int); \
    CREATE TABLE onlykey (a int, b int, PRIMARY KEY (a, b)); \
    CREATE TABLE refd (id int PRIMARY KEY); CREATE TABLE refs (id int PRIMARY KEY, r int REFERENCES refd); \
    CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY); \
    ALTER TABLE toast ALTER big SET STORAGE EXTERNAL; ALTER TABLE always2 ALTER big SET STORAGE EXTERNAL; \
    ALTER TABLE fullkey ALTER big SET STORAGE EXTERNAL; \
    INSERT INTO nokey SELECT i % 5, 'x', 1.0 FROM generate_series(1, 50) i; \
    INSERT INTO nohash SELECT '{\"a\": 1}', '<a/>' FROM generate_series(1, 5); \
    INSERT INTO nothing SELECT FROM generate_series(1, 5)";

/// Transactions, one after the other.
const CHANGES: &[&str] = &[
    "INSERT INTO zoo VALUES (1, true, -1, 1.5, -0.0, 1.00, 2.5, 3.5, E'tab\\tline\\nback\\\\slash\"', 'v', 'c', 'c0 ', '\\001', \
        '\\x00ff', '2020-01-01 1:2:3.456', '2020-01-01 1:2:3+1', '-infinity', '1:2:3', '1:2:3+5', '1 mon 2 days', \
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"b\" : 1}', '{\"b\" : 1.00}', '<a>1</a>', '10.0.0.1/24', '10.0.0.0/24', \
        '08:00:2b:01:02:03', '101', '1', '10101', '(1,2)', '(1,2),(0,0)', 'a fat cat', 'fat & cat', '[1,5)', '{[1,3),[7,9)}', \
        '[1.0,2.50]', '1/FF', 'so so', 7, '{{1},{NULL}}', '{\"a,b\",NULL,\"\\\\\"}', '{(1,1),(0,0);(2,2),(1,1)}', 'nn')",
    "INSERT INTO zoo (id) VALUES (2)",
    "INSERT INTO zoo SELECT 3 + i, (z.r).b FROM generate_series(1, 3) i, (SELECT zoo AS r FROM zoo WHERE id = 1) z",
    "UPDATE zoo SET (ia, ba, mo, jb, q, bi1, c0) = ('{{1,2},{3,4}}', NULL, 'sad', '[]', 'x', '0', 'longer') WHERE id IN (1, 4)",
    "UPDATE zoo SET t = repeat('long', 10), d = 'NaN', n = 'NaN' WHERE id = 2",
    "DELETE FROM zoo WHERE id = 5",
    "INSERT INTO \"Quo\"\"ted tä\" VALUES (1, 'ä'), (2, NULL); UPDATE \"Quo\"\"ted tä\" SET \"select\" = 'b' WHERE \"Id \"\"x\" = 2",
    // Unchanged large values: updated, and moved to other keys, alone and after other changes of the same transaction.
    "INSERT INTO toast SELECT i, 0, repeat(md5(i::text), 300) FROM generate_series(1, 20) i",
    "UPDATE toast SET n = 1 WHERE id < 10",
    "UPDATE toast SET n = 2 WHERE id < 5; UPDATE toast SET id = id + 100 WHERE id < 4; UPDATE toast SET n = n + 1",
    "UPDATE toast SET big = 'small' WHERE id = 101; UPDATE toast SET id = 1 WHERE id = 101; DELETE FROM toast WHERE id = 102",
    "INSERT INTO toast SELECT 500, 1, repeat('x', 9000); UPDATE toast SET n = 7 WHERE id = 500; UPDATE toast SET id = 501 WHERE id = 500",
    "INSERT INTO always (n) SELECT generate_series(1, 10); UPDATE always SET n = n + 1; DELETE FROM always WHERE id = 3",
    "UPDATE always SET id = DEFAULT WHERE id = 4",
    "INSERT INTO always2 (id, n, big) SELECT i, i, repeat('y', 5000) FROM generate_series(1, 4) i; INSERT INTO always2 (id) VALUES (9)",
    "UPDATE always2 SET n = 5 WHERE id = 1; UPDATE always2 SET serial = DEFAULT WHERE id IN (2, 9); UPDATE always2 SET id = 30 WHERE id = 3",
    "DELETE FROM always2 WHERE id = 4; INSERT INTO always2 (id, n) VALUES (4, 4)",
    "INSERT INTO gen (id, n, z) VALUES (1, 2, 3), (2, 3, 4); UPDATE gen SET n = 10 WHERE id = 1; UPDATE gen SET id = 5 WHERE id = 2",
    "DELETE FROM nokey WHERE ctid IN (SELECT ctid FROM nokey WHERE a = 1 LIMIT 4); INSERT INTO nokey VALUES (1, 'x', 1.00), (NULL, NULL, NULL), (NULL, NULL, NULL)",
    "UPDATE nokey SET b = 'y' WHERE ctid IN (SELECT ctid FROM nokey WHERE a = 2 LIMIT 3); UPDATE nokey SET b = b WHERE a = 3",
    "DELETE FROM nokey WHERE ctid IN (SELECT ctid FROM nokey WHERE a IS NULL LIMIT 1); DELETE FROM nokey WHERE c::text = '1.00'",
    "DELETE FROM nohash WHERE ctid IN (SELECT ctid FROM nohash LIMIT 2); UPDATE nohash SET j = '{}' WHERE ctid = (SELECT max(ctid) FROM nohash)",
    "DELETE FROM nothing WHERE ctid IN (SELECT ctid FROM nothing LIMIT 2)",
    "INSERT INTO nothing DEFAULT VALUES",
    "INSERT INTO defkey SELECT i, i FROM generate_series(1, 10) i; UPDATE defkey SET id = 11 - id",
    "INSERT INTO byindex VALUES (1, 'a'), (2, 'b'); UPDATE byindex SET b = 'c' WHERE a = 1; UPDATE byindex SET a = 3 WHERE a = 2",
    "INSERT INTO fullkey VALUES (1, 1, repeat('z', 5000)), (2, 2, 'b'), (3, 3, 'c'); UPDATE fullkey SET n = 9 WHERE id = 1; \
        UPDATE fullkey SET id = 7 WHERE id = 1; DELETE FROM fullkey WHERE id = 2",
    "INSERT INTO parent VALUES (1, 1), (2, 2); INSERT INTO child VALUES (1, 1, 'c'), (3, 3, 'd'); UPDATE parent SET n = 5 WHERE id = 1; \
        DELETE FROM ONLY parent WHERE id = 1",
    "INSERT INTO parted SELECT i, i, i FROM generate_series(1, 150) i; UPDATE parted SET n = 0 WHERE id < 20; UPDATE parted SET k = k + 100 WHERE id < 10",
    "INSERT INTO numkey VALUES (1.0, 1), (2.0, 2); UPDATE numkey SET k = 1.000 WHERE k = 1; UPDATE numkey SET k = k + 10; UPDATE numkey SET n = 5 WHERE k = 11",
    "INSERT INTO onlykey VALUES (1, 1), (2, 2); UPDATE onlykey SET a = a; UPDATE onlykey SET b = 3 WHERE a = 2",
    "INSERT INTO refd VALUES (1), (2); INSERT INTO refs VALUES (1, 1), (2, 2); DELETE FROM refs WHERE id = 1",
    "INSERT INTO nokey VALUES (77, 'before', 1); TRUNCATE nokey; INSERT INTO nokey VALUES (78, 'after', 1)",
    "INSERT INTO always (n) VALUES (1); TRUNCATE refd, always RESTART IDENTITY CASCADE; INSERT INTO always (n) VALUES (2); INSERT INTO refd VALUES (9)",
    "SELECT pg_logical_emit_message(true, 'app', 'of the application'); INSERT INTO refs VALUES (9, 9); SELECT pg_logical_emit_message(false, 'app', 'x')",
];

/// Types whose binary form names other types: the source sends them as text.
const BOUND: &[&str] = &[
    "INSERT INTO bound VALUES (1, '{sad,\"so so\",NULL}', '(1,\"a,\\\\b\")', '{\"(1,x)\",NULL}', '[1,2.5]', 'bound', \
        'postgres=r/postgres', '{postgres=r/postgres,=w/postgres}', '{1,2}'), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "UPDATE bound SET ps = '{\"(2,\\\"q\\\\\\\\\\\")\"}', rc = 'zoo' WHERE id = 1; UPDATE bound SET moods = '{}' WHERE id = 2",
    "INSERT INTO bound SELECT i, moods, p, ps, f, rc, acl, acls, po FROM bound, generate_series(3, 6) i WHERE id = 1; DELETE FROM bound WHERE id = 4",
    "UPDATE bound SET id = 50 WHERE id = 5",
];

async fn everything(binary: bool) -> Pair {
    let mut pair = Pair::new(TABLES, binary).await;
    let bound: &[&str] = if binary { &[] } else { BOUND };
    // By small steps, and then the same again in one.
    for change in CHANGES.iter().chain(bound) {
        pair.run(change).await;
        pair.catch_up().await.unwrap_or_else(|error| panic!("{change}: {error}"));
        pair.assert_same().await;
    }
    pair
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_table_and_change_is_applied_in_binary() {
    let mut pair = everything(true).await;
    let names: Vec<_> = pair.applier.touched().into_iter().map(|(_, name)| name).collect();
    assert!(names.contains(&"parted_2".to_owned()) && !names.contains(&"unlogged".to_owned()), "{names:?}");
    assert!(pair.applier.touched().is_empty());
    all_at_once(&mut pair, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_table_and_change_is_applied_in_text() {
    let mut pair = everything(false).await;
    all_at_once(&mut pair, BOUND).await;
}

/// Empties everything and changes it again, in one transaction and then in one batch of many.
async fn all_at_once(pair: &mut Pair, bound: &[&str]) {
    let tables = "zoo, bound, \"Quo\"\"ted tä\", toast, always, always2, gen, nokey, nohash, nothing, defkey, byindex, fullkey, \
                  parent, parted, numkey, onlykey, refd, refs";
    pair.run(&format!("TRUNCATE {tables}")).await;
    let all: Vec<&str> = CHANGES.iter().chain(bound).copied().collect();
    pair.run(&format!("BEGIN; {}; COMMIT", all.join("; "))).await;
    pair.catch_up().await.expect("applied");
    pair.assert_same().await;
    pair.run(&format!("TRUNCATE {tables}")).await;
    for change in &all {
        pair.run(change).await;
    }
    pair.max = 1 << 20;
    pair.catch_up().await.expect("applied");
    pair.assert_same().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_swap_under_other_constraints_are_replayed_row_by_row() {
    let schema = "CREATE TABLE u (id int PRIMARY KEY, v int UNIQUE, w int); \
        CREATE TABLE ud (id int PRIMARY KEY, v int UNIQUE DEFERRABLE INITIALLY DEFERRED); \
        CREATE TABLE ex (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&)); \
        CREATE TABLE pu (id int PRIMARY KEY, v int); CREATE UNIQUE INDEX ON pu (v) WHERE v > 0; \
        INSERT INTO u SELECT i, i, 0 FROM generate_series(1, 100) i; INSERT INTO ud SELECT i, i FROM generate_series(1, 100) i; \
        INSERT INTO ex SELECT i, int4range(i * 10, i * 10 + 10) FROM generate_series(1, 20) i; \
        INSERT INTO pu SELECT i, i FROM generate_series(1, 100) i";
    let mut pair = Pair::new(schema, true).await;
    for round in 0..4 {
        for change in [
            // Three rows in a ring, by way of values that nobody has.
            "UPDATE u SET v = -v WHERE id IN (1, 2, 3); UPDATE u SET v = 1 + -v % 3 WHERE id IN (1, 2, 3)",
            "DELETE FROM u WHERE id = 50; UPDATE u SET v = 50 WHERE id = 51; INSERT INTO u VALUES (50, 51, 0)",
            "UPDATE u SET id = 1000 WHERE id = 50; UPDATE u SET id = 50 WHERE id = 51; UPDATE u SET id = 51 WHERE id = 1000",
            "UPDATE u SET v = v + 500; UPDATE u SET v = v - 500",
            "UPDATE ud SET v = 101 - v",
            "UPDATE ex SET r = int4range(lower(r) + 1000, upper(r) + 1000) WHERE id IN (1, 2); \
             UPDATE ex SET r = int4range(1030 - lower(r), 1040 - lower(r)) WHERE id IN (1, 2)",
            "UPDATE pu SET v = -v WHERE id IN (1, 2); UPDATE pu SET v = 3 + v WHERE id IN (1, 2)",
        ] {
            pair.run(change).await;
            if round % 2 == 0 {
                pair.catch_up().await.unwrap_or_else(|error| panic!("{change}: {error}"));
                pair.assert_same().await;
            }
        }
        pair.catch_up().await.expect("applied");
        pair.assert_same().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_the_destination_lacks_end_the_operation() {
    let schema = "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE k (a int, b text); \
                  INSERT INTO t SELECT i, i FROM generate_series(1, 10) i; INSERT INTO k SELECT i, 'x' FROM generate_series(1, 10) i";
    for (lose, change) in [
        ("DELETE FROM t WHERE id = 5", "UPDATE t SET n = n + 1"),
        ("DELETE FROM t WHERE id = 5", "DELETE FROM t"),
        ("UPDATE k SET b = 'y' WHERE a = 5", "DELETE FROM k"),
        ("INSERT INTO t VALUES (11, 1)", "INSERT INTO t VALUES (11, 2)"),
    ] {
        let mut pair = Pair::new(schema, true).await;
        pair.dest.run("postgres", lose).await;
        pair.run(change).await;
        let error = pair.catch_up().await.expect_err("it is noticed");
        assert!(matches!(error, Error::Corrupt(_)) && !error.retryable(), "{error}");
        let again = pair.applier.apply(pair.at, pair.at, bytes::Bytes::new()).await.expect_err("it sticks");
        assert!(matches!(again, Error::Corrupt(_)));
        // What the share in question did not have was not committed.
        let behind = format!("SELECT count(*) > 0 FROM causeway.checkpoint WHERE lsn < '{}'", pair.at.lsn);
        assert_eq!(pair.dest.value("postgres", &behind).await, "t");
    }
}

/// A TRUNCATE emptied the tables before their rows were sent: until it comes, the log changes rows that are not here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_before_a_truncate_need_not_be_there() {
    let tables = "CREATE TABLE keyed (id int PRIMARY KEY, v text, pad text); ALTER TABLE keyed ALTER pad SET STORAGE EXTERNAL; \
        CREATE TABLE nokey (a int, b text); CREATE TABLE uni (id int PRIMARY KEY, v int UNIQUE); \
        CREATE TABLE always (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int); \
        INSERT INTO keyed SELECT i, 'old', repeat(md5(i::text), 200) FROM generate_series(1, 100) i; \
        INSERT INTO nokey SELECT i % 10, 'old' FROM generate_series(1, 100) i; \
        INSERT INTO uni SELECT i, i FROM generate_series(1, 100) i; INSERT INTO always (v) SELECT i FROM generate_series(1, 100) i";
    let changes = "UPDATE keyed SET v = 'new' WHERE id < 30; UPDATE keyed SET id = id + 1000 WHERE id < 10; \
        DELETE FROM keyed WHERE id BETWEEN 40 AND 50; INSERT INTO keyed VALUES (45, 'again', ''); \
        UPDATE keyed SET v = 'once more' WHERE id > 42; DELETE FROM nokey WHERE a = 3; UPDATE nokey SET b = 'new' WHERE a < 3; \
        INSERT INTO nokey VALUES (1, 'new'); UPDATE uni SET v = v + 1000 WHERE id < 50; DELETE FROM uni WHERE id > 90; \
        INSERT INTO uni VALUES (95, 95); UPDATE always SET v = 0 WHERE id < 7";
    let truncate = "BEGIN; INSERT INTO nokey VALUES (0, 'late'); TRUNCATE keyed, nokey, uni, always; \
        INSERT INTO keyed VALUES (1, 'first', 'p'); INSERT INTO uni VALUES (1, 1), (2, 2); COMMIT; \
        INSERT INTO nokey VALUES (5, 'x'), (5, 'x'); UPDATE uni SET v = 3 - v WHERE id < 0; UPDATE keyed SET v = 'second'";
    let emptied = "TRUNCATE keyed, nokey, uni, always; INSERT INTO causeway.emptied \
        SELECT oid FROM pg_class WHERE relname IN ('keyed', 'nokey', 'uni', 'always')";
    let mut pair = Pair::new(tables, true).await;
    pair.dest.run("postgres", emptied).await;
    pair.run(changes).await;
    pair.catch_up().await.expect("nobody misses them");
    // What is not emptied yet is known to the next agent too.
    pair.reopen().await.expect("it opens");
    pair.run(changes).await;
    pair.run(truncate).await;
    pair.catch_up().await.expect("nobody misses them");
    pair.assert_same().await;
    assert_eq!(pair.dest.value("postgres", "SELECT count(*) FROM causeway.emptied").await, "0");
    // From there on every row counts.
    pair.dest.run("postgres", "DELETE FROM keyed").await;
    pair.run("UPDATE keyed SET v = 'third'").await;
    let lacks = pair.catch_up().await.expect_err("a row is missing");
    assert!(matches!(&lacks, Error::Corrupt(what) if what.contains("keyed")), "{lacks}");
}
