//! A source of its own: what a plan and its chunks are, made by `pg_dump` and COPY, without the source engine.

use crate::{
    dest::{DestEngine, DestReplica},
    host::RealHost,
    postgres::{
        PostgresDest,
        log::LogReader,
        payload::{self, DatabaseProperties, Entry, FORMAT, Locale, PartKind, PlanHeader, Schema, Table},
        position::Point,
        sql::{Sql, qualified},
        testing::Cluster,
        wire::Wire,
    },
    source::{LogBatch, Part, Plan},
};
use bytes::Bytes;
use handover::{
    Attempt, CommandVersion, DatabaseName, Epoch, Kind, OperationId, Position, Token,
    dest_role::{DestRole, Phase},
};
use std::{process::Command, sync::Arc};

pub(super) const DATABASE: &str = "shop";
pub(super) const EVERYTHING: &str = include_str!("../../../../../tests/data/everything.sql");
pub(super) const ROLES: &str = include_str!("../../../../../tests/data/everything_roles.sql");

/// A database as parts and chunks.
pub(super) struct Seed {
    pub(super) plan: Plan,
    /// For each part its chunks.
    pub(super) chunks: Vec<Vec<Bytes>>,
}

/// A source with a database, a destination, and an operation between them.
pub(super) struct Rig {
    pub(super) source: Cluster,
    pub(super) dest: Cluster,
    pub(super) role: DestRole,
    pub(super) engine: Arc<PostgresDest>,
}

pub(super) async fn rig(schema: &str) -> Rig {
    let (source, dest) = (Cluster::start(""), Cluster::start("fsync = on"));
    source.run("postgres", ROLES).await;
    dest.run("postgres", ROLES).await;
    source.run("postgres", &format!("CREATE DATABASE {DATABASE} TEMPLATE template0")).await;
    source.run(DATABASE, schema).await;
    let role = DestRole {
        operation: OperationId::parse("0192f0c1-7e1c-7c3a-9a55-1f2e3d4c5b6a").expect("an id"),
        kind: Kind::Move,
        database: DatabaseName::parse(DATABASE).expect("a name"),
        token: Token::parse("0123456789abcdef0123456789abcdef").expect("a token"),
        source_identity: String::new(),
        incarnation: None,
        source_epoch: Epoch(1),
        version: CommandVersion(1),
        floor: Attempt(0),
        hook: None,
        phase: Phase::Seeding,
    };
    let mut rig = Rig { engine: agent(&dest).await, source, dest, role };
    rig.engine.prepare(&rig.role).await.expect("prepare");
    rig.role.phase = Phase::Seeding;
    rig
}

/// A newly started agent that holds the lock.
pub(super) async fn agent(dest: &Cluster) -> Arc<PostgresDest> {
    let engine = Arc::new(PostgresDest::new(dest.config(), Arc::new(RealHost)));
    engine.take_over().await.expect("take over");
    engine
}

impl Rig {
    pub(super) async fn restart(&mut self) {
        self.engine = agent(&self.dest).await;
    }

    pub(super) async fn open(&self) -> Arc<dyn DestReplica> {
        self.engine.open(&self.role).await.expect("open")
    }

    /// All of the seed, from where the destination has it.
    pub(super) async fn load(&self, replica: &dyn DestReplica, seed: &Seed) {
        replica.plan(&seed.plan).await.expect("plan");
        for part in 0..seed.chunks.len() {
            self.load_part(replica, seed, part).await;
        }
    }

    pub(super) async fn load_part(&self, replica: &dyn DestReplica, seed: &Seed, part: usize) {
        let held = replica.durable().await.expect("held").held.parts[part];
        if held.done {
            return;
        }
        let (mut offset, last) = (0, seed.chunks[part].len() - 1);
        for (at, chunk) in seed.chunks[part].iter().enumerate() {
            let next = offset + chunk.len() as u64;
            if next > held.durable || at == last {
                replica.chunk(part as u32, offset, chunk.clone(), next, at == last).await.expect("chunk");
            }
            offset = next;
        }
    }

