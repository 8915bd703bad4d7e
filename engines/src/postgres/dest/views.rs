//! Materialized views, which no log carries: refreshed in the order of their dependencies, and again when what they read
//! changed. And statistics, which nothing carries either.

use super::{
    super::sql::{Sql, failed, qualified},
    live::Live,
};
use crate::{Error, Result};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Mutex as AsyncMutex, task::AbortHandle};

/// Schema and name of a table.
type Name = (String, String);

/// What is known of an open replica's materialized views, and what runs behind the log's back.
#[derive(Default)]
pub(super) struct Views {
    state: Mutex<State>,
    /// Held by whoever refreshes.
    refreshing: AsyncMutex<()>,
}

#[derive(Default)]
struct State {
    /// In the order in which they have to be refreshed.
    views: Option<Arc<Vec<View>>>,
    /// Tables that changed since the views that read them were refreshed.
    touched: HashSet<Name>,
    behind: Vec<AbortHandle>,
}

/// A materialized view that is populated at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    name: Name,
    /// All that it reads, also through other views.
    reads: HashSet<Name>,
    /// It calls a function that may read anything.
    always: bool,
}

impl Views {
    /// Tables were changed.
    pub(super) fn touch(&self, tables: impl IntoIterator<Item = Name>) {
        self.state().touched.extend(tables);
    }

    /// Ends what runs behind.
    pub(super) fn stop(&self) {
        for task in self.state().behind.drain(..) {
            task.abort();
        }
    }

    fn behind(&self, task: AbortHandle) {
        let mut state = self.state();
        state.behind.retain(|task| !task.is_finished());
        state.behind.push(task);
    }

    fn is_busy_behind(&self) -> bool {
        self.state().behind.iter().any(|task| !task.is_finished())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Refreshes all views that are populated at the source.
    pub(super) async fn refresh_all(&self, sql: &Sql, populated: &[Name]) -> Result<()> {
        let views = Arc::new(read_views(sql, populated).await?);
        self.views.state().views = Some(views.clone());
        for view in views.iter() {
            refresh(sql, view).await?;
        }
        Ok(())
    }

    /// Refreshes the views whose inputs changed since they were refreshed.
    pub(super) async fn refresh_touched(&self) -> Result<()> {
        let _refreshing = self.views.refreshing.lock().await;
        let views = self.known_views().await?;
        if views.is_empty() {
            return Ok(());
        }
        let touched = std::mem::take(&mut self.views.state().touched);
        let stale = stale(&views, &touched);
        let began = Instant::now();
        let refreshed = async {
            let Some(_) = stale.first() else { return Ok(()) };
            let sql = self.sessions.take().await?;
            for view in &stale {
                refresh(&sql, view).await?;
            }
            self.sessions.give_back(sql);
            tracing::info!(operation = %self.operation, views = stale.len(), took_ms = began.elapsed().as_millis(), "refreshed materialized views");
            Ok(())
        };
        let refreshed = refreshed.await;
        if refreshed.is_err() {
            self.views.touch(touched);
        }
        refreshed
    }

    /// Starts to refresh behind the log's back what changed, so that there is less to do at the marker.
    pub(super) fn refresh_behind(self: &Arc<Self>) {
        if self.views.refreshing.try_lock().is_err() {
            return;
        }
        let live = self.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = live.refresh_touched().await {
                tracing::warn!(operation = %live.operation, %error, "refresh materialized views before the marker");
            }
        });
        self.views.behind(task.abort_handle());
    }

    async fn known_views(&self) -> Result<Arc<Vec<View>>> {
        if let Some(views) = self.views.state().views.clone() {
            return Ok(views);
        }
        let schema = self.schema().await?;
        let sql = self.sessions.take().await?;
        let views = Arc::new(read_views(&sql, &schema.populated).await?);
        self.sessions.give_back(sql);
        let mut state = self.views.state();
        state.views = Some(views.clone());
        // After a restart nobody knows what changed before it.
        state.touched.extend(views.iter().flat_map(|view| view.reads.iter().cloned()));
        Ok(views)
    }

    /// Gathers statistics of tables that have none, behind the log's back.
    pub(super) fn analyze_behind(self: &Arc<Self>) {
        let live = self.clone();
        let task = tokio::spawn(async move {
            let gathered = async {
                let sql = live.session("dest analyze", "").await?;
                analyze(&sql, Duration::MAX).await
            };
            match gathered.await {
                Ok(tables) => tracing::debug!(operation = %live.operation, tables, "gathered statistics"),
                Err(error) => tracing::debug!(operation = %live.operation, %error, "gather statistics"),
            }
        });
        self.views.behind(task.abort_handle());
    }

    /// Ends what runs behind, for it may hold locks that the end of the log needs. A refresh is waited for instead.
    pub(super) async fn end_behind(&self, sql: &Sql) -> Result<()> {
        drop(self.views.refreshing.lock().await);
        if self.views.is_busy_behind() {
            self.views.stop();
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'causeway dest analyze'";
            sql.query_typed(end, &[]).await.map_err(|error| failed("end the gathering of statistics", &error))?;
        }
        Ok(())
    }
}

