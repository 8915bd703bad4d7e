//! `pg_dump` of the definitions, and its text cut into entries.
//!
//! Each entry begins with a comment that names it. The text between may hold anything that users wrote, in quotes: it is read
//! token by token, because a cut inside a function's body would run that body as a statement of the restoring superuser.

use crate::{
    Error, Result,
    postgres::{
        config::PostgresConfig,
        sql::{APPLICATION, ident},
    },
};
use std::process::Stdio;
use tokio::io::AsyncReadExt as _;
use tokio_postgres::config::{Host, SslMode};

/// Locks that `pg_dump` cannot get for this long, because somebody is rewriting the table, are an error and not a hang.
const LOCK_WAIT: &str = "--lock-wait-timeout=60s";

/// A part of the definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres::source) enum Section {
    Pre,
    Post,
}

/// Runs `pg_dump` in a held snapshot and answers its text.
pub(super) async fn run(config: &PostgresConfig, database: &str, snapshot: &str, section: Section) -> Result<String> {
    let what = "read the definitions with pg_dump";
    let section = match section {
        Section::Pre => "--section=pre-data",
        Section::Post => "--section=post-data",
    };
    let mut command = tokio::process::Command::new(&config.setup().pg_dump);
    command
        .args(["--schema-only", "--verbose", "--quote-all-identifiers", "--encoding=UTF8", "--no-password"])
        .args([section, LOCK_WAIT])
        .arg(format!("--snapshot={snapshot}"))
        .env("PGDATABASE", database)
        .env("PGAPPNAME", format!("{APPLICATION} source dump"))
        .env("PGOPTIONS", "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0")
        .envs(connection(config))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| Error::Unsupported {
        code: "PG_DUMP",
        message: format!("{} cannot be run: {error}", config.setup().pg_dump.display()),
        remedy: "install the client programs of PostgreSQL beside the source agent, or name pg_dump in its settings"
            .to_owned(),
    })?;
    let (mut text, mut said) = (Vec::new(), Vec::new());
    if let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) {
        // Both at once: it stops when nobody reads what it says.
        let read = tokio::try_join!(out.read_to_end(&mut text), err.read_to_end(&mut said));
        read.map_err(|error| Error::io(what, error))?;
    }
    let status = child.wait().await.map_err(|error| Error::io(what, error))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let why: Vec<&str> = said.lines().filter(|line| line.contains("error:")).take(3).collect();
        let message = format!("{status}: {}", why.join("; "));
        return Err(Error::Database { what: what.to_owned(), message, transient: true });
    }
    String::from_utf8(text).map_err(|_| Error::Corrupt("pg_dump wrote what is not UTF-8".to_owned()))
}

/// The connection as environment variables: a command line can be read by everybody on the machine.
fn connection(config: &PostgresConfig) -> Vec<(&'static str, String)> {
    let server = config.server();
    let hosts: Vec<String> = server
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let ports: Vec<String> = server.get_ports().iter().map(u16::to_string).collect();
    let mut variables = vec![("PGHOST", hosts.join(","))];
    if !ports.is_empty() {
        variables.push(("PGPORT", ports.join(",")));
    }
    variables.extend(server.get_user().map(|user| ("PGUSER", user.to_owned())));
    let password = server.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
    variables.extend(password.map(|password| ("PGPASSWORD", password)));
    let (mode, ca) = match (server.get_ssl_mode(), &config.setup().ca) {
        (SslMode::Disable, _) => ("disable", None),
        (_, Some(ca)) => ("verify-full", Some(ca)),
        (SslMode::Require, None) => ("require", None),
        _ => ("prefer", None),
    };
    variables.push(("PGSSLMODE", mode.to_owned()));
    variables.extend(ca.map(|ca| ("PGSSLROOTCERT", ca.display().to_string())));
    variables
}

/// An entry as it stands in the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) needs: Vec<u32>,
    pub(super) kind: String,
    pub(super) schema: String,
    pub(super) name: String,
    /// Its statements, each with its semicolon.
    pub(super) statements: Vec<String>,
    /// Settings that hold for what it creates.
    pub(super) settings: Vec<String>,
}

