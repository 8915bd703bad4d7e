//! Plan, chunks and the end of the seed.

use super::fixture::{self, DATABASE, EVERYTHING, Rig, Seed, agent, extras, position, rig, seed};
use crate::{
    Error, Result,
    dest::{DestEngine as _, DestReplica},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;

/// Loads, ends, compares: what every case ends with.
async fn whole(rig: &mut Rig, seed: &Seed) {
    let replica = rig.open().await;
    rig.load(&*replica, seed).await;
    replica.sync().await.expect("sync");
    replica.seed_done().await.expect("the seed is whole");
    flip_and_compare(rig, &*replica).await;
}

async fn flip_and_compare(rig: &mut Rig, replica: &dyn DestReplica) {
    for batch in extras(&rig.source, "0/100").await {
        replica.log(batch).await.expect("take an extra");
    }
    let end = position("0/100+end");
    replica.prepare_marker(&end).await.expect("prepare");
    rig.promote(&end).await;
    rig.engine.finish(&rig.role).await.expect("finish");
    let (source, dest) = rig.dumps();
    similar(&source, &dest);
}

/// Two dumps that differ say where; rows have no order.
fn similar(source: &str, dest: &str) {
    let (a, b) = (sorted_rows(source), sorted_rows(dest));
    let first = a.iter().zip(&b).position(|(a, b)| a != b);
    if let Some(at) = first {
        let show = |lines: &[&str]| {
            let lines = lines[at.saturating_sub(5)..(at + 5).min(lines.len())].iter();
            lines.map(|line| line.chars().take(200).collect::<String>()).collect::<Vec<_>>().join("\n")
        };
        panic!("they differ at line {at}:\n{}\n---\n{}", show(&a), show(&b));
    }
    assert_eq!(a.len(), b.len());
}

fn sorted_rows(dump: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = dump.lines().collect();
    let mut from = None;
    for at in 0..lines.len() {
        match from {
            None if lines[at].starts_with("COPY ") && lines[at].ends_with("FROM stdin;") => from = Some(at + 1),
            Some(start) if lines[at] == "\\." => {
                lines[start..at].sort_unstable();
                from = None;
            }
            _ => {}
        }
    }
    lines
}

/// A small database, where the case is not about kinds of objects.
const SMALL: &str = "CREATE SCHEMA shop; CREATE UNLOGGED TABLE shop.cache (k text PRIMARY KEY, v jsonb);
    CREATE TABLE shop.items (id integer PRIMARY KEY, v text UNIQUE);
    INSERT INTO shop.items SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 3000) n;
    CREATE TABLE shop.parts (id serial PRIMARY KEY, item integer REFERENCES shop.items);
    INSERT INTO shop.parts (item) SELECT n FROM generate_series(1, 500) n; CREATE INDEX parts_item ON shop.parts (item);
    CREATE MATERIALIZED VIEW shop.sums AS SELECT count(*) FROM shop.items";

/// One of every kind of object arrives, as `pg_dump` shows it, and the database gets its limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_copied() {
    let mut rig = rig(EVERYTHING).await;
    let seed = seed(&rig.source, 1).await;
    whole(&mut rig, &seed).await;
    let limit = format!("SELECT datconnlimit FROM pg_database WHERE datname = '{DATABASE}'");
    assert_eq!(rig.dest.value("postgres", &limit).await, "33");
    let ours = "SELECT count(*) FROM pg_namespace WHERE nspname = 'causeway'";
    assert_eq!(rig.dest.value(DATABASE, ours).await, "0");
    let bare = "SELECT count(*) FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'shop'::regnamespace AND pg_relation_size(oid) > 0
         AND relnatts > 0 AND NOT EXISTS (SELECT FROM pg_statistic WHERE starelid = c.oid)";
    assert_eq!(rig.dest.value(DATABASE, bare).await, "0", "every table has statistics");
}

/// The agent is killed after every part; each time what was synced is held, and nothing comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_after_each_part_goes_on() {
    let mut rig = rig(SMALL).await;
    let seed = seed(&rig.source, 1).await;
    for part in 0..seed.chunks.len() {
        let replica = rig.open().await;
        replica.plan(&seed.plan).await.expect("the same plan again");
        let held = replica.durable().await.expect("held").held;
        assert!(held.parts[..part].iter().all(|held| held.done), "{held:?}");
        // Half of the part first, which is lost with the agent unless it is of the schema.
        if seed.chunks[part].len() > 1 {
            let chunk = seed.chunks[part][0].clone();
            replica.chunk(part as u32, 0, chunk.clone(), chunk.len() as u64, false).await.expect("chunk");
            rig.restart().await;
            let replica = rig.open().await;
            let durable = replica.durable().await.expect("held").held.parts[part].durable;
            assert_eq!(durable, if part == 0 { chunk.len() as u64 } else { 0 });
            rig.load_part(&*replica, &seed, part).await;
            replica.sync().await.expect("sync");
        } else {
            rig.load_part(&*replica, &seed, part).await;
            replica.sync().await.expect("sync");
        }
        rig.restart().await;
    }
    whole(&mut rig, &seed).await;
}

