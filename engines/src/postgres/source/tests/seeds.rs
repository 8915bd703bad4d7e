//! The seed: the same bytes however often it is read, and everything in it.

use super::rig::{Rig, SHOP, Seed, has, read_part};
use crate::{
    Error, Result,
    postgres::{
        catalog,
        payload::{EMPTIED, PartKind, Schema, decode},
    },
    source::{Held, Plan, SourceEngine as _, SourceStream},
};
use handover::Kind;
use std::time::Duration;

const TABLES: &str = "CREATE TABLE big(id int PRIMARY KEY, v text, g text GENERATED ALWAYS AS (v || '!') STORED);
    INSERT INTO big SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 3000) n; CREATE TABLE zero();
    INSERT INTO zero DEFAULT VALUES; INSERT INTO zero DEFAULT VALUES; CREATE TABLE empty(a int PRIMARY KEY);
    CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE moods(id int PRIMARY KEY, m mood[]);
    INSERT INTO moods VALUES (1, '{sad}'); CREATE TABLE base(a int); CREATE TABLE child(b int) INHERITS (base);
    INSERT INTO base VALUES (1); INSERT INTO child VALUES (2, 3); CREATE UNLOGGED TABLE unlogged(a int);
    INSERT INTO unlogged VALUES (1); CREATE TABLE \"odd \"\"name; Type: TABLE\"(\"a;b\" int PRIMARY KEY);
    SELECT lo_from_bytea(n::oid, decode(repeat(md5(n::text), 300), 'hex')) FROM generate_series(70001, 70005) n;
    SELECT lo_create(70009); GRANT SELECT ON LARGE OBJECT 70001 TO app; CREATE INDEX big_v ON big(md5(v));
    CREATE TABLE keyless(a int); CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE TRIGGER always BEFORE INSERT ON big FOR EACH ROW EXECUTE FUNCTION touch();
    ALTER TABLE big ENABLE ALWAYS TRIGGER always; CREATE PUBLICATION theirs FOR TABLE big;
    CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM big; DROP SCHEMA IF EXISTS nobody; COMMENT ON DATABASE shop IS 'it''s';
    ALTER DATABASE shop SET search_path TO \"$user\", public; ALTER ROLE app IN DATABASE shop SET work_mem TO '8MB'";

#[tokio::test]
async fn a_seed_reads_the_same_again_and_from_any_offset() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let stream = rig.open().await;
    let seed = Seed::read(&*stream, &Held::default()).await;
    rig.cluster.run(SHOP, "UPDATE big SET v = 'new' WHERE id % 2 = 0; DELETE FROM big WHERE id % 3 = 0").await;
    rig.cluster.run(SHOP, "VACUUM big").await;
    rig.cluster.run(SHOP, "INSERT INTO empty SELECT generate_series(1, 100); SELECT lo_put(70001, 0, 'new')").await;
    drop(stream);
    rig.restart().await;
    let stream = rig.open().await;
    let again = Seed::read(&*stream, &Held::default()).await;
    assert_eq!((again.plan.clone(), again.rows), (seed.plan.clone(), seed.rows));
    for (part, (first, second)) in seed.parts.iter().zip(&again.parts).enumerate() {
        assert!(first == second, "part {part}, {} bytes and {}", first.len(), second.len());
    }
    let big = seed.plan.parts.iter().find(|part| part.object == "public.big").expect("it is planned").part;
    let whole = &seed.parts[big as usize];
    let first = stream.chunk(big, 0, 4096, None).await.expect("read");
    assert!(!first.last);
    rig.restart().await;
    let stream = rig.open().await;
    stream.plan(&Held::default()).await.expect("plan");
    let (rest, _) = read_part(&*stream, big, first.next_offset).await;
    assert!(rest == whole.slice(first.payload.len()..), "resumed in the middle");
    assert_eq!(seed.rows, 3000 + 2 + 1 + 2, "rows of all tables");
}

