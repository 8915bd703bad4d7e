//! The end of a seed: everything that follows the data, on several sessions at once.

use super::{
    super::{
        payload::Entry,
        sql::{Sql, failed},
    },
    entries,
    live::Live,
    order::{self, Queue, Task},
};
use crate::{Error, Result, postgres::apply};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, task::JoinSet};

/// Sorting memory of one index build: more gains little, and several run at once.
const SORT_BYTES_MIN: i64 = 256 << 20;
const SORT_BYTES_MAX: i64 = 1 << 30;
/// How often progress is told.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What workers share.
struct Shared {
    queue: Mutex<Queue>,
    changed: Notify,
    total: usize,
    said: Mutex<Instant>,
}

impl Live {
    /// Builds what follows the data; fails with [`Error::Gap`] if data are missing.
    pub(super) async fn seed_done(self: &Arc<Self>) -> Result<()> {
        let _building = self.building.lock().await;
        if self.seeded() {
            return Ok(());
        }
        if let Some(part) = self.missing_part() {
            return Err(Error::Gap { expected: format!("part {part}"), got: "the end of the seed".to_owned() });
        }
        self.unless_interrupted(self.build()).await
    }

    async fn build(self: &Arc<Self>) -> Result<()> {
        let schema = self.schema().await?;
        // The sessions that loaded are of no use any more, and one that was lost may still hold a lock.
        self.loads.clear();
        let sql = self.session("dest build", &schema.preamble).await?;
        self.end_older_builds(&sql).await?;
        let done = entries::done(&sql).await?;
        let began = Instant::now();
        let post: Vec<Entry> = split_last(&schema.post).0.into_iter().cloned().collect();
        let queue = Queue::new(post, &done);
        let left = queue.left();
        let shared = Arc::new(Shared {
            total: left,
            queue: Mutex::new(queue),
            changed: Notify::new(),
            said: Mutex::new(Instant::now()),
        });
        self.work(&shared, &schema.preamble, &sql).await?;
        tracing::info!(operation = %self.operation, entries = left, took_ms = began.elapsed().as_millis(), "built indexes and the rest of the schema");
        apply::helpers::create(&sql).await?;
        self.refresh_all(&sql, &schema.populated).await?;
        let end = "UPDATE causeway.replica SET seeded = true; SET LOCAL synchronous_commit = on";
        let committed = self.snapshot();
        self.transact_in(&sql, "end the seed", end).await?;
        self.survives(committed);
        self.set_seeded();
        tracing::info!(operation = %self.operation, took_ms = began.elapsed().as_millis(), "the seed is whole");
        self.analyze_behind();
        Ok(())
    }

    async fn work(self: &Arc<Self>, shared: &Arc<Shared>, preamble: &str, sql: &Sql) -> Result<()> {
        let workers = self.shared.config.apply_connections();
        let settings = format!("{preamble}\n; {}", settings(sql, workers).await?);
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let (live, shared, settings) = (self.clone(), shared.clone(), settings.clone());
            tasks.spawn(async move { worker(&live, &shared, &settings).await });
        }
        // The first error ends the others: dropping the set drops their sessions.
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| Error::Internal(format!("a worker that builds indexes ended: {error}")))??;
        }
        Ok(())
    }

    /// Ends sessions that build for a call before this one, which was dropped: the server does not notice while it builds.
    async fn end_older_builds(&self, sql: &Sql) -> Result<()> {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
             AND application_name = current_setting('application_name') AND pid <> pg_backend_pid()";
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            let left =
                sql.query(end, &[]).await.map_err(|error| failed("end index builds of an earlier try", &error))?;
            if left.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(Error::Busy("index builds of an earlier try do not end".to_owned()))
    }
}

/// Entries of the end of the seed, and those that wait for the end of the log.
///
/// A publication waits too: while it is there, updates of a table without replica identity would be refused. So does a rule
/// that fires for replicated changes, and what is said about something that waits.
pub(super) fn split_last(post: &[Entry]) -> (Vec<&Entry>, Vec<&Entry>) {
    let fires = |entry: &Entry| {
        entry.kind == "RULE"
            && ["ENABLE ALWAYS RULE", "ENABLE REPLICA RULE"].iter().any(|words| entry.sql.contains(words))
    };
    let waits = |entry: &Entry| {
        entry.last || fires(entry) || entry.kind.starts_with("PUBLICATION") || entry.kind == "EVENT TRIGGER"
    };
    let mut ids: HashSet<u32> = post.iter().filter(|entry| waits(entry)).map(|entry| entry.id).collect();
    let names: HashSet<(&str, String)> =
        post.iter().filter(|entry| ids.contains(&entry.id)).filter_map(named).collect();
    for entry in post {
        let about = match entry.kind.as_str() {
            "COMMENT" | "SECURITY LABEL" => subject(&entry.sql),
            _ => None,
        };
        let about = about.is_some_and(|(kind, name)| {
            matches!(kind.as_str(), "PUBLICATION" | "EVENT") || names.contains(&(kind.as_str(), name))
        });
        if about || entry.needs.iter().any(|id| ids.contains(id)) {
            ids.insert(entry.id);
        }
    }
    post.iter().partition(|entry| !ids.contains(&entry.id))
}

