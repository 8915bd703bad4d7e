//! A read-only view of a PostgreSQL database: one snapshot for everything that is read.

use std::cell::RefCell;

use postgres::{Client, fallible_iterator::FallibleIterator as _, types::ToSql};

use super::{connect, content, error};
use crate::driver::{Error, LedgerRow, ListItem, TableHash, View};

/// A snapshot of one database, held until dropped. The role has to see every row, so it is a superuser's or the owner's.
pub struct PostgresView {
    client: RefCell<Client>,
}

impl std::fmt::Debug for PostgresView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresView").finish_non_exhaustive()
    }
}

/// What makes rows look the same whatever server and session prints them.
const SETTINGS: &str = "
    SET DateStyle = ISO; SET IntervalStyle = postgres; SET TimeZone = 'UTC'; SET bytea_output = hex;
    SET extra_float_digits = 3; SET search_path = pg_catalog; SET row_security = off; SET jit = off;
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SELECT 1";

impl PostgresView {
    /// Opens a view of what the database holds now.
    pub fn open(dsn: &str) -> Result<Self, Error> {
        let mut client = connect(dsn)?;
        client.batch_execute(SETTINGS).map_err(error("begin a snapshot"))?;
        Ok(Self { client: RefCell::new(client) })
    }

    /// Everything behind the hashes of definitions, views and settings, a line each: to be looked at when they differ.
    pub fn definitions(&self) -> Result<Vec<String>, Error> {
        content::lines(&mut self.client.borrow_mut())
    }

    fn each(
        &self,
        stage: &'static str,
        sql: &str,
        each: &mut dyn FnMut(&postgres::Row) -> Result<(), postgres::Error>,
    ) -> Result<(), Error> {
        let none: [&(dyn ToSql + Sync); 0] = [];
        let mut client = self.client.borrow_mut();
        let mut read = || {
            let mut rows = client.query_raw(sql, none)?;
            while let Some(row) = rows.next()? {
                each(&row)?;
            }
            Ok(())
        };
        read().map_err(error(stage))
    }
}

impl View for PostgresView {
    fn ledger(&self, each: &mut dyn FnMut(LedgerRow)) -> Result<(), Error> {
        let sql = "SELECT writer, seq, src, dst, amount, note FROM public.ledger ORDER BY writer, seq";
        self.each("read the ledger", sql, &mut |row| {
            let transfer = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
            each(LedgerRow { writer: row.try_get(0)?, seq: row.try_get(1)?, transfer, note: row.try_get(5)? });
            Ok(())
        })
    }

    fn chains(&self) -> Result<Vec<(i64, i64, Vec<u8>)>, Error> {
        let mut chains = Vec::new();
        self.each("read the chains", "SELECT writer, seq, digest FROM public.chain ORDER BY writer", &mut |row| {
            chains.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
            Ok(())
        })?;
        Ok(chains)
    }

    fn balances(&self) -> Result<Vec<(i64, i64)>, Error> {
        let mut balances = Vec::new();
        self.each("read the accounts", "SELECT id, balance FROM public.account ORDER BY id", &mut |row| {
            balances.push((row.try_get(0)?, row.try_get(1)?));
            Ok(())
        })?;
        Ok(balances)
    }

    fn items(&self, each: &mut dyn FnMut(ListItem)) -> Result<(), Error> {
        let sql = "SELECT key, position, writer, seq FROM public.list ORDER BY key, position";
        self.each("read the lists", sql, &mut |row| {
            let (list, position) = (row.try_get(0)?, row.try_get(1)?);
            each(ListItem { list, position, writer: row.try_get(2)?, seq: row.try_get(3)? });
            Ok(())
        })
    }

    fn integrity(&self) -> Result<String, Error> {
        content::integrity(&mut self.client.borrow_mut()).map_err(error("check indexes and constraints"))
    }

    fn content(&self) -> Result<Vec<TableHash>, Error> {
        content::hashes(&mut self.client.borrow_mut())
    }
}