    /// The flip, at a position.
    pub(super) async fn promote(&mut self, position: &Position) {
        self.role.phase = Phase::Prepared { attempt: Attempt(1), position: position.clone() };
        self.engine.put_role(&self.role).await.expect("record that it is prepared");
        self.role.phase = Phase::Primary { attempt: Attempt(1) };
        self.engine.promote(&self.role).await.expect("promote");
    }

    /// Everything of a database that can be compared as text: its dump.
    pub(super) fn dumps(&self) -> (String, String) {
        (dump(&self.source, &["--no-sync"]), dump(&self.dest, &["--no-sync"]))
    }
}

pub(super) fn position(text: &str) -> Position {
    Position::parse(text).expect("a position")
}

pub(super) fn batch(from: &str, to: &str, payload: Bytes) -> LogBatch {
    LogBatch { from: position(from), to: position(to), payload, transactions: 1, seen_ms: 0 }
}

pub(super) fn dump(cluster: &Cluster, arguments: &[&str]) -> String {
    let out = Command::new(cluster.setup().pg_dump)
        .args(["-h", "127.0.0.1", "-U", "postgres", "--encoding=UTF8", "--quote-all-identifiers", "-p"])
        .arg(cluster.port().to_string())
        .args(arguments)
        .arg(DATABASE)
        .output()
        .expect("run pg_dump");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    let secret = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    text.lines().filter(secret).map(|line| format!("{line}\n")).collect()
}

/// The entries of a section.
fn entries(cluster: &Cluster, section: &str) -> (String, Vec<Entry>) {
    let text = dump(cluster, &["-s", "-v", section]);
    let mut pieces = text.split("\n--\n-- TOC entry ");
    let preamble = pieces.next().expect("a preamble").to_owned();
    let entries = pieces.map(|piece| {
        let (head, sql) = piece.split_once("\n--\n").expect("a head");
        let id = head.split_once(' ').expect("an id").0.parse().expect("a number");
        let name_line = head.lines().find(|line| line.starts_with("-- Name: ")).expect("a name line");
        let (name, rest) = name_line["-- Name: ".len()..].rsplit_once("; Type: ").expect("a type");
        let kind = rest.split_once("; Schema: ").expect("a schema").0.to_owned();
        let sql = sql.split("\n-- Completed on").next().unwrap_or_default().to_owned();
        let last = kind == "EVENT TRIGGER" || sql.contains("ENABLE ALWAYS") || sql.contains("ENABLE REPLICA");
        Entry { id, kind, name: name.to_owned(), sql, last, ..Entry::default() }
    });
    (preamble, entries.collect())
}

pub(super) async fn seed(cluster: &Cluster, generation: u64) -> Seed {
    let (preamble, pre) = entries(cluster, "--section=pre-data");
    let (_, post) = entries(cluster, "--section=post-data");
    let sql = cluster.sql(DATABASE).await;
    let populated = sql
        .query("SELECT schemaname::text, matviewname::text FROM pg_matviews WHERE ispopulated ORDER BY 2", &[])
        .await
        .expect("list views");
    let populated = populated.iter().map(|row| (row.get(0), row.get(1))).collect();
    let schema = payload::encode(&Schema { preamble, dropped: vec![], pre, post, populated }).expect("encode");
    let tables = tables(&sql).await;
    let mut chunks = vec![cut(&schema, 50_000)];
    let mut kinds = vec![PartKind::Schema];
    let mut wire = Wire::connect(&cluster.config(), DATABASE, "test", false).await.expect("connect");
    for (at, table) in tables.iter().enumerate() {
        // Two parts a table, so that one of them is often empty.
        for (first, end) in [(0, Some(3)), (3, None)] {
            kinds.push(PartKind::Rows { table: at as u32, first, end });
            chunks.push(rows(&mut wire, table, first, end).await);
        }
    }
    kinds.push(PartKind::LargeObjects);
    chunks.push(vec![large_objects(&sql).await]);
    let parts = (0..kinds.len() as u32).map(|part| Part { part, object: String::new(), bytes: 1 }).collect();
    let header = PlanHeader {
        format: FORMAT,
        tables,
        parts: kinds,
        database: properties(&sql).await,
        server_version: 150_000,
        roles: vec![],
    };
    let plan = Plan {
        generation,
        parts,
        verify: false,
        log_start: position("0/100"),
        log_resume: position("0/100"),
        header: payload::encode(&header).expect("encode"),
    };
    Seed { plan, chunks }
}

