//! What fires for replicated changes too: restored when all of them are applied, and switched off while there are more.

use super::{
    super::sql::{Sql, failed, ident, literal, qualified},
    build, entries,
    live::Live,
};
use crate::Result;

/// What turns something off that fires for replicated changes, and on again.
struct Switch {
    off: String,
    on: String,
}

impl Live {
    /// Restores what is restored last, so that it fires for clients and did not for the log.
    pub(super) async fn arm(&self, sql: &Sql) -> Result<()> {
        if self.log.armed() {
            return Ok(());
        }
        let schema = self.schema().await?;
        let (_, last) = build::split_last(&schema.post);
        // Autovacuum gives way to a lock only after this time.
        let prepare = format!("{}; SET deadlock_timeout = '10ms'; SET synchronous_commit = off", schema.preamble);
        // Asked together: clients wait.
        let (done, prepared) = tokio::join!(biased; entries::done(sql), sql.run("prepare to end the schema", &prepare));
        let done = done?;
        prepared?;
        for entry in last.iter().filter(|entry| !done.contains(&entry.id)) {
            entries::run(self, sql, entry).await?;
        }
        let switched = "SELECT enable FROM causeway.disarmed ORDER BY enable LIKE 'ALTER EVENT %'";
        let rows = sql.query_typed(switched, &[]).await;
        let rows = rows.map_err(|error| failed("read what was switched off", &error))?;
        let on: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let statements = format!(
            "SET LOCAL synchronous_commit = off; {}; DELETE FROM causeway.disarmed; UPDATE causeway.replica SET armed = true",
            on.join("; ")
        );
        let (armed, reset) = tokio::join!(biased;
            self.transact_in(sql, "switch on what fires always", &statements),
            sql.run("prepare a session", "RESET deadlock_timeout; SET synchronous_commit = on"),
        );
        armed?;
        self.log.set_armed(true);
        reset
    }

    /// Switches off what must not fire for the log, which goes on after a closed attempt.
    pub(super) async fn disarm(&self) -> Result<()> {
        if !self.log.armed() {
            return Ok(());
        }
        let sql = self.sessions.take().await?;
        let switches = switches(&sql).await?;
        let off: Vec<&str> = switches.iter().map(|switch| switch.off.as_str()).collect();
        let on: Vec<String> = switches.iter().map(|switch| format!("({})", literal(&switch.on))).collect();
        let note = match on.is_empty() {
            true => String::new(),
            false => format!("INSERT INTO causeway.disarmed VALUES {}", on.join(", ")),
        };
        let statements = format!("{}; {note}; UPDATE causeway.replica SET armed = false", off.join("; "));
        self.transact_in(&sql, "switch off what fires always", &statements).await?;
        self.sessions.give_back(sql);
        self.log.set_armed(false);
        Ok(())
    }
}

/// All that fires in a session whose `session_replication_role` is `replica`, and publications, which refuse changes.
async fn switches(sql: &Sql) -> Result<Vec<Switch>> {
    let what = "look for what fires always";
    let read = "SELECT 'TRIGGER', n.nspname::text, c.relname::text, t.tgname::text, t.tgenabled::text FROM pg_trigger t
           JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal
         UNION ALL SELECT 'RULE', n.nspname::text, c.relname::text, r.rulename::text, r.ev_enabled::text FROM pg_rewrite r
           JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE r.ev_enabled IN ('A', 'R')
         UNION ALL SELECT 'EVENT', '', '', evtname::text, evtenabled::text FROM pg_event_trigger WHERE evtenabled <> 'D'
         UNION ALL SELECT 'PUBLICATION', '', '', pubname::text, concat_ws(', ', CASE WHEN pubinsert THEN 'insert' END,
             CASE WHEN pubupdate THEN 'update' END, CASE WHEN pubdelete THEN 'delete' END,
             CASE WHEN pubtruncate THEN 'truncate' END) FROM pg_publication";
    let rows = sql.query(read, &[]).await.map_err(|error| failed(what, &error))?;
    let mut switches: Vec<Switch> =
        rows.iter().map(|row| switch(row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect();
    // An event trigger fires for the switching of all others: it goes off first and on last.
    switches.sort_by_key(|switch| !switch.off.starts_with("ALTER EVENT "));
    Ok(switches)
}

fn switch(kind: &str, schema: &str, table: &str, name: &str, state: &str) -> Switch {
    let name = ident(name);
    let enable = match state {
        "A" => "ENABLE ALWAYS",
        "R" => "ENABLE REPLICA",
        _ => "ENABLE",
    };
    match kind {
        "EVENT" => Switch {
            off: format!("ALTER EVENT TRIGGER {name} DISABLE"),
            on: format!("ALTER EVENT TRIGGER {name} {enable}"),
        },
        "PUBLICATION" => Switch {
            off: format!("ALTER PUBLICATION {name} SET (publish = '')"),
            on: format!("ALTER PUBLICATION {name} SET (publish = {})", literal(state)),
        },
        _ => {
            let table = format!("ALTER TABLE ONLY {}", qualified(schema, table));
            Switch { off: format!("{table} DISABLE {kind} {name}"), on: format!("{table} {enable} {kind} {name}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_is_switched_on_as_it_was() {
        let trigger = switch("TRIGGER", "s", "t", "a\"b", "R");
        assert_eq!(trigger.off, r#"ALTER TABLE ONLY "s"."t" DISABLE TRIGGER "a""b""#);
        assert_eq!(trigger.on, r#"ALTER TABLE ONLY "s"."t" ENABLE REPLICA TRIGGER "a""b""#);
        assert_eq!(switch("EVENT", "", "", "e", "O").on, r#"ALTER EVENT TRIGGER "e" ENABLE"#);
        assert!(switch("PUBLICATION", "", "", "p", "insert, update").on.ends_with("SET (publish = 'insert, update')"));
    }
}
