//! The definitions of a database, a line an object, in a form that is the same from version to version.
//!
//! Both sides make these lines, and the destination compares: what differs was changed while the log ran, or was not restored.

mod queries;

use super::rows::rows;
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