fn cut(bytes: &Bytes, max: usize) -> Vec<Bytes> {
    (0..bytes.len()).step_by(max).map(|at| bytes.slice(at..bytes.len().min(at + max))).collect()
}

async fn tables(sql: &Sql) -> Vec<Table> {
    let list =
        "SELECT n.nspname::text, c.relname::text, (SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
             WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '')
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
         ORDER BY 1, 2";
    let rows = sql.query(list, &[]).await.expect("list tables");
    let table = |row: &tokio_postgres::Row| {
        let columns: Option<Vec<String>> = row.get(2);
        let columns = columns.unwrap_or_default();
        // Binary where nothing holds an OID.
        let binary =
            !columns.iter().any(|column| matches!(column.as_str(), "ea" | "aa" | "o" | "a" | "p" | "doms" | "geo"));
        Table { schema: row.get(0), name: row.get(1), columns, binary }
    };
    rows.iter().map(table).collect()
}

async fn rows(wire: &mut Wire, table: &Table, first: u32, end: Option<u32>) -> Vec<Bytes> {
    let columns: Vec<String> = table.columns.iter().map(|column| crate::postgres::sql::ident(column)).collect();
    let end = end.map(|end| format!(" AND ctid < '({end},0)'")).unwrap_or_default();
    let query = format!(
        "COPY (SELECT {} FROM ONLY {} WHERE ctid >= '({first},0)'{end}) TO STDOUT{}",
        columns.join(", "),
        qualified(&table.schema, &table.name),
        if table.binary { " WITH (FORMAT binary)" } else { "" }
    );
    wire.copy_out("read rows", &query).await.expect("copy");
    let mut chunks = vec![];
    loop {
        let chunk = wire.copy_chunk(8_000).await.expect("chunk");
        chunks.push(chunk.payload);
        if chunk.last {
            return chunks;
        }
    }
}

async fn large_objects(sql: &Sql) -> Bytes {
    use payload::large_objects::{Record, put};
    let mut buffer = bytes::BytesMut::new();
    let list = "SELECT oid, lomowner::regrole::text, lomacl::text FROM pg_largeobject_metadata ORDER BY oid";
    for row in sql.query(list, &[]).await.expect("list") {
        let oid: u32 = row.get(0);
        let mut statements = format!("ALTER LARGE OBJECT {oid} OWNER TO {};", row.get::<_, String>(1));
        if row.get::<_, Option<String>>(2).is_some_and(|acl| acl.contains("app_reader")) {
            statements += &format!(
                "GRANT SELECT, UPDATE ON LARGE OBJECT {oid} TO app_reader; COMMENT ON LARGE OBJECT {oid} IS 'it''s large'"
            );
        }
        put(&mut buffer, &Record::Object { oid, statements });
        let data: Vec<u8> = sql.query_one("SELECT lo_get($1)", &[&oid]).await.expect("read").get(0);
        for (at, piece) in data.chunks(70_000).enumerate() {
            put(&mut buffer, &Record::Piece { oid, offset: at as u64 * 70_000, data: Bytes::copy_from_slice(piece) });
        }
    }
    buffer.freeze()
}

