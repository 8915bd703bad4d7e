//! Compares two SQLite databases page by page, leaving out what a fence or a checkpoint may rightly change.

use std::path::Path;

use super::{error, view::SqliteView};
use crate::driver::Error;

/// Page size from which the page with SQLite's lock bytes is computed: it starts at 1 GiB and holds no data.
const LOCK_BYTE: u64 = 0x4000_0000;
/// Enough to see a pattern.
const SHOWN_MAX: usize = 10;

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageReport {
    /// Pages compared.
    pub pages: u64,
    /// Bytes of a page.
    pub page_size: u64,
    /// In words what differs; empty if nothing does.
    pub differences: Vec<String>,
}

/// Compares the pages both databases show in a snapshot, so what is still in the log counts. Header bytes 18-19
/// (write and read version), 24-27 (change counter), 92-99 (version valid for, library version) and the page of the
/// lock bytes are left out.
pub fn compare(a: &Path, b: &Path) -> Result<PageReport, Error> {
    let (a, b) = (SqliteView::open(a)?, SqliteView::open(b)?);
    compare_views(&a, &b).map_err(error("compare the pages"))
}

fn compare_views(a: &SqliteView, b: &SqliteView) -> rusqlite::Result<PageReport> {
    let number = |view: &SqliteView, pragma| view.conn().query_row(pragma, [], |r| r.get::<_, i64>(0));
    let mut report = PageReport::default();
    for pragma in ["PRAGMA main.page_size", "PRAGMA main.page_count"] {
        let (x, y) = (number(a, pragma)?, number(b, pragma)?);
        if x != y {
            report.differences.push(format!("{} {x} and {y}", pragma.trim_start_matches("PRAGMA main.")));
        }
    }
    report.page_size = number(a, "PRAGMA main.page_size")?.unsigned_abs();
    if !report.differences.is_empty() {
        return Ok(report);
    }
    let lock_page = LOCK_BYTE / report.page_size.max(1) + 1;
    let sql = "SELECT pgno, data FROM sqlite_dbpage ORDER BY pgno";
    let (mut of_a, mut of_b) = (a.conn().prepare(sql)?, b.conn().prepare(sql)?);
    let (mut of_a, mut of_b) = (of_a.query([])?, of_b.query([])?);
    let (mut differing, mut count) = (Vec::new(), 0u64);
    while let (Some(x), Some(y)) = (of_a.next()?, of_b.next()?) {
        report.pages += 1;
        let page = x.get::<_, i64>(0)?.unsigned_abs();
        if page == lock_page {
            continue;
        }
        let (x, y) = (x.get_ref(1)?.as_blob()?, y.get_ref(1)?.as_blob()?);
        let same = if page == 1 { same_first_page(x, y) } else { x == y };
        if !same {
            count += 1;
            if differing.len() < SHOWN_MAX {
                differing.push(page);
            }
        }
    }
    if count > 0 {
        report.differences.push(format!("{count} pages, the first {differing:?}"));
    }
    Ok(report)
}

fn same_first_page(x: &[u8], y: &[u8]) -> bool {
    let counts = |i: usize| !matches!(i, 18 | 19 | 24..=27 | 92..=99);
    x.len() == y.len() && x.iter().zip(y).enumerate().all(|(i, (x, y))| x == y || !counts(i))
}
