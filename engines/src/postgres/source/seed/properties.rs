//! What belongs to the database itself: owner, locale, comment, grants, settings, labels.

use crate::{
    Result,
    postgres::{
        payload::{DatabaseProperties, Locale},
        rows::{one, rows},
        sql::{Sql, ident, literal},
    },
};

/// Settings whose value is a list of names, each quoted by itself; as `pg_dump` knows them.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Reads them; `sql` is with any database of the instance. The names of columns differ from version to version, so that the row
/// is taken as JSON.
pub(in crate::postgres::source) async fn read(sql: &Sql, database: &str) -> Result<DatabaseProperties> {
    let what = "read the properties of the database";
    let row = one(
        sql,
        what,
        &format!(
            "SELECT pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
                    coalesce(to_jsonb(d)->>'datlocprovider', 'c'),
                    coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'),
                    nullif(t.spcname, 'pg_default'), d.datconnlimit, d.oid, shobj_description(d.oid, 'pg_database')
             FROM pg_database d LEFT JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = {}",
            literal(database)
        ),
    )
    .await?;
    let (name, oid) = (ident(database), row.text(8));
    let mut statements = vec![];
    if let Some(comment) = row.maybe(9) {
        statements.push(format!("COMMENT ON DATABASE {name} IS {}", literal(comment)));
    }
    statements.extend(grants(sql, &name, oid, row.text(0)).await?);
    statements.extend(settings(sql, &name, oid).await?);
    let labels = format!("SELECT provider, label FROM pg_shseclabel WHERE classoid = 1262 AND objoid = {oid}");
    for label in rows(sql, what, &labels).await? {
        let provider = ident(label.text(0));
        statements.push(format!("SECURITY LABEL FOR {provider} ON DATABASE {name} IS {}", literal(label.text(1))));
    }
    Ok(DatabaseProperties {
        owner: row.owned(0),
        locale: Locale {
            encoding: row.owned(1),
            collate: row.owned(2),
            ctype: row.owned(3),
            provider: row.owned(4),
            icu_locale: row.maybe(5).map(str::to_owned),
        },
        tablespace: row.maybe(6).map(str::to_owned),
        connection_limit: row.parse(7)?,
        statements,
    })
}

/// Grants, if they are not what a new database has.
async fn grants(sql: &Sql, name: &str, oid: &str, owner: &str) -> Result<Vec<String>> {
    let query = format!(
        "SELECT CASE a.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
         FROM pg_database d CROSS JOIN LATERAL aclexplode(d.datacl) a WHERE d.oid = {oid}
         ORDER BY a.grantee = d.datdba DESC, 1, 2"
    );
    let changed = format!("SELECT datacl IS NOT NULL FROM pg_database WHERE oid = {oid}");
    let what = "read the grants of the database";
    if !one(sql, what, &changed).await?.flag(0) {
        return Ok(vec![]);
    }
    let mut statements = vec![
        format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
        format!("REVOKE ALL ON DATABASE {name} FROM {}", ident(owner)),
    ];
    for row in rows(sql, what, &query).await? {
        let grantee = row.maybe(0).map_or_else(|| "PUBLIC".to_owned(), ident);
        let option = if row.flag(2) { " WITH GRANT OPTION" } else { "" };
        statements.push(format!("GRANT {} ON DATABASE {name} TO {grantee}{option}", row.text(1)));
    }
    Ok(statements)
}

/// `ALTER DATABASE ... SET` and `ALTER ROLE ... IN DATABASE ... SET`.
async fn settings(sql: &Sql, name: &str, oid: &str) -> Result<Vec<String>> {
    let query = format!(
        "SELECT CASE s.setrole WHEN 0 THEN NULL ELSE pg_get_userbyid(s.setrole) END, split_part(c.setting, '=', 1),
                substr(c.setting, strpos(c.setting, '=') + 1)
         FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) WITH ORDINALITY c(setting, place)
         WHERE s.setdatabase = {oid} ORDER BY s.setrole, c.place"
    );
    let mut statements = vec![];
    for row in rows(sql, "read the settings of the database", &query).await? {
        let whose = match row.maybe(0) {
            None => format!("ALTER DATABASE {name}"),
            Some(role) => format!("ALTER ROLE {} IN DATABASE {name}", ident(role)),
        };
        // A setting of an extension has two names.
        let setting: Vec<String> = row.text(1).split('.').map(ident).collect();
        let value = match LISTS.contains(&row.text(1).to_ascii_lowercase().as_str()) {
            true => list(row.text(2)),
            false => literal(row.text(2)),
        };
        statements.push(format!("{whose} SET {} TO {value}", setting.join(".")));
    }
    Ok(statements)
}

/// A list of names as it is stored, each name made a literal of its own: else the list would become one name.
fn list(stored: &str) -> String {
    let mut names = vec![];
    let mut rest = stored.trim();
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut name = String::new();
                let mut chars = quoted.char_indices().peekable();
                let mut end = quoted.len();
                while let Some((at, c)) = chars.next() {
                    match c {
                        '"' if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                            chars.next();
                            name.push('"');
                        }
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        c => name.push(c),
                    }
                }
                (name, &quoted[end..])
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim_end().to_owned(), &rest[end..])
            }
        };
        names.push(literal(&name));
        rest = after.trim_start().strip_prefix(',').unwrap_or("").trim_start();
    }
    match names.is_empty() {
        true => "''".to_owned(),
        false => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn lists_are_quoted_name_by_name() {
        assert_eq!(list(r#""$user", public"#), "'$user', 'public'");
        assert_eq!(list(r#""a, ""b""",c"#), r#"'a, "b"', 'c'"#);
        assert_eq!(list(r#""""#), "''");
        assert_eq!(list(""), "''");
    }
}