/// Cuts a text into the statements before the first entry, and the entries.
pub(super) fn cut(text: &str) -> Result<(Vec<String>, Vec<Entry>)> {
    let mut preamble = vec![];
    let mut entries: Vec<Entry> = vec![];
    // `SET default_tablespace` and the like stand where they change, and hold until the next.
    let mut settings: Vec<(String, String)> = vec![];
    for piece in pieces(text)? {
        match piece {
            Piece::Comment(comment) => {
                if let Some(mut entry) = header(&comment)? {
                    entry.settings = settings.iter().map(|(_, setting)| setting.clone()).collect();
                    entries.push(entry);
                }
            }
            Piece::Statement(statement) => {
                let setting = statement.strip_prefix("SET ").and_then(|rest| rest.split_whitespace().next());
                match (setting, entries.last_mut()) {
                    (Some(name), _) if name == "default_tablespace" || name == "default_table_access_method" => {
                        settings.retain(|(known, _)| known != name);
                        settings.push((name.to_owned(), statement));
                    }
                    (_, Some(entry)) => entry.statements.push(statement),
                    (_, None) => preamble.push(statement),
                }
            }
        }
    }
    Ok((preamble, entries))
}

enum Piece {
    /// Lines of a comment that stand together, outside of any statement.
    Comment(String),
    /// A statement with its semicolon.
    Statement(String),
}

/// Reads token by token; commands for `psql` between statements are left out.
fn pieces(text: &str) -> Result<Vec<Piece>> {
    let bytes = text.as_bytes();
    let bad = |what: &str| Error::Corrupt(format!("the text of pg_dump ends inside {what}"));
    let mut pieces = vec![];
    let (mut at, mut start) = (0, None::<usize>);
    while at < bytes.len() {
        let line_end = |from: usize| text[from..].find('\n').map_or(text.len(), |len| from + len + 1);
        match bytes[at] {
            b'-' if bytes[at..].starts_with(b"--") => {
                let end = line_end(at);
                if start.is_none() {
                    match pieces.last_mut() {
                        // Lines that follow each other are one comment; an empty line parts two.
                        Some(Piece::Comment(comment)) if at > 0 && !text[..at].ends_with("\n\n") => {
                            comment.push_str(&text[at..end]);
                        }
                        _ => pieces.push(Piece::Comment(text[at..end].to_owned())),
                    }
                }
                at = end;
                continue;
            }
            b'\\' if start.is_none() => {
                at = line_end(at);
                continue;
            }
            byte if byte.is_ascii_whitespace() => {}
            b';' => {
                let from = start.take().unwrap_or(at);
                pieces.push(Piece::Statement(text[from..=at].to_owned()));
            }
            byte => {
                let token = token(text, at, byte).ok_or_else(|| bad("quotes"))?;
                start.get_or_insert(at);
                at = token;
                continue;
            }
        }
        at += 1;
    }
    match start {
        None => Ok(pieces),
        Some(_) => Err(bad("a statement")),
    }
}

/// Where the token that begins at `at` ends; nothing if the text ends before it.
fn token(text: &str, at: usize, byte: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let find = |needle: &str, from: usize| text.get(from..)?.find(needle).map(|len| from + len + needle.len());
    match byte {
        b'"' => quoted(bytes, at + 1, b'"', false),
        b'\'' => quoted(bytes, at + 1, b'\'', false),
        b'/' if bytes[at..].starts_with(b"/*") => {
            let (mut depth, mut next) = (1, at + 2);
            while depth > 0 {
                match (find("*/", next)?, find("/*", next)) {
                    (end, Some(open)) if open < end => (depth, next) = (depth + 1, open),
                    (end, _) => (depth, next) = (depth - 1, end),
                }
            }
            Some(next)
        }
        b'$' => {
            let tag = bytes[at + 1..].iter().position(|b| *b == b'$')?;
            let tag = &text[at..at + tag + 2];
            let inner = &tag[1..tag.len() - 1];
            let is_tag = inner.bytes().all(|b| b == b'_' || b >= 0x80 || b.is_ascii_alphanumeric())
                && !inner.starts_with(|c: char| c.is_ascii_digit());
            if is_tag { find(tag, at + tag.len()) } else { Some(at + 1) }
        }
        b if b == b'_' || b >= 0x80 || b.is_ascii_alphanumeric() => {
            let word = bytes[at..]
                .iter()
                .position(|b| !(*b == b'_' || *b == b'$' || *b >= 0x80 || b.is_ascii_alphanumeric()))
                .map_or(bytes.len(), |len| at + len);
            match &bytes[at..word] {
                b"E" | b"e" if bytes.get(word) == Some(&b'\'') => quoted(bytes, word + 1, b'\'', true),
                _ => Some(word),
            }
        }
        _ => Some(at + 1),
    }
}

