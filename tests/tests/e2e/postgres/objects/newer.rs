//! What a newer major version writes otherwise than 15, and nothing else: whatever else differs is a difference.

use causeway_tests::postgres::Instance;

/// The definitions that can be compared as they are written; [`texts`] are compared otherwise.
pub(super) fn comparable(definitions: Vec<String>) -> impl Iterator<Item = String> {
    definitions.into_iter().filter(|line| !line.starts_with("deparsed\t"))
}

/// What a version writes for a line of 15's.
pub(super) fn as_written_by(major: u32, line: String) -> String {
    let fields: Vec<&str> = line.split('\t').collect();
    match fields.as_slice() {
        // 17 has one more right on tables: who had all of them, an owner to begin with, has all of them.
        ["relation", name, kind, persistence, owner, acl, rest @ ..] if major >= 17 && *kind != "S" => {
            let acl: Vec<String> = acl.split(',').map(with_maintain).collect();
            [&["relation", name, kind, persistence, owner, &acl.join(",")], rest].concat().join("\t")
        }
        // 18 numbers the foreign keys that it makes itself, for the partitions of the table referred to, behind a line.
        ["constraint", table, domain, name, definition @ ..]
            if major >= 18 && definition[0].starts_with("FOREIGN KEY") =>
        {
            [&["constraint", table, domain, &numbered_behind_a_line(name)], definition].concat().join("\t")
        }
        _ => line,
    }
}

fn with_maintain(item: &str) -> String {
    item.replace("=arwdDxt/", "=arwdDxtm/").replace("=a*r*w*d*D*x*t*/", "=a*r*w*d*D*x*t*m*/")
}

/// `orders_nr_fkey1` as `orders_nr_fkey_1`.
fn numbered_behind_a_line(name: &str) -> String {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match stem.ends_with("_fkey") && stem.len() < name.len() {
        true => format!("{stem}_{}", &name[stem.len()..]),
        false => name.to_owned(),
    }
}

/// A view, rule or function that a server keeps as a tree and prints in its own way.
#[derive(Debug)]
pub(super) struct Text {
    /// How the source would make it.
    make: String,
    /// A query for how a server prints it, and for how it prints what `make` made.
    show: String,
    show_made: String,
}

/// Views are made anew under another name, since a materialized one cannot be replaced.
const TEXTS: &str = "
    SELECT 'CREATE VIEW public.made_anew AS ' || pg_get_viewdef(c.oid),
      format('SELECT pg_get_viewdef(%L::regclass)', c.oid::regclass),
      'SELECT pg_get_viewdef(''public.made_anew''::regclass)'
    FROM pg_class c WHERE c.relkind IN ('v', 'm') AND c.oid >= 16384
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE (d.classid, d.objid, d.deptype) = ('pg_class'::regclass, c.oid, 'e'))
  UNION ALL
    SELECT regexp_replace(pg_get_ruledef(r.oid), '^CREATE RULE', 'CREATE OR REPLACE RULE'), show, show
    FROM pg_rewrite r, format('SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE (rulename, ev_class) = (%L, %L::regclass)',
      r.rulename, r.ev_class::regclass) show
    WHERE r.rulename <> '_RETURN' AND r.oid >= 16384
  UNION ALL
    SELECT pg_get_functiondef(p.oid), show, show
    FROM pg_proc p, format('SELECT pg_get_functiondef(%L::regprocedure)', p.oid::regprocedure) show
    WHERE p.prosqlbody IS NOT NULL AND p.oid >= 16384";

/// All of them in the database `everything`.
pub(super) fn texts(source: &Instance) -> Vec<Text> {
    let rows = source.sql("everything", TEXTS).into_iter();
    let texts = rows.map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>());
    texts
        .map(|row| <[String; 3]>::try_from(row).expect("three columns"))
        .map(|[make, show, show_made]| Text { make, show, show_made })
        .collect()
}

impl Text {
    /// As a server prints what it has.
    #[track_caller]
    pub(super) fn shown(&self, server: &Instance) -> String {
        server.value("everything", &self.show)
    }

    /// As it prints what it makes of the source's text.
    #[track_caller]
    pub(super) fn shown_when_made_anew(&self, server: &Instance) -> String {
        server.value("everything", &format!("BEGIN; {}; {}; ROLLBACK", self.make.trim_end_matches(';'), self.show_made))
    }
}
