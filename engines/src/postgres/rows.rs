//! Answers as text, whatever the types: what is asked of the catalogs is short, and has types that the driver does not know.

use super::sql::failed;
use crate::{Error, Result};
use std::str::FromStr;
use tokio_postgres::{Client, SimpleQueryMessage};

/// One row of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row(Vec<Option<String>>);

impl Row {
    /// A row as [`super::wire`] gives it.
    pub(crate) fn new(columns: Vec<Option<String>>) -> Self {
        Self(columns)
    }

    /// A column, nothing for NULL.
    pub(crate) fn maybe(&self, column: usize) -> Option<&str> {
        self.0.get(column).and_then(Option::as_deref)
    }

    /// A column, empty for NULL.
    pub(crate) fn text(&self, column: usize) -> &str {
        self.maybe(column).unwrap_or_default()
    }

    /// A column, empty for NULL.
    pub(crate) fn owned(&self, column: usize) -> String {
        self.text(column).to_owned()
    }

    /// A boolean column, false for NULL.
    pub(crate) fn flag(&self, column: usize) -> bool {
        self.text(column) == "t"
    }

    /// A column that is a number, an LSN or the like.
    pub(crate) fn parse<T: FromStr>(&self, column: usize) -> Result<T> {
        let bad = || Error::Internal(format!("column {column} of an answer is not what it should be"));
        self.text(column).parse().map_err(|_| bad())
    }

    /// A column that is an array of text, built with `to_json`.
    pub(crate) fn list(&self, column: usize) -> Result<Vec<String>> {
        match self.maybe(column) {
            None => Ok(vec![]),
            Some(json) => serde_json::from_str(json)
                .map_err(|_| Error::Internal(format!("column {column} of an answer is not a list"))),
        }
    }
}

/// Runs a query, perhaps after other statements, and answers its rows.
pub(crate) async fn rows(client: &Client, what: &str, query: &str) -> Result<Vec<Row>> {
    let answers = client.simple_query(query).await.map_err(|error| failed(what, &error))?;
    let rows = answers.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some(Row((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()))
        }
        _ => None,
    });
    Ok(rows.collect())
}

/// Runs a query that answers one row.
pub(crate) async fn one(client: &Client, what: &str, query: &str) -> Result<Row> {
    let found = rows(client, what, query).await?.into_iter().next();
    found.ok_or_else(|| Error::Database {
        what: what.to_owned(),
        message: "no row was answered".to_owned(),
        transient: false,
    })
}