/// The end of what is quoted from `at` on; a doubled quote, and with `escapes` one behind a backslash, does not end it.
fn quoted(bytes: &[u8], mut at: usize, quote: u8, escapes: bool) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            b'\\' if escapes => at += 2,
            byte if byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// An entry's comment; nothing for other comments.
fn header(comment: &str) -> Result<Option<Entry>> {
    let mut entry = Entry::default();
    let mut named = false;
    let bad = || Error::Corrupt("an entry of pg_dump has no name as it should".to_owned());
    for line in comment.lines() {
        let Some(line) = line.strip_prefix("-- ") else { continue };
        if let Some(id) = line.strip_prefix("TOC entry ") {
            entry.id = id.split(' ').next().and_then(|id| id.parse().ok()).ok_or_else(bad)?;
        } else if let Some(needs) = line.strip_prefix("Dependencies: ") {
            entry.needs = needs.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        } else if let Some(name) = line.strip_prefix("Name: ").filter(|_| !named) {
            // A name may hold anything, these words too; the last ones are the dump's.
            let (rest, _owner) = name.rsplit_once("; Owner: ").ok_or_else(bad)?;
            let (rest, schema) = rest.rsplit_once("; Schema: ").ok_or_else(bad)?;
            let (name, kind) = rest.rsplit_once("; Type: ").ok_or_else(bad)?;
            (entry.name, entry.kind) = (name.to_owned(), kind.to_owned());
            entry.schema = if schema == "-" { String::new() } else { schema.to_owned() };
            named = true;
        }
    }
    match (entry.id, named) {
        (0, _) => Ok(None),
        (_, true) => Ok(Some(entry)),
        (_, false) => Err(bad()),
    }
}

/// How the dump names an object of ours in comments and grants: `SCHEMA "causeway"`.
pub(super) fn of_schema(schema: &str) -> String {
    format!("SCHEMA {}", ident(schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "--\n-- TOC entry 7 (class 1255 OID 9)\n-- Dependencies: 3 4\n-- Name: f; Type: TABLE; x(); Type: \
                         FUNCTION; Schema: s; Owner: o\n--\n\n";

    #[test]
    fn entries_are_cut_outside_of_quotes_only() {
        let bodies = [
            "$$;\n\n--\n-- TOC entry 9 (class 0 OID 0)\n-- Name: x; Type: T; Schema: -; Owner: \n--\n\nDROP DATABASE d;$$",
            "$a$ $$ ; '\n\n--\n-- TOC entry 9\n$a$",
            "';\n\n--\n-- TOC entry 9\n''; it''s'",
            "E'\\';\n\n--\n-- TOC entry 9\n'",
            "\";\n\n--\n-- TOC entry 9\n\"",
            "/* ; /* ; */ ;\n\n--\n-- TOC entry 9\n */ 1",
            "1 -- ; '\n + a$1$b",
        ];
        for body in bodies {
            let statement = format!("CREATE FUNCTION f AS {body};");
            let text = format!(
                "--\n-- PostgreSQL database dump\n--\n\n\\restrict a'b\n\nSET row_security = off;\n\n\
                 SET default_tablespace = '';\n\n{ENTRY}{statement}\n\n\nALTER FUNCTION f OWNER TO o;\n\n\
                 SET default_tablespace = t;\n\n{ENTRY}SELECT 1;\n-- done\n\\unrestrict ab\n"
            );
            let (preamble, entries) = cut(&text).expect("a text of pg_dump");
            assert_eq!(preamble, ["SET row_security = off;"]);
            assert_eq!(entries.len(), 2, "{body}");
            assert_eq!(entries[0].statements, [statement, "ALTER FUNCTION f OWNER TO o;".to_owned()]);
            assert_eq!((entries[0].id, entries[0].needs.as_slice()), (7, &[3, 4][..]));
            assert_eq!(
                (entries[0].name.as_str(), entries[0].kind.as_str(), entries[0].schema.as_str()),
                ("f; Type: TABLE; x()", "FUNCTION", "s")
            );
            assert_eq!(entries[0].settings, ["SET default_tablespace = '';"]);
            assert_eq!(entries[1].settings, ["SET default_tablespace = t;"]);
        }
    }

    #[test]
    fn a_text_that_is_cut_off_is_an_error() {
        for text in ["SELECT 'a", "SELECT $$a", "SELECT 1", "SELECT /* a", "SELECT E'\\", "SELECT \"", "SELECT $a"] {
            assert!(cut(text).is_err(), "{text}");
        }
    }
}