/// The server is killed in the middle of a part and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_in_a_part_goes_on() {
    let mut rig = rig(SMALL).await;
    let seed = seed(&rig.source, 1).await;
    let big = (0..seed.chunks.len()).max_by_key(|part| seed.chunks[*part].len()).expect("there are parts");
    assert!(big > 0 && seed.chunks[big].len() > 5);
    let replica = rig.open().await;
    replica.plan(&seed.plan).await.expect("plan");
    rig.load_part(&*replica, &seed, 0).await;
    let mut offset = 0;
    for chunk in &seed.chunks[big][..3] {
        let next = offset + chunk.len() as u64;
        replica.chunk(big as u32, offset, chunk.clone(), next, false).await.expect("chunk");
        offset = next;
    }
    rig.dest.crash();
    rig.dest.up();
    let mut failed = None;
    for (at, chunk) in seed.chunks[big].iter().enumerate().skip(3) {
        let next = offset + chunk.len() as u64;
        failed = replica.chunk(big as u32, offset, chunk.clone(), next, at + 1 == seed.chunks[big].len()).await.err();
        if failed.is_some() {
            break;
        }
        offset = next;
    }
    let error = failed.expect("the session is gone");
    assert!(error.retryable(), "{error}");
    // The lane begins anew; the very same replica goes on.
    assert_eq!(replica.durable().await.expect("held").held.parts[big].durable, 0);
    rig.load(&*replica, &seed).await;
    replica.sync().await.expect("sync");
    replica.seed_done().await.expect("the seed is whole");
    flip_and_compare(&mut rig, &*replica).await;
}

/// A destination that is in the middle of its builds: one index takes seconds.
async fn building() -> (Rig, Arc<dyn DestReplica>, JoinHandle<Result<()>>) {
    let rig = rig(SMALL).await;
    let slow = "CREATE FUNCTION shop.slow(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
        'BEGIN PERFORM pg_sleep(0.002); RETURN $1; END'; CREATE INDEX slow ON shop.items (shop.slow(id))";
    rig.source.run(DATABASE, slow).await;
    let seed = seed(&rig.source, 1).await;
    let replica = rig.open().await;
    rig.load(&*replica, &seed).await;
    let building = tokio::spawn({
        let replica = replica.clone();
        async move { replica.seed_done().await }
    });
    let under_way = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%INDEX%slow%' AND application_name = 'causeway dest build'";
    while rig.dest.value("postgres", under_way).await == "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (rig, replica, building)
}

/// The server is killed while indexes are built; what was built stays, the rest follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_in_an_index_build_goes_on() {
    let (mut rig, _, building) = building().await;
    let made = "SELECT count(*) FROM causeway.entry";
    let before: u32 = rig.dest.value(DATABASE, made).await.parse().expect("a number");
    rig.dest.crash();
    let error = building.await.expect("no panic").expect_err("the server is gone");
    assert!(error.retryable(), "{error}");
    rig.dest.up();
    let after: u32 = rig.dest.value(DATABASE, made).await.parse().expect("a number");
    assert!(after >= before);
    rig.restart().await;
    let replica = rig.open().await;
    assert!(!replica.durable().await.expect("held").held.seeded);
    replica.seed_done().await.expect("the seed is whole now");
    flip_and_compare(&mut rig, &*replica).await;
}

/// An agent that builds indexes is killed; its server sessions, which do not know, do not hinder the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_can_be_interrupted_and_repeated() {
    let (mut rig, replica, building) = building().await;
    replica.interrupt().await;
    let error = tokio::time::timeout(Duration::from_secs(1), building).await.expect("it ends soon").expect("no panic");
    assert!(error.expect_err("interrupted").retryable());
    let replica = rig.open().await;
    replica.seed_done().await.expect("the seed is whole");
    flip_and_compare(&mut rig, &*replica).await;
}

