//! Sessions that are used again.

use super::super::{config::PostgresConfig, sql::Sql};
use crate::Result;
use std::sync::{Mutex, PoisonError};

/// More than these are not kept: a session that nobody uses costs the server memory.
const IDLE_MAX: usize = 4;

/// Sessions of one purpose with one database.
///
/// One is taken, and given back when all went well; after an error, or when the call is dropped in the middle, it is closed,
/// which rolls back whatever it had begun.
pub(super) struct Sessions {
    config: PostgresConfig,
    database: String,
    purpose: &'static str,
    /// What each of them runs first.
    prepare: String,
    idle: Mutex<Vec<Sql>>,
}

impl Sessions {
    pub(super) fn new(config: &PostgresConfig, database: &str, purpose: &'static str, prepare: String) -> Self {
        let (config, database) = (config.clone(), database.to_owned());
        Self { config, database, purpose, prepare, idle: Mutex::default() }
    }

    /// A session, made if there is none.
    pub(super) async fn take(&self) -> Result<Sql> {
        while let Some(sql) = self.pop() {
            if !sql.is_closed() {
                return Ok(sql);
            }
        }
        self.connect().await
    }

    /// A session of one's own.
    pub(super) async fn connect(&self) -> Result<Sql> {
        let sql = Sql::connect(&self.config, &self.database, self.purpose).await?;
        if !self.prepare.is_empty() {
            sql.run("prepare a session", &self.prepare).await?;
        }
        Ok(sql)
    }

    /// Keeps a session for the next one.
    pub(super) fn give_back(&self, sql: Sql) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(sql);
        }
    }

    /// Closes those that nobody uses.
    pub(super) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn pop(&self) -> Option<Sql> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}