#[tokio::test]
async fn a_seed_holds_everything_and_nothing_of_ours() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let (_, seed) = rig.seeded().await;
    let header = &seed.header;
    let table = |name: &str| header.tables.iter().find(|table| table.name == name);
    assert_eq!(table("big").expect("planned").columns, ["id", "v"]);
    assert!(!table("moods").expect("planned").binary && table("big").expect("planned").binary);
    assert!(table("unlogged").is_none() && table("odd \"name; Type: TABLE").is_some());
    assert_eq!(header.parts.iter().filter(|part| **part == PartKind::LargeObjects).count(), 1);
    let objects = seed.parts.last().expect("large objects come last");
    assert!(objects.len() > 5 * 4800 && has(objects, "GRANT SELECT ON LARGE OBJECT 70001 TO \"app\""));
    assert_eq!(
        header.database.statements,
        [
            "COMMENT ON DATABASE \"shop\" IS 'it''s'",
            "ALTER DATABASE \"shop\" SET \"search_path\" TO '$user', 'public'",
            "ALTER ROLE \"app\" IN DATABASE \"shop\" SET \"work_mem\" TO '8MB'",
        ]
    );
    let schema: Schema = decode(&seed.parts[0]).expect("a schema");
    let text = seed.parts[0].clone();
    assert!(!has(&text, "causeway") && !has(&text, "REPLICA IDENTITY"), "{}", String::from_utf8_lossy(&text));
    assert!(schema.post.iter().any(|entry| entry.kind == "PUBLICATION" && entry.name == "theirs"));
    let last: Vec<_> = schema.post.iter().filter(|entry| entry.last).map(|entry| entry.name.as_str()).collect();
    assert_eq!(last, ["big always"]);
    assert_eq!(schema.populated, [("public".to_owned(), "mv".to_owned())]);
    // It can be restored.
    rig.cluster.run("postgres", "CREATE DATABASE again TEMPLATE template0").await;
    let client = rig.cluster.client("again").await.expect("connect");
    client.batch_execute(&schema.preamble).await.expect("the preamble");
    for entry in schema.pre.iter().chain(&schema.post) {
        client.batch_execute(&entry.sql).await.unwrap_or_else(|error| panic!("{entry:?}: {error:?}"));
    }
}