/// Holes are refused, what is held is skipped, and a part that begins anew replaces what came of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_are_taken_in_order() {
    let mut rig = rig(SMALL).await;
    let seed = seed(&rig.source, 1).await;
    let big = (1..seed.chunks.len()).max_by_key(|part| seed.chunks[*part].len()).expect("there are parts");
    let chunks = &seed.chunks[big];
    let part = big as u32;
    let len = |at: usize| chunks[..at].iter().map(|chunk| chunk.len() as u64).sum::<u64>();
    let replica = rig.open().await;
    assert!(replica.chunk(0, 0, Bytes::new(), 0, true).await.is_err(), "there is no plan yet");
    replica.plan(&seed.plan).await.expect("plan");
    let schema = &seed.chunks[0];
    let hole = replica.chunk(0, 50, schema[0].clone(), 50 + schema[0].len() as u64, false).await;
    assert!(matches!(hole, Err(Error::Gap { .. })));
    let waits = tokio::spawn({
        let (replica, chunk) = (replica.clone(), chunks[0].clone());
        async move { replica.chunk(part, 0, chunk.clone(), chunk.len() as u64, false).await }
    });
    rig.load_part(&*replica, &seed, 0).await;
    waits.await.expect("no panic").expect("rows wait for the schema");
    replica.chunk(part, 0, chunks[0].clone(), len(1), false).await.expect("again from the start");
    let hole = replica.chunk(part, len(2), chunks[2].clone(), len(3), false).await;
    assert!(matches!(hole, Err(Error::Gap { .. })));
    replica.chunk(part, len(1), chunks[1].clone(), len(2), false).await.expect("the next");
    replica.chunk(part, len(1), chunks[1].clone(), len(2), false).await.expect("once more");
    assert!(matches!(replica.seed_done().await, Err(Error::Gap { .. })));
    assert!(replica.chunk(999, 0, Bytes::new(), 1, true).await.is_err(), "no such part");
    whole(&mut rig, &seed).await;
}

/// More parts begun than are loaded at a time: the oldest goes, and comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_parts_do_not_block_others() {
    let mut schema = SMALL.to_owned();
    for n in 0..30 {
        schema += &format!("; CREATE TABLE shop.t{n} AS SELECT g, repeat('x', 900) v FROM generate_series(1, 60) g");
    }
    let mut rig = rig(&schema).await;
    let seed = seed(&rig.source, 1).await;
    let replica = rig.open().await;
    replica.plan(&seed.plan).await.expect("plan");
    rig.load_part(&*replica, &seed, 0).await;
    for (part, chunks) in seed.chunks.iter().enumerate().skip(1).filter(|(_, chunks)| chunks.len() > 1) {
        replica.chunk(part as u32, 0, chunks[0].clone(), chunks[0].len() as u64, false).await.expect("begin a part");
    }
    let loading = "SELECT count(*) < 30 FROM pg_stat_activity WHERE application_name = 'causeway dest load'";
    assert_eq!(rig.dest.value("postgres", loading).await, "t");
    whole(&mut rig, &seed).await;
}

/// Another generation starts from nothing, whatever was there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_generation_begins_anew() {
    let mut rig = rig(SMALL).await;
    let first = seed(&rig.source, 1).await;
    let replica = rig.open().await;
    rig.load(&*replica, &first).await;
    replica.sync().await.expect("sync");
    replica.seed_done().await.expect("whole");
    rig.source.run(DATABASE, "DROP TABLE shop.parts; UPDATE shop.items SET v = 'other' || id").await;
    let second = seed(&rig.source, 2).await;
    replica.plan(&second.plan).await.expect("a new plan");
    let held = replica.durable().await.expect("held").held;
    assert_eq!((held.generation, held.seeded), (2, false));
    assert!(held.parts.iter().all(|part| part.durable == 0 && !part.done));
    assert!(replica.plan(&first.plan).await.is_err(), "the generation before is over");
    whole(&mut rig, &second).await;
    assert_eq!(
        rig.dest.value("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'causeway%'").await,
        "0"
    );
}

/// Whoever is asleep while another agent takes over writes nothing when it wakes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superseded_agent_loads_nothing() {
    let mut rig = rig(SMALL).await;
    let seed = seed(&rig.source, 1).await;
    let old = rig.open().await;
    old.plan(&seed.plan).await.expect("plan");
    rig.load_part(&*old, &seed, 0).await;
    let chunk = seed.chunks[1][0].clone();
    let old_engine = rig.engine.clone();
    rig.engine = agent(&rig.dest).await;
    let new = rig.open().await;
    let refused = old.chunk(1, 0, chunk.clone(), chunk.len() as u64, seed.chunks[1].len() == 1).await;
    assert!(matches!(refused, Err(Error::Superseded { .. })) || seed.chunks[1].len() > 1, "{refused:?}");
    assert!(matches!(old.sync().await, Err(Error::Superseded { .. })));
    assert!(matches!(old.plan(&fixture::seed(&rig.source, 2).await.plan).await, Err(Error::Superseded { .. })));
    assert!(matches!(old_engine.discard(&rig.role).await, Err(Error::Superseded { .. })));
    assert!(matches!(old_engine.promote(&rig.role).await, Err(Error::Superseded { .. })));
    assert!(!new.durable().await.expect("held").held.parts[1].done);
    whole(&mut rig, &seed).await;
}
