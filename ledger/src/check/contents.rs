//! The content hash of a database, and where it differs from another's.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3Default;

use super::report::Report;
use crate::driver::{Error, TableHash, View};

/// Hashes a database and, if there is another, compares table by table.
pub(super) fn compare(view: &dyn View, other: Option<&dyn View>, report: &mut Report) {
    let hashes = view.content().and_then(|a| Ok((a, other.map(View::content).transpose()?)));
    let (a, b) = match hashes {
        Ok(hashes) => hashes,
        Err(error) => return report.unreadable(&Error::Failed { stage: "compare contents", cause: Box::new(error) }),
    };
    report.content_hash = Some(overall(&a));
    let Some(b) = b else { return };
    report.other_content_hash = Some(overall(&b));
    let by_name = |tables: &[TableHash]| -> BTreeMap<String, TableHash> {
        tables.iter().map(|t| (t.table.clone(), t.clone())).collect()
    };
    let (a, b) = (by_name(&a), by_name(&b));
    for (name, table) in &a {
        match b.get(name) {
            None => report.add("differs", format!("table {name} is only in the checked database")),
            Some(other) if other != table => {
                report.add("differs", format!("table {name}: {} rows here, {} there", table.rows, other.rows));
            }
            Some(_) => {}
        }
    }
    for name in b.keys().filter(|name| !a.contains_key(*name)) {
        report.add("differs", format!("table {name} is only in the other database"));
    }
}

fn overall(tables: &[TableHash]) -> String {
    let mut hash = Xxh3Default::new();
    for TableHash { table, rows, hash: content } in tables {
        hash.update(table.as_bytes());
        hash.update(&rows.to_le_bytes());
        hash.update(&content.to_le_bytes());
    }
    format!("{:032x}", hash.digest128())
}