/// The kind and the name of a trigger or rule.
fn named(entry: &Entry) -> Option<(&str, String)> {
    let words = order::words(&entry.sql);
    let at = words.iter().position(|word| *word == entry.kind)?;
    Some((entry.kind.as_str(), words.get(at + 1)?.clone()))
}

/// What a comment or label is about: the word after `ON`, and the name after it.
fn subject(sql: &str) -> Option<(String, String)> {
    let words = order::words(sql);
    let at = words.iter().position(|word| word == "ON")?;
    Some((words.get(at + 1)?.clone(), words.get(at + 2)?.clone()))
}

async fn settings(sql: &Sql, workers: usize) -> Result<String> {
    let read = "SELECT pg_size_bytes(current_setting('shared_buffers')), pg_size_bytes(current_setting('maintenance_work_mem')),
         current_setting('server_version_num')::int, current_setting('max_parallel_maintenance_workers')::int";
    let row = sql.query_one(read, &[]).await.map_err(|error| failed("read the server's settings", &error))?;
    // The machine's memory cannot be asked for; what the server was given of it can.
    let share = row.get::<_, i64>(0) / (2 * i64::try_from(workers).unwrap_or(1).max(1));
    let sort = share.clamp(SORT_BYTES_MIN, SORT_BYTES_MAX).max(row.get(1));
    let helpers = row.get::<_, i32>(3).max(i32::try_from(workers).unwrap_or(2));
    let mut settings =
        format!("SET maintenance_work_mem = '{}kB'; SET max_parallel_maintenance_workers = {helpers}", sort >> 10);
    if row.get::<_, i32>(2) >= 140_000 {
        // Otherwise a build goes on for hours for an agent that is no more.
        settings += "; SET client_connection_check_interval = '2s'";
    }
    Ok(settings)
}

async fn worker(live: &Live, shared: &Shared, settings: &str) -> Result<()> {
    let mut session = None;
    loop {
        // Before the look, so that no change between the two is missed.
        let changed = shared.changed.notified();
        let (task, left) = {
            let mut queue = shared.queue();
            if queue.is_done() {
                return Ok(());
            }
            (queue.take(), queue.left())
        };
        let Some(task) = task else {
            changed.await;
            continue;
        };
        shared.say(live, left);
        let sql = match session.take() {
            Some(sql) => sql,
            None => live.session("dest build", settings).await?,
        };
        session = Some(run(live, shared, sql, &task).await?);
        shared.queue().finished(&task);
        shared.changed.notify_waiters();
    }
}

async fn run(live: &Live, shared: &Shared, sql: Sql, task: &Task) -> Result<Sql> {
    let places = match task {
        Task::Heavy(at) => std::slice::from_ref(at),
        Task::Light(places) => places,
    };
    let chosen: Vec<Entry> = places.iter().map(|at| shared.queue().entry(*at).clone()).collect();
    let chosen: Vec<&Entry> = chosen.iter().collect();
    entries::run_batch(live, sql, &chosen).await
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, live: &Live, left: usize) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() >= SAY_EVERY {
            *said = Instant::now();
            tracing::info!(operation = %live.operation, left, total = self.total, "building indexes and the rest of the schema");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fires_for_the_log_waits_for_its_end() {
        let entry = |id, kind: &str, sql: &str, last, needs: &[u32]| Entry {
            id,
            kind: kind.to_owned(),
            sql: sql.to_owned(),
            last,
            needs: needs.to_vec(),
            ..Entry::default()
        };
        let post = [
            entry(1, "TRIGGER", "", false, &[]),
            entry(2, "TRIGGER", "CREATE TRIGGER \"a b\" AFTER INSERT ON s.t;", true, &[]),
            entry(3, "COMMENT", "COMMENT ON TRIGGER \"a b\" ON s.t IS 'x';", false, &[]),
            entry(4, "PUBLICATION", "", false, &[]),
            entry(5, "PUBLICATION TABLE", "", false, &[4]),
            entry(6, "RULE", "CREATE RULE r; ALTER TABLE s.t ENABLE ALWAYS RULE r;", false, &[]),
            entry(7, "RULE", "CREATE RULE r2;", false, &[]),
            entry(8, "COMMENT", "COMMENT ON TRIGGER other ON s.t IS 'x';", false, &[]),
            entry(9, "COMMENT", "COMMENT ON EVENT TRIGGER e IS 'x';", false, &[]),
        ];
        let (now, last) = split_last(&post);
        let ids = |entries: Vec<&Entry>| entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!(ids(now), [1, 7, 8]);
        assert_eq!(ids(last), [2, 3, 4, 5, 6, 9]);
    }
}