/// Analyzes tables and materialized views without statistics, small ones first; answers how many.
pub(super) async fn analyze(sql: &Sql, time_max: Duration) -> Result<usize> {
    let what = "gather statistics";
    // A partitioned table has statistics of its own, which nobody but ANALYZE gathers; its partitions come first.
    let bare = "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
           AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'causeway')
           AND (c.relkind = 'p' OR pg_relation_size(c.oid) > 0)
           AND NOT EXISTS (SELECT FROM pg_statistic s WHERE s.starelid = c.oid)
         ORDER BY c.relkind = 'p', pg_relation_size(c.oid)";
    let rows = sql.query(bare, &[]).await.map_err(|error| failed(what, &error))?;
    let began = Instant::now();
    let mut count = 0;
    for row in rows {
        if began.elapsed() >= time_max {
            break;
        }
        // One that a client dropped or locked meanwhile is none of our business.
        let analyze = format!("ANALYZE (SKIP_LOCKED) {}", qualified(row.get(0), row.get(1)));
        match sql.run(what, &analyze).await {
            Ok(()) => count += 1,
            Err(error) if sql.is_closed() => return Err(error),
            Err(error) => tracing::debug!(%error, "leave a table without statistics"),
        }
    }
    Ok(count)
}

async fn refresh(sql: &Sql, view: &View) -> Result<()> {
    let name = qualified(&view.name.0, &view.name.1);
    let what = format!("refresh materialized view {name}");
    sql.run(&what, &format!("REFRESH MATERIALIZED VIEW {name}")).await.map_err(|error| match error {
        Error::Database { message, transient: false, .. } => Error::Unsupported {
            code: "MATERIALIZED_VIEW",
            message: format!("materialized view {name} cannot be refreshed at the destination: {message}"),
            remedy: "see that it can be, or empty it at the source with REFRESH ... WITH NO DATA, then start again"
                .to_owned(),
        },
        error => error,
    })
}

/// Those that have to be refreshed after changes of these tables.
fn stale<'a>(views: &'a [View], touched: &HashSet<Name>) -> Vec<&'a View> {
    let mut changed = touched.clone();
    let mut stale = vec![];
    for view in views {
        if view.always || !view.reads.is_disjoint(&changed) {
            changed.insert(view.name.clone());
            stale.push(view);
        }
    }
    stale
}

/// Reads what each materialized view reads, through views, other materialized views, partitions and children.
async fn read_views(sql: &Sql, populated: &[Name]) -> Result<Vec<View>> {
    if populated.is_empty() {
        return Ok(vec![]);
    }
    let closure = "WITH RECURSIVE edge (source, class, target) AS (
             SELECT r.ev_class, d.refclassid, d.refobjid FROM pg_rewrite r
               JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
              WHERE d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass)
             UNION ALL SELECT inhparent, 'pg_class'::regclass, inhrelid FROM pg_inherits
         ), reads (view, class, target) AS (
             SELECT m.oid, e.class, e.target FROM pg_class m JOIN edge e ON e.source = m.oid WHERE m.relkind = 'm'
             UNION SELECT r.view, e.class, e.target FROM reads r
               JOIN edge e ON r.class = 'pg_class'::regclass AND e.source = r.target
         )
         SELECT vn.nspname::text, v.relname::text, cn.nspname::text, c.relname::text, p.oid IS NOT NULL
         FROM reads r JOIN pg_class v ON v.oid = r.view JOIN pg_namespace vn ON vn.oid = v.relnamespace
         LEFT JOIN pg_class c ON r.class = 'pg_class'::regclass AND c.oid = r.target
         LEFT JOIN pg_namespace cn ON cn.oid = c.relnamespace
         LEFT JOIN pg_proc p ON r.class = 'pg_proc'::regclass AND p.oid = r.target AND p.provolatile <> 'i'
         WHERE r.target <> r.view";
    let rows = sql.query(closure, &[]).await;
    let rows = rows.map_err(|error| failed("read what materialized views depend on", &error))?;
    let mut views: Vec<View> =
        populated.iter().map(|name| View { name: name.clone(), reads: HashSet::new(), always: false }).collect();
    for row in rows {
        let name: Name = (row.get(0), row.get(1));
        let Some(view) = views.iter_mut().find(|view| view.name == name) else { continue };
        view.always |= row.get::<_, bool>(4);
        if let (Some(schema), Some(name)) = (row.get(2), row.get(3)) {
            view.reads.insert((schema, name));
        }
    }
    // What a view reads is closed: one that reads another reads more than that one.
    let ordered: HashSet<Name> = views.iter().map(|view| view.name.clone()).collect();
    views.sort_by_key(|view| view.reads.intersection(&ordered).count());
    Ok(views)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        ("s".to_owned(), text.to_owned())
    }

    #[test]
    fn a_change_goes_through_views_on_views() {
        let view = |own: &str, reads: &[&str], always| View {
            name: name(own),
            reads: reads.iter().map(|text| name(text)).collect(),
            always,
        };
        let views =
            [view("a", &["t"], false), view("b", &["u"], false), view("c", &["a", "t"], false), view("d", &[], true)];
        let names = |touched: &[&str]| {
            let touched = touched.iter().map(|text| name(text)).collect();
            stale(&views, &touched).iter().map(|view| view.name.1.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&["t"]), ["a", "c", "d"]);
        assert_eq!(names(&["u"]), ["b", "d"]);
        assert_eq!(names(&[]), ["d"]);
    }
}