async fn properties(sql: &Sql) -> DatabaseProperties {
    let row = sql
        .query_one(
            "SELECT datdba::regrole::text, pg_encoding_to_char(encoding)::text, datcollate, datctype, datconnlimit FROM pg_database
             WHERE datname = current_database()",
            &[],
        )
        .await
        .expect("read the database");
    let statements = [
        format!("COMMENT ON DATABASE {DATABASE} IS 'everything, it''s \"all\"'"),
        format!("ALTER DATABASE {DATABASE} SET default_transaction_read_only = on"),
        format!("GRANT CREATE ON DATABASE {DATABASE} TO app_reader"),
    ];
    DatabaseProperties {
        owner: row.get(0),
        locale: Locale {
            encoding: row.get(1),
            collate: row.get(2),
            ctype: row.get(3),
            provider: "c".to_owned(),
            icu_locale: None,
        },
        tablespace: None,
        connection_limit: row.get(4),
        statements: statements.into(),
    }
}

/// What the log does not carry, as batches that follow `at`.
pub(super) async fn extras(cluster: &Cluster, at: &str) -> Vec<LogBatch> {
    use payload::{Extra, LogPayload, Sequence};
    let sql = cluster.sql(DATABASE).await;
    let mut payloads = vec![];
    let columns = vec!["k".to_owned(), "v".to_owned()];
    let table = Table { schema: "shop".to_owned(), name: "cache".to_owned(), columns, binary: true };
    let mut wire = Wire::connect(&cluster.config(), DATABASE, "test", false).await.expect("connect");
    for (at, chunk) in rows(&mut wire, &table, 0, None).await.into_iter().enumerate() {
        let extra = Extra::Unlogged { table: table.clone(), first: at == 0 };
        payloads.push(LogPayload::extra(&extra, &chunk).expect("encode"));
    }
    let oids = sql.query("SELECT oid FROM pg_largeobject_metadata", &[]).await.expect("list");
    let oids = oids.iter().map(|row| row.get(0)).collect();
    payloads.push(LogPayload::extra(&Extra::LargeObjectList(oids), b"").expect("encode"));
    let list = "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE relkind = 'S'";
    let mut sequences = vec![];
    for row in sql.query(list, &[]).await.expect("list") {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        let read = format!("SELECT last_value, is_called FROM {}", qualified(&schema, &name));
        let row = sql.query_one(&read, &[]).await.expect("read");
        sequences.push(Sequence { schema, name, last_value: row.get(0), is_called: row.get(1) });
    }
    payloads.push(LogPayload::extra(&Extra::Sequences(sequences), b"").expect("encode"));
    let lines = crate::postgres::catalog::lines(&sql).await.expect("read the catalog");
    payloads.push(LogPayload::extra(&Extra::Catalog(lines), b"").expect("encode"));
    let last = payloads.len() - 1;
    let name = |index: usize| match index {
        0 => at.to_owned(),
        _ if index > last => format!("{at}+end"),
        _ => format!("{at}+{}", (1_u64 << 48) + index as u64),
    };
    payloads.into_iter().enumerate().map(|(index, payload)| batch(&name(index), &name(index + 1), payload)).collect()
}

/// The log of a statement that is run at the source, which has a publication `p`.
pub(super) struct Change {
    pub(super) payload: Bytes,
    /// Where it ends.
    pub(super) to: String,
}

pub(super) async fn change(rig: &Rig, statement: &str) -> Change {
    let make = "SELECT lsn FROM pg_create_logical_replication_slot('test', 'pgoutput', true)";
    rig.source.value(DATABASE, &make.replace(", true", "")).await;
    let start = Point::at(rig.source.value("postgres", "SELECT pg_current_wal_lsn()").await.parse().expect("an LSN"));
    let reader = LogReader::start(&rig.source.config(), DATABASE, "test", "p", start.lsn, true).await.expect("start");
    rig.source.run(DATABASE, statement).await;
    let mut at = start;
    let change = loop {
        let batch = reader.batch(at, 1 << 20, None).await.expect("read log");
        at = batch.to;
        if batch.transactions > 0 {
            break Change { payload: batch.payload, to: batch.to.position().as_str().to_owned() };
        }
    };
    reader.stop().await;
    rig.source.run(DATABASE, "SELECT pg_drop_replication_slot('test')").await;
    change
}
