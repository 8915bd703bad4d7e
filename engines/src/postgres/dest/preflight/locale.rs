//! Whether the destination's machine knows the database's locale.

use super::{error, warning};
use crate::{
    Result,
    postgres::{
        config::chain,
        payload::Locale,
        sql::{Sql, failed, literal},
    },
};
use handover::Finding;

/// Tries to make a collation of the same locale, in a transaction that is rolled back.
pub(super) async fn judge(sql: &Sql, wanted: &Locale) -> Result<Option<Finding>> {
    let Locale { encoding, collate, ctype, provider, icu_locale } = wanted;
    let row = sql
        .query_one("SELECT pg_char_to_encoding($1) >= 0, getdatabaseencoding() = $1", &[encoding])
        .await
        .map_err(|error| failed("look for an encoding", &error))?;
    if !row.get::<_, bool>(0) {
        let message = format!("the destination does not know the encoding {encoding:?}");
        return Ok(Some(error("ENCODING_UNKNOWN", message, "use a server that knows it")));
    }
    let same_encoding: bool = row.get(1);
    let mut tries = vec![];
    if provider == "i" {
        let locale = icu_locale.as_deref().unwrap_or_default();
        tries.push((locale, format!("provider = icu, locale = {}", literal(locale))));
    }
    for name in [collate, ctype] {
        if !matches!(name.as_str(), "C" | "POSIX") {
            tries.push((name, format!("provider = libc, locale = {}", literal(name))));
        }
    }
    for (name, definition) in tries {
        let create = format!("CREATE COLLATION pg_temp.causeway_try ({definition})");
        let Some(problem) = attempt(sql, &create).await? else { continue };
        let shown = format!("the destination cannot use the locale {name:?}: {problem}");
        // A locale is tied to an encoding, and a collation is tried with that of the database it is tried in.
        return Ok(Some(match same_encoding || provider == "i" {
            true => error(
                "LOCALE_MISSING",
                shown,
                "install the locale on the destination's machine, then restart the server",
            ),
            false => warning("LOCALE_NOT_CHECKED", shown, "make sure that the destination's machine has the locale"),
        }));
    }
    Ok(None)
}

async fn attempt(sql: &Sql, create: &str) -> Result<Option<String>> {
    let what = "try a locale";
    sql.run(what, "BEGIN").await?;
    let tried = sql.batch_execute(create).await;
    sql.run(what, "ROLLBACK").await?;
    match tried {
        Ok(()) => Ok(None),
        Err(error) => match error.as_db_error() {
            Some(db) => Ok(Some(db.message().to_owned())),
            None => Err(failed(format!("{what}: {}", chain(&error)), &error)),
        },
    }
}