#[tokio::test]
async fn the_definitions_of_a_restored_database_compare_equal() {
    let mut rig = Rig::new(TABLES).await;
    rig.cluster
        .run(
            SHOP,
            "CREATE DOMAIN d AS int CHECK (value > 0); CREATE TABLE p(id int, k d, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10); CREATE INDEX ON p(k); ALTER TABLE big ENABLE ROW LEVEL SECURITY;
             CREATE POLICY pol ON big TO app USING (id > 0); CREATE VIEW vw AS SELECT id, v FROM big; GRANT SELECT (id) ON big TO app;
             CREATE RULE r AS ON INSERT TO vw DO INSTEAD NOTHING; CREATE SEQUENCE sq START 5; CREATE TABLE s(id bigserial, i int
             GENERATED ALWAYS AS IDENTITY, t text COLLATE \"C\" DEFAULT 'x'); CREATE STATISTICS st ON id, v FROM big;
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO app; CREATE EXTENSION hstore; GRANT USAGE ON SCHEMA public TO app;
             CREATE AGGREGATE agg(int) (SFUNC = int4pl, STYPE = int); REVOKE EXECUTE ON FUNCTION touch() FROM PUBLIC;
             CREATE TYPE comp AS (a int, b text); ALTER TABLE s ADD EXCLUDE USING btree (id WITH =); COMMENT ON COLUMN big.v IS 'c';
             CREATE EVENT TRIGGER et ON ddl_command_start EXECUTE FUNCTION causeway_et()"
                .replace("CREATE EVENT TRIGGER", "CREATE FUNCTION causeway_et() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER")
                .as_str(),
        )
        .await;
    rig.begin(Kind::Move).await;
    let (_, seed) = rig.seeded().await;
    let schema: Schema = decode(&seed.parts[0]).expect("a schema");
    rig.cluster.run("postgres", "CREATE DATABASE again TEMPLATE template0").await;
    let client = rig.cluster.client("again").await.expect("connect");
    client.batch_execute(&schema.preamble).await.expect("the preamble");
    for entry in schema.pre.iter().chain(&schema.post) {
        client.batch_execute(&entry.sql).await.unwrap_or_else(|error| panic!("{entry:?}: {error:?}"));
    }
    let lines = async |database: &str| {
        let mut lines = catalog::lines(&*rig.cluster.sql(database).await).await.expect("lines");
        // Full identity is ours.
        lines.retain(|line| !line.contains("causeway"));
        lines
    };
    let (ours, theirs) = (lines(SHOP).await, lines("again").await);
    assert!(ours.len() > 50);
    let differ: Vec<_> = ours
        .iter()
        .filter(|line| !theirs.contains(line))
        .chain(theirs.iter().filter(|line| !ours.contains(line)))
        .collect();
    assert!(differ.is_empty(), "{differ:#?}");
    rig.cluster.run("again", "ALTER TABLE empty ADD b int").await;
    assert_ne!(lines("again").await, ours);
}

#[tokio::test]
async fn the_snapshot_outlives_the_agent_and_goes_by_itself() {
    let mut rig = Rig::new(TABLES).await;
    let role = rig.begin(Kind::Move).await;
    let holders = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'causeway snapshot%'";
    let holder = rig.cluster.column("postgres", holders).await;
    assert_eq!(holder.len(), 1);
    rig.restart().await;
    let stream = rig.open().await;
    assert_eq!(stream.plan(&Held::default()).await.expect("plan").generation, 1);
    assert_eq!(rig.cluster.column("postgres", holders).await, holder);
    drop(stream);
    let setup = rig.setup.clone();
    rig.source = super::rig::engine(&setup, rig.limits, &rig.disk);
    let gone = async {
        while !rig.cluster.column("postgres", holders).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), gone).await.expect("without an agent it ends by itself");
    rig.restart().await;
    let stream = rig.source.open(&role).await.expect("open");
    let plan = stream.plan(&Held { generation: 1, ..Held::default() }).await.expect("plan");
    assert_eq!((plan.generation, plan.verify), (2, false), "a seed whose snapshot is gone starts over");
    drop(stream);
    rig.cleanup().await;
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

/// Reads a part; answers its rows, and whether it says that a TRUNCATE emptied the table.
async fn count(stream: &dyn SourceStream, part: u32) -> Result<(u64, bool)> {
    let (mut rows, mut offset) = (0, 0);
    loop {
        let chunk = stream.chunk(part, offset, 1 << 20, None).await?;
        rows += chunk.rows;
        if chunk.last {
            return Ok((rows, chunk.next_offset == offset + chunk.payload.len() as u64 + EMPTIED));
        }
        offset = chunk.next_offset;
    }
}

fn parts_of(plan: &Plan, table: &str) -> Vec<u32> {
    plan.parts.iter().filter(|part| part.object == table).map(|part| part.part).collect()
}

/// Four parts of it, and a small one.
const LARGE: &str = "CREATE TABLE large(id int PRIMARY KEY, v text); ALTER TABLE large ALTER v SET STORAGE PLAIN;
     INSERT INTO large SELECT n, repeat('x', 3000) FROM generate_series(1, 25000) n;
     CREATE TABLE small(a int); INSERT INTO small VALUES (1), (2)";

#[tokio::test]
async fn a_large_table_has_several_parts_and_clients_may_do_what_they_want() {
    let mut rig = Rig::new(LARGE).await;
    rig.begin(Kind::Move).await;
    let stream = rig.open().await;
    let plan = stream.plan(&Held::default()).await.expect("plan");
    let parts = parts_of(&plan, "public.large");
    assert_eq!(parts.len(), 4, "{:?}", plan.parts);
    let client = rig.cluster.client(SHOP).await.expect("connect");
    client
        .batch_execute("SET lock_timeout = '100ms'; UPDATE large SET v = 'new' WHERE id % 100 = 0")
        .await
        .expect("write");
    client.batch_execute("VACUUM FULL small").await.expect("nothing is locked");
    let small = parts_of(&plan, "public.small");
    assert_eq!(count(&*stream, small[0]).await.expect("all of its rows are seen yet"), (2, false));
    let (mut rows, mut gone) = (0, vec![]);
    for (n, part) in parts.into_iter().enumerate() {
        if n == 2 {
            client.batch_execute("TRUNCATE large").await.expect("nobody waits for a seed");
        }
        let (came, emptied) = count(&*stream, part).await.expect("read");
        rows += came;
        gone.push(emptied);
    }
    assert_eq!(gone, [false, false, true, true]);
    assert!((10_000..20_000).contains(&rows), "what came before the TRUNCATE: {rows}");
    stream.seed_done().await.expect("seeded");
}

#[tokio::test]
async fn an_emptied_table_says_so_and_a_rewritten_large_one_begins_a_new_generation() {
    let mut rig = Rig::new(LARGE).await;
    rig.begin(Kind::Move).await;
    let stream = rig.open().await;
    let plan = stream.plan(&Held::default()).await.expect("plan");
    rig.cluster.run(SHOP, "DELETE FROM small WHERE a = 1; TRUNCATE small; INSERT INTO small VALUES (3)").await;
    let small = parts_of(&plan, "public.small");
    assert_eq!(count(&*stream, small[0]).await.expect("the log brings the rest"), (0, true));
    let large = parts_of(&plan, "public.large");
    assert!(!count(&*stream, large[0]).await.expect("read").1);
    rig.cluster.run(SHOP, "VACUUM FULL large").await;
    let refused = count(&*stream, large[1]).await.expect_err("its rows may be in another part now");
    assert!(matches!(refused, Error::LogLost(_)), "{refused}");
    let next = stream.plan(&Held { generation: 1, ..Held::default() }).await.expect("plan");
    assert_eq!(next.generation, 2);
    assert_eq!(count(&*stream, parts_of(&next, "public.small")[0]).await.expect("read"), (1, false));
}

/// Whatever changes the definitions, those that were read before are not taken for true.
#[tokio::test]
async fn definitions_that_changed_are_read_again() {
    let rig = Rig::new(TABLES).await;
    let sql = rig.cluster.sql(SHOP).await;
    let changes = [
        "COMMENT ON TABLE big IS 'x'",
        "ALTER SCHEMA public OWNER TO app",
        "GRANT SELECT (id) ON big TO app",
        "ALTER TABLE empty ALTER a SET DEFAULT 7",
        "CREATE INDEX ON moods (m)",
        "ALTER TYPE mood ADD VALUE 'angry'",
        "CREATE SEQUENCE counts INCREMENT 3",
        "ALTER SEQUENCE counts INCREMENT 5",
        "ALTER TABLE big DISABLE TRIGGER always",
        "CREATE POLICY p ON moods USING (id > 1)",
        "ALTER TABLE moods ENABLE ROW LEVEL SECURITY",
        "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN old; END'",
        "ALTER PUBLICATION theirs ADD TABLE moods",
        "CREATE STATISTICS st ON id, m FROM moods",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO app",
        "ALTER ROLE app RENAME TO apps",
        "ALTER TABLE child NO INHERIT base",
        "CREATE OR REPLACE VIEW v AS SELECT 1 AS one",
        "CREATE OR REPLACE VIEW v AS SELECT 2 AS one",
        "CREATE DOMAIN d AS int CHECK (VALUE > 0)",
        "DROP DOMAIN d",
        "DROP TABLE keyless",
    ];
    for change in changes {
        let known = catalog::look_ahead(&sql).await.expect("look").expect("nobody else is here");
        let before = catalog::lines_as_known(&sql, Some(&known)).await.expect("lines");
        rig.cluster.run(SHOP, change).await;
        let now = catalog::lines(&sql).await.expect("lines");
        assert_ne!(now, before, "{change}");
        assert_eq!(catalog::lines_as_known(&sql, Some(&known)).await.expect("lines"), now, "{change}");
    }
    // Clients' rows, vacuum and statistics are no change, but for what a first vacuum finds: `base` has no child any more.
    rig.cluster.run(SHOP, "VACUUM ANALYZE").await;
    let known = catalog::look_ahead(&sql).await.expect("look").expect("nobody else is here");
    rig.cluster.run(SHOP, "INSERT INTO moods VALUES (9, '{glad}'); DELETE FROM big WHERE id < 100").await;
    rig.cluster.run(SHOP, "VACUUM ANALYZE").await;
    assert!(known.is_true(&sql).await.expect("look"));
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measure_the_definitions() {
    let rig = Rig::new(TABLES).await;
    let sql = rig.cluster.sql(SHOP).await;
    for _ in 0..4 {
        let started = std::time::Instant::now();
        let lines = catalog::lines(&sql).await.expect("lines");
        eprintln!("{} lines in {:?}", lines.len(), started.elapsed());
    }
    for part in 0..10 {
        rig.cluster.run(SHOP, &"DO $$ BEGIN FOR n IN FIRST..FIRST + 199 LOOP EXECUTE format('CREATE TABLE many_%s(id serial PRIMARY KEY, a int, b text DEFAULT 1, c int REFERENCES big)', n); END LOOP; END $$".replace("FIRST", &(part * 200).to_string())).await;
    }
    for _ in 0..3 {
        let started = std::time::Instant::now();
        let lines = catalog::lines(&sql).await.expect("lines");
        eprintln!("{} lines in {:?}", lines.len(), started.elapsed());
    }
}
