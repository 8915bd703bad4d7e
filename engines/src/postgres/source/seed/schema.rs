//! The schema part of a seed: the dump's entries without what is ours.

use super::{
    super::{
        memo::{Identity, Memo},
        names::Names,
    },
    dump::{self, Section, of_schema},
};
use crate::{
    Error, Result,
    postgres::{
        SCHEMA,
        config::PostgresConfig,
        payload::{Entry, Schema, encode},
        rows::rows,
        sql::{Sql, ident, qualified},
    },
};
use bytes::Bytes;

/// Settings from the dump's beginning that its statements need; others are of newer versions, or the session's own.
const PREAMBLE: [&str; 5] =
    ["standard_conforming_strings", "search_path", "check_function_bodies", "xmloption", "row_security"];

/// Reads the schema in the held snapshot, as the bytes of its part. `sql` is inside that snapshot.
pub(in crate::postgres::source) async fn read(
    config: &PostgresConfig,
    sql: &Sql,
    database: &str,
    names: &Names,
    memo: &Memo,
) -> Result<Bytes> {
    let (Some(slot), Some(plan)) = (&memo.slot, &memo.plan) else {
        return Err(Error::Misuse("the seed has no plan yet".to_owned()));
    };
    let (pre, post) = tokio::try_join!(
        dump::run(config, database, &slot.snapshot, Section::Pre),
        dump::run(config, database, &slot.snapshot, Section::Post)
    )?;
    let what = "list what the dump leaves out";
    let populated = rows(
        sql,
        what,
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'm' AND c.relispopulated ORDER BY 1, 2",
    );
    let populated = populated.await?.iter().map(|row| (row.owned(0), row.owned(1))).collect();
    let missing = rows(
        sql,
        what,
        "SELECT 'DROP EXTENSION plpgsql' WHERE NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'plpgsql')
         UNION ALL SELECT 'DROP SCHEMA public' WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public')",
    );
    let dropped = missing.await?.iter().map(|row| row.owned(0)).collect();
    let mut schema = assemble(&pre, &post, names, &memo.identities, &plan.sizes)?;
    (schema.populated, schema.dropped) = (populated, dropped);
    encode(&schema)
}

/// Puts the entries of both texts together.
fn assemble(
    pre: &str,
    post: &str,
    names: &Names,
    identities: &[Identity],
    sizes: &[(String, String, u64)],
) -> Result<Schema> {
    let (preamble, pre) = dump::cut(pre)?;
    let (_, post) = dump::cut(post)?;
    let wanted = |statement: &&String| PREAMBLE.iter().any(|name| statement.contains(name));
    let preamble: Vec<&str> = preamble.iter().filter(wanted).map(String::as_str).collect();
    let entries = |found: Vec<dump::Entry>| -> Vec<Entry> {
        let theirs = found.into_iter().filter(|entry| !is_ours(entry, names));
        theirs.map(|entry| finish(entry, identities, sizes)).collect()
    };
    Ok(Schema { preamble: preamble.join("\n"), pre: entries(pre), post: entries(post), ..Schema::default() })
}

fn is_ours(entry: &dump::Entry, names: &Names) -> bool {
    let schema = entry.schema == SCHEMA || entry.kind == "SCHEMA" && entry.name == SCHEMA;
    let about = entry.schema.is_empty() && entry.name == of_schema(SCHEMA);
    let publication = entry.kind == "PUBLICATION" && entry.name == names.slot;
    let trigger = entry.kind == "EVENT TRIGGER" && ["causeway_ddl_end", "causeway_ddl_drop"].contains(&&*entry.name);
    schema || about || publication || trigger
}

fn finish(mut entry: dump::Entry, identities: &[Identity], sizes: &[(String, String, u64)]) -> Entry {
    for identity in identities {
        let table = format!("ALTER TABLE ONLY {} REPLICA IDENTITY", qualified(&identity.schema, &identity.name));
        let ours = format!("{table} FULL;");
        if identity.schema == entry.schema && entry.statements.contains(&ours) {
            entry.statements.retain(|statement| *statement != ours);
            if identity.was == "n" {
                entry.statements.push(format!("{table} NOTHING;"));
            }
        }
        // The index comes after its table.
        if let Some(index) = identity.index.as_ref().filter(|_| identity.was == "i")
            && identity.schema == entry.schema
            && (entry.kind == "INDEX" && entry.name == *index
                || entry.kind == "CONSTRAINT" && entry.name == format!("{} {index}", identity.name))
        {
            entry.statements.push(format!("{table} USING INDEX {};", ident(index)));
        }
    }
    // Whoever applies the log is a replica, for which these fire; they are for clients.
    let replica = |statement: &String| {
        statement.starts_with("ALTER TABLE")
            && [" ENABLE ALWAYS ", " ENABLE REPLICA "].iter().any(|words| statement.contains(words))
    };
    let last = match entry.kind.as_str() {
        "EVENT TRIGGER" => true,
        "TRIGGER" | "RULE" => entry.statements.iter().any(replica),
        _ => false,
    };
    let bytes = size(&entry, sizes);
    let sql: Vec<String> = entry.settings.into_iter().chain(entry.statements).collect();
    Entry {
        id: entry.id,
        needs: entry.needs,
        kind: entry.kind,
        schema: entry.schema,
        name: entry.name,
        sql: sql.join("\n"),
        bytes,
        last,
    }
}

/// The size of the index, or of the table whose foreign key has to be checked.
fn size(entry: &dump::Entry, sizes: &[(String, String, u64)]) -> u64 {
    let of = |name: &str| sizes.iter().find(|(schema, known, _)| *schema == entry.schema && known == name);
    // A constraint is named after its table, with a space between; either name may hold spaces too.
    let parts = || entry.name.match_indices(' ').map(|(at, _)| (&entry.name[..at], &entry.name[at + 1..]));
    let found = match entry.kind.as_str() {
        "INDEX" => of(&entry.name),
        "CONSTRAINT" => parts().find_map(|(_, index)| of(index)),
        "FK CONSTRAINT" => parts().find_map(|(table, _)| of(table)),
        _ => None,
    };
    found.map_or(0, |(_, _, bytes)| *bytes)
}
