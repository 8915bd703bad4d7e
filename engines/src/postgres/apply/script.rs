//! The statements that bring net changes to the destination, as messages ready to be sent.

use super::{
    net::{Net, OpKind},
    rope::Rope,
    source::{self, Counted, Form, Source},
    table::{Key, Table},
};
use crate::postgres::{
    log::pgoutput::{Kind, Value},
    sql::ident,
};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// CopyData messages are about so large.
const COPY_BYTES: usize = 64 << 10;
/// What precedes binary rows.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Messages to be sent together, and what the server has to answer.
#[derive(Default)]
pub(super) struct Script {
    pub(super) rope: Rope,
    pub(super) expected: Vec<Expected>,
}

/// What one command has to answer.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// It succeeds.
    Done,
    /// It really commits: after an error the server answers ROLLBACK.
    Commit,
    /// The checkpoint is still ours, in so many rows.
    Checkpoint(u64),
    /// So many rows of a table.
    Rows { table: Arc<Table>, verb: &'static str, count: u64 },
}

/// Statements that the session has prepared.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    names: FxHashMap<String, String>,
}

impl Prepared {
    /// Forgets all of them: the server has, too.
    pub(super) fn clear(&mut self) {
        self.names.clear();
    }

    /// The name of a statement; prepares it if it is new.
    fn name(&mut self, rope: &mut Rope, sql: String, params: &[u32]) -> String {
        if let Some(name) = self.names.get(&sql) {
            return name.clone();
        }
        let name = format!("s{}", self.names.len());
        rope.begin(b'P', name.len() + 1 + sql.len() + 1 + 2 + 4 * params.len());
        rope.put(name.as_bytes());
        rope.put_u8(0);
        rope.put(sql.as_bytes());
        rope.put_u8(0);
        rope.put_u16(params.len() as u16);
        params.iter().for_each(|oid| rope.put_u32(*oid));
        self.names.insert(sql, name.clone());
        name
    }
}

