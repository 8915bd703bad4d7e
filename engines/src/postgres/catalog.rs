//! The definitions of a database, a line an object, in a form that is the same from version to version.
//!
//! Both sides make these lines, and the destination compares: what differs was changed while the log ran, or was not restored.

mod queries;

use super::rows::{one, rows};
use crate::Result;
use tokio_postgres::Client;

/// How lines begin whose text the server makes from a parse tree: they are equal only between servers of one major version.
pub(crate) const DEPARSED: &str = "deparsed ";

/// The lines of the database of a session, sorted. What is ours is left out.
pub(crate) async fn lines(client: &Client) -> Result<Vec<String>> {
    let mut lines = vec![];
    for (kind, query) in queries::ALL {
        // Definitions name what is not in pg_catalog with its schema, because that alone is in the path.
        let what = format!("compare the definitions: {kind}");
        let found = rows(client, &what, query).await?;
        lines.extend(found.iter().map(|row| format!("{kind} {}: {}", row.text(0), row.text(1))));
    }
    lines.sort_unstable();
    Ok(lines)
}

/// Lines that were read before, and what tells whether they are still true.
#[derive(Debug)]
pub(crate) struct Known {
    stamp: String,
    lines: Vec<String>,
}

impl Known {
    /// Whether they are the lines of now.
    pub(crate) async fn is_true(&self, client: &Client) -> Result<bool> {
        Ok(self.stamp == stamp(client).await?)
    }
}

/// Reads the lines ahead of the time at which they are needed. Nothing while somebody is changing definitions.
pub(crate) async fn look_ahead(client: &Client) -> Result<Option<Known>> {
    let (before, lines, after) = (stamp(client).await?, lines(client).await?, stamp(client).await?);
    Ok((before == after).then_some(Known { stamp: after, lines }))
}

/// The lines; those that were read before if no row that they come from has changed since, which takes a tenth of the time.
pub(crate) async fn lines_as_known(client: &Client, known: Option<&Known>) -> Result<Vec<String>> {
    match known {
        Some(known) if known.is_true(client).await? => Ok(known.lines.clone()),
        _ => lines(client).await,
    }
}

/// A text that changes with every change of a row that the lines come from: how many there are, who wrote them, and where they
/// stand. What vacuum and the statistics note in such rows is not written by a transaction, and does not show.
async fn stamp(client: &Client) -> Result<String> {
    let each = |(table, which): &(&str, &str)| {
        format!(
            "SELECT '{table}' AS t, count(*) AS n, sum(hashtext(xmin::text || ctid::text)) AS s FROM {table}{which}"
        )
    };
    let all: Vec<String> = queries::READ.iter().map(each).collect();
    let query = format!(
        "SELECT string_agg(concat_ws(' ', t, n, s), ',' ORDER BY t) || (SELECT md5(string_agg(oid || rolname, ',' ORDER BY oid)) FROM pg_roles)
         FROM ({}) c",
        all.join(" UNION ALL ")
    );
    Ok(one(client, "look whether definitions have changed", &query).await?.owned(0))
}