impl Script {
    /// With room for so many bytes of values.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { rope: Rope::with_capacity(bytes), expected: Vec::new() }
    }

    /// A statement with binary parameters.
    pub(super) fn run(&mut self, prepared: &mut Prepared, sql: &str, params: &[(u32, &[u8])], expected: Expected) {
        let oids: Vec<u32> = params.iter().map(|(oid, _)| *oid).collect();
        let name = prepared.name(&mut self.rope, sql.to_owned(), &oids);
        let values: usize = params.iter().map(|(_, value)| 4 + value.len()).sum();
        self.rope.begin(b'B', 1 + name.len() + 1 + 2 + 2 + 2 + values + 2);
        self.rope.put_u8(0);
        self.rope.put(name.as_bytes());
        self.rope.put_u8(0);
        self.rope.put_u16(1);
        self.rope.put_u16(1);
        self.rope.put_u16(params.len() as u16);
        for (_, value) in params {
            self.rope.put_u32(value.len() as u32);
            self.rope.put(value);
        }
        self.rope.put_u16(0);
        self.execute(expected);
    }

    fn execute(&mut self, expected: Expected) {
        self.rope.message(b'E', &[0, 0, 0, 0, 0]);
        self.expected.push(expected);
    }

    /// Statements in the simple protocol; what they answer is the caller's business.
    pub(super) fn query(&mut self, sql: &str) {
        self.rope.begin(b'Q', sql.len() + 1);
        self.rope.put(sql.as_bytes());
        self.rope.put_u8(0);
    }

    /// Appends another one.
    pub(super) fn append(&mut self, other: Script) {
        self.rope.append(other.rope);
        self.expected.extend(other.expected);
    }

    /// Ends what is sent together.
    pub(super) fn sync(&mut self) {
        self.rope.message(b'S', &[]);
    }

    /// Everything that a table's net changes come to.
    pub(super) fn table(&mut self, prepared: &mut Prepared, pieces: &[Bytes], net: &Net, by_row: bool) {
        let table = &net.table;
        let (mut deletes, mut updates, mut inserts) = (Vec::new(), Vec::new(), Vec::new());
        for op in &net.ops {
            let row = net.row(op);
            match (&table.key, op.kind) {
                (Key::Whole { .. }, _) => match op.count {
                    0 => {}
                    1.. => inserts.extend(std::iter::repeat_n((row, 1), op.count as usize)),
                    _ => deletes.push((row, -op.count)),
                },
                (_, OpKind::Nothing) => {}
                (_, OpKind::Insert) => inserts.push((row, 1)),
                (_, OpKind::Delete) => deletes.push((row, 1)),
                (_, OpKind::Update | OpKind::Replace) if table.replace => match is_partial(row) {
                    true => self.exchange(prepared, pieces, table, row, row),
                    false => {
                        deletes.push((row, 1));
                        inserts.push((row, 1));
                    }
                },
                (_, OpKind::Update | OpKind::Replace) => updates.push((row, 1)),
            }
        }
        // Neighbours in the index are neighbours in time then: fewer pages are looked at, and each once.
        sort(table, pieces, &mut deletes);
        sort(table, pieces, &mut updates);
        self.deletes(prepared, pieces, table, &deletes);
        for (forms, rows) in groups(&updates) {
            self.updates(prepared, pieces, table, &forms, &rows);
        }
        for (forms, rows) in groups(&inserts) {
            self.inserts(prepared, pieces, table, &forms, &rows, by_row);
        }
    }

    fn deletes(&mut self, prepared: &mut Prepared, pieces: &[Bytes], table: &Arc<Table>, rows: &[Counted<'_>]) {
        match &table.key {
            Key::Columns(_) => {
                for (forms, rows) in groups_by(rows, |forms| only_key(table, forms)) {
                    let source = Source::new(table, &forms, "s", 1, false);
                    let on = matches(table, &source, "d");
                    let sql = format!("DELETE FROM ONLY {} AS d USING {} WHERE {on}", table.quoted(), source.from);
                    self.put(prepared, pieces, table, sql, &[(&source.params, &rows)], "deleted", rows.len() as u64);
                }
            }
            Key::Whole { hashed } => {
                for (forms, rows) in groups(rows) {
                    let source = Source::new(table, &forms, "s", 1, true);
                    let sql = delete_whole(table, hashed, &source);
                    let count = rows.iter().map(|(_, count)| count.unsigned_abs()).sum();
                    self.put(prepared, pieces, table, sql, &[(&source.params, &rows)], "deleted", count);
                }
            }
        }
    }

    fn updates(
        &mut self,
        prepared: &mut Prepared,
        pieces: &[Bytes],
        table: &Arc<Table>,
        forms: &[Form],
        rows: &[Counted<'_>],
    ) {
        let source = Source::new(table, forms, "s", 1, false);
        let key = table.key_columns().unwrap_or_default();
        let set: Vec<String> = source
            .columns
            .iter()
            .enumerate()
            .filter(|(n, _)| !key.iter().any(|(column, _)| column == n))
            .filter_map(|(n, value)| Some(format!("{} = {}", ident(&table.columns[n].name), value.as_ref()?)))
            .collect();
        // All that is left of such a row is its key, and that did not change.
        if set.is_empty() {
            return;
        }
        let (set, on) = (set.join(","), matches(table, &source, "d"));
        let sql = format!("UPDATE ONLY {} AS d SET {set} FROM {} WHERE {on}", table.quoted(), source.from);
        self.put(prepared, pieces, table, sql, &[(&source.params, rows)], "updated", rows.len() as u64);
    }

    fn inserts(
        &mut self,
        prepared: &mut Prepared,
        pieces: &[Bytes],
        table: &Arc<Table>,
        forms: &[Form],
        rows: &[Counted<'_>],
        by_row: bool,
    ) {
        let binary = forms.iter().all(|form| *form == Form::Binary);
        // A few rows are not worth a COPY of their own, but for a table without columns nothing else exists.
        if binary && (!by_row || forms.is_empty()) {
            return self.copy(prepared, pieces, table, rows, true);
        }
        if !by_row && forms.iter().all(|form| *form == Form::Text) {
            return self.copy(prepared, pieces, table, rows, false);
        }
        let source = Source::new(table, forms, "s", 1, false);
        let values: Vec<&str> = source.columns.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
        let sql = format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}",
            table.quoted(),
            column_list(table),
            values.join(","),
            source.from
        );
        self.put(prepared, pieces, table, sql, &[(&source.params, rows)], "inserted", rows.len() as u64);
    }

    /// Moves a row to a new key, or rewrites it, where some of its values did not come: they are taken from the old row.
    pub(super) fn exchange(
        &mut self,
        prepared: &mut Prepared,
        pieces: &[Bytes],
        table: &Arc<Table>,
        old: &[Value],
        new: &[Value],
    ) {
        let (mut old_forms, new_forms) = (forms(old), forms(new));
        only_key(table, &mut old_forms);
        let before = Source::new(table, &old_forms, "o", 1, false);
        let after = Source::new(table, &new_forms, "s", 1 + before.params.len(), false);
        let value = |(n, value): (usize, &Option<String>)| {
            value.clone().unwrap_or_else(|| format!("d.{}", ident(&table.columns[n].name)))
        };
        let values: Vec<String> = after.columns.iter().enumerate().map(value).collect();
        let sql = format!(
            "WITH d AS (DELETE FROM ONLY {0} AS d USING {1} WHERE {2} RETURNING d.*) \
             INSERT INTO {0} ({3}) OVERRIDING SYSTEM VALUE SELECT {4} FROM d, {5}",
            table.quoted(),
            before.from,
            matches(table, &before, "d"),
            column_list(table),
            values.join(","),
            after.from
        );
        let parts: [(&[source::Param], &[Counted<'_>]); 2] =
            [(&before.params, &[(old, 1)]), (&after.params, &[(new, 1)])];
        self.put(prepared, pieces, table, sql, &parts, "moved", 1);
    }

    #[allow(clippy::too_many_arguments, reason = "all of it is one statement")]
    fn put(
        &mut self,
        prepared: &mut Prepared,
        pieces: &[Bytes],
        table: &Arc<Table>,
        sql: String,
        parts: &[(&[source::Param], &[Counted<'_>])],
        verb: &'static str,
        count: u64,
    ) {
        let oids: Vec<u32> = parts.iter().flat_map(|(params, _)| params.iter().map(|param| param.oid)).collect();
        let name = prepared.name(&mut self.rope, sql, &oids);
        source::bind(&mut self.rope, pieces, table, &name, parts);
        self.execute(Expected::Rows { table: table.clone(), verb, count });
    }

    fn copy(
        &mut self,
        prepared: &mut Prepared,
        pieces: &[Bytes],
        table: &Arc<Table>,
        rows: &[Counted<'_>],
        binary: bool,
    ) {
        let columns = if table.columns.is_empty() { String::new() } else { format!(" ({})", column_list(table)) };
        let format = if binary { "binary" } else { "text" };
        let sql = format!("COPY {}{columns} FROM STDIN (FORMAT {format})", table.quoted());
        let expected = Expected::Rows { table: table.clone(), verb: "inserted", count: rows.len() as u64 };
        self.run(prepared, &sql, &[], expected);
        if binary {
            self.rope.message(b'd', COPY_HEADER);
            self.copy_binary(pieces, table, rows);
            self.rope.message(b'd', b"\xff\xff");
        } else {
            rows.iter().for_each(|(row, _)| self.rope.message(b'd', &text_row(pieces, row)));
        }
        self.rope.message(b'c', &[]);
    }

    fn copy_binary(&mut self, pieces: &[Bytes], table: &Table, rows: &[Counted<'_>]) {
        let size = |row: &[Value]| 2 + row.iter().map(|value| 4 + value.len as usize).sum::<usize>();
        let mut rest = rows;
        while !rest.is_empty() {
            let (mut bytes, mut count) = (0, 0);
            while bytes < COPY_BYTES && count < rest.len() {
                bytes += size(rest[count].0);
                count += 1;
            }
            self.rope.begin(b'd', bytes);
            for (row, _) in &rest[..count] {
                self.rope.put_u16(table.columns.len() as u16);
                row.iter().for_each(|value| source::put_value(&mut self.rope, pieces, value));
            }
            rest = &rest[count..];
        }
    }
}

/// Sorts rows by the bytes of their key, which is the order of most indexes on most values.
fn sort(table: &Table, pieces: &[Bytes], rows: &mut [Counted<'_>]) {
    let Some([(first, _), ..]) = table.key_columns() else { return };
    let key = |row: &Counted<'_>| {
        let value = row.0[*first];
        value.of(&pieces[usize::from(value.piece)])
    };
    rows.sort_unstable_by(|one, two| key(one).cmp(key(two)));
}

/// Only the key of an old row is sure to be there.
fn only_key(table: &Table, forms: &mut [Form]) {
    let key = table.key_columns().unwrap_or_default();
    for (n, form) in forms.iter_mut().enumerate() {
        if !key.iter().any(|(column, _)| *column == n) {
            *form = Form::Absent;
        }
    }
}

/// Rows that come in the same form make one statement.
fn groups<'a>(rows: &[Counted<'a>]) -> Vec<(Vec<Form>, Vec<Counted<'a>>)> {
    groups_by(rows, |_| {})
}

fn groups_by<'a>(rows: &[Counted<'a>], restrict: impl Fn(&mut Vec<Form>)) -> Vec<(Vec<Form>, Vec<Counted<'a>>)> {
    let Some((first, _)) = rows.first() else { return Vec::new() };
    let plain = |row: &[Value]| row.iter().all(|value| matches!(value.kind, Kind::Binary | Kind::Null));
    if rows.iter().all(|(row, _)| plain(row)) {
        let mut forms = vec![Form::Binary; first.len()];
        restrict(&mut forms);
        return vec![(forms, rows.to_vec())];
    }
    let mut groups: Vec<(Vec<Form>, Vec<Counted<'a>>)> = Vec::new();
    let mut places: FxHashMap<Vec<Form>, usize> = FxHashMap::default();
    for row in rows {
        let mut forms = forms(row.0);
        restrict(&mut forms);
        let place = *places.entry(forms).or_insert_with_key(|forms| {
            groups.push((forms.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(*row);
    }
    groups
}

/// How a row's values come. NULL comes as its neighbours do.
fn forms(row: &[Value]) -> Vec<Form> {
    let null = if row.iter().any(|value| value.kind == Kind::Text) { Form::Text } else { Form::Binary };
    let form = |value: &Value| match value.kind {
        Kind::Null => null,
        Kind::Unchanged => Form::Absent,
        Kind::Text => Form::Text,
        Kind::Binary => Form::Binary,
    };
    row.iter().map(form).collect()
}

/// Whether some of a row did not come.
pub(super) fn is_partial(row: &[Value]) -> bool {
    row.iter().any(|value| value.kind == Kind::Unchanged)
}

fn matches(table: &Table, source: &Source, alias: &str) -> String {
    let one = |(n, schema): &(usize, String)| {
        let value = source.columns[*n].as_deref().unwrap_or("NULL");
        format!("{alias}.{} OPERATOR({}.=) {value}", ident(&table.columns[*n].name), ident(schema))
    };
    table.key_columns().unwrap_or_default().iter().map(one).collect::<Vec<_>>().join(" AND ")
}

fn column_list(table: &Table) -> String {
    table.columns.iter().map(|column| ident(&column.name)).collect::<Vec<_>>().join(",")
}

/// Deletes as many of a row's copies as it says. Rows are the same when their bytes are: there may be no `=` for a type, and
/// where there is one it may hold for rows that differ (1.0 and 1.00).
fn delete_whole(table: &Table, hashed: &[usize], source: &Source) -> String {
    let quoted = table.quoted();
    if table.columns.is_empty() {
        return format!(
            "DELETE FROM ONLY {quoted} WHERE ctid = ANY (ARRAY(SELECT ctid FROM ONLY {quoted} \
             LIMIT (SELECT sum(s.n) FROM {})))",
            source.from
        );
    }
    let ours = |columns: &[usize]| {
        let one = |n: &usize| source.columns[*n].clone().unwrap_or_else(|| "NULL".to_owned());
        columns.iter().map(one).collect::<Vec<_>>().join(",")
    };
    let theirs = |columns: &[usize]| {
        columns.iter().map(|n| format!("d.{}", ident(&table.columns[*n].name))).collect::<Vec<_>>().join(",")
    };
    let all: Vec<usize> = (0..table.columns.len()).collect();
    let index = match hashed.is_empty() {
        true => String::new(),
        false => format!(
            "hash_record_extended(ROW({}), 0) = hash_record_extended(ROW({}), 0) AND ",
            theirs(hashed),
            ours(hashed)
        ),
    };
    format!(
        "DELETE FROM ONLY {quoted} WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM (\
         SELECT d.ctid, s.n, row_number() OVER (PARTITION BY s.o) AS r FROM {} \
         JOIN ONLY {quoted} AS d ON {index}record_image_eq(ROW({}), ROW({}))) x WHERE x.r <= x.n))",
        source.from,
        theirs(&all),
        ours(&all)
    )
}

/// A row in the text format of COPY.
fn text_row(pieces: &[Bytes], row: &[Value]) -> Vec<u8> {
    let mut text = Vec::new();
    for (n, value) in row.iter().enumerate() {
        if n > 0 {
            text.push(b'\t');
        }
        if matches!(value.kind, Kind::Null | Kind::Unchanged) {
            text.extend_from_slice(b"\\N");
            continue;
        }
        for byte in value.of(&pieces[usize::from(value.piece)]) {
            match byte {
                b'\\' => text.extend_from_slice(b"\\\\"),
                b'\n' => text.extend_from_slice(b"\\n"),
                b'\r' => text.extend_from_slice(b"\\r"),
                b'\t' => text.extend_from_slice(b"\\t"),
                byte => text.push(*byte),
            }
        }
    }
    text.push(b'\n');
    text
}
