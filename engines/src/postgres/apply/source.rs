//! Many rows as the parameters of one statement: an array for each column.

use super::{rope::Rope, table::Table};
use crate::postgres::log::pgoutput::{Kind, Value};
use bytes::Bytes;

/// `text` and its array.
const TEXT: u32 = 25;
const TEXT_ARRAY: u32 = 1009;
/// `int8` and its array.
const INT8: u32 = 20;
const INT8_ARRAY: u32 = 1016;

/// How a column's values come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Binary,
    Text,
    /// It is left as it is.
    Absent,
}

/// Rows to be used in a statement: what stands in FROM, what stands for each column, and the parameters.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) from: String,
    /// The expression of each column that is there.
    pub(super) columns: Vec<Option<String>>,
    pub(super) params: Vec<Param>,
}

#[derive(Debug)]
pub(super) struct Param {
    pub(super) oid: u32,
    what: What,
}

#[derive(Debug)]
enum What {
    /// An array of a column's binary values, whose type is this.
    Array { column: usize, element: u32 },
    /// The same in text.
    Literal { column: usize, delimiter: u8 },
    /// An array of whole rows, of which only these columns are used: types that have no arrays.
    Rows { columns: Vec<usize> },
    /// How often each row.
    Counts,
}

/// A row and how often it is meant.
pub(super) type Counted<'a> = (&'a [Value], i64);

impl Source {
    /// Rows of the columns whose form is given. `alias` names them, the first parameter is `first`.
    pub(super) fn new(table: &Table, forms: &[Form], alias: &str, first: usize, counted: bool) -> Self {
        let (mut params, mut names) = (Vec::new(), Vec::new());
        let mut columns: Vec<Option<String>> = vec![None; forms.len()];
        let boxed: Vec<usize> =
            (0..forms.len()).filter(|n| forms[*n] == Form::Binary && table.columns[*n].array_oid == 0).collect();
        if !boxed.is_empty() {
            for (place, (_, column)) in table.layout.iter().enumerate() {
                if let Some(column) = column.filter(|column| boxed.contains(column)) {
                    columns[column] = Some(format!("{alias}.r{place}"));
                }
                names.push(format!("r{place}"));
            }
            params.push(Param { oid: table.row_array, what: What::Rows { columns: boxed } });
        }
        for (n, form) in forms.iter().enumerate() {
            let column = &table.columns[n];
            let (oid, what) = match (form, column.array_oid) {
                (Form::Absent, _) | (Form::Binary, 0) => continue,
                (Form::Binary, oid) => (oid, What::Array { column: n, element: column.type_oid }),
                (Form::Text, 0) => (TEXT_ARRAY, What::Array { column: n, element: TEXT }),
                (Form::Text, oid) => (oid, What::Literal { column: n, delimiter: column.delimiter }),
            };
            let cast = if oid == TEXT_ARRAY && column.type_oid != TEXT && column.array_oid == 0 {
                format!("::{}", column.type_name)
            } else {
                String::new()
            };
            columns[n] = Some(format!("{alias}.c{n}{cast}"));
            names.push(format!("c{n}"));
            params.push(Param { oid, what });
        }
        if counted {
            names.push("n".to_owned());
            params.push(Param { oid: INT8_ARRAY, what: What::Counts });
        }
        let marks: Vec<String> = (0..params.len()).map(|n| format!("${}", n + first)).collect();
        let ordinality = if counted { " WITH ORDINALITY" } else { "" };
        let order = if counted { ",o" } else { "" };
        let from = format!("unnest({}){ordinality} AS {alias}({}{order})", marks.join(","), names.join(","));
        Self { from, columns, params }
    }
}

/// Puts a Bind of the unnamed portal: the parameters of some sources, each with its rows.
pub(super) fn bind(rope: &mut Rope, pieces: &[Bytes], table: &Table, name: &str, parts: &[(&[Param], &[Counted<'_>])]) {
    let mut literals = Vec::new();
    let (mut len, mut count) = (0, 0_u16);
    for (params, rows) in parts {
        for param in *params {
            len += 2 + 4 + param.len(pieces, table, rows, &mut literals);
            count += 1;
        }
    }
    // Portal and statement, their numbers of formats and parameters, and binary results.
    rope.begin(b'B', 1 + name.len() + 1 + 2 + 2 + len + 2);
    rope.put_u8(0);
    rope.put(name.as_bytes());
    rope.put_u8(0);
    rope.put_u16(count);
    for param in parts.iter().flat_map(|(params, _)| *params) {
        rope.put_u16(u16::from(!matches!(param.what, What::Literal { .. })));
    }
    rope.put_u16(count);
    let mut literals = literals.into_iter();
    for (params, rows) in parts {
        for param in *params {
            match param.what {
                What::Literal { .. } => {
                    let literal = Bytes::from(literals.next().unwrap_or_default());
                    rope.put_u32(literal.len() as u32);
                    rope.put_value(&literal, &literal);
                }
                _ => param.put(rope, pieces, table, rows),
            }
        }
    }
    rope.put_u16(0);
}

impl Param {
    fn len(&self, pieces: &[Bytes], table: &Table, rows: &[Counted<'_>], literals: &mut Vec<Vec<u8>>) -> usize {
        const HEADER: usize = 20;
        match &self.what {
            What::Array { column, .. } => {
                HEADER + rows.iter().map(|(row, _)| 4 + row[*column].len as usize).sum::<usize>()
            }
            What::Rows { columns } => {
                let row = |row: &[Value]| columns.iter().map(|n| row[*n].len as usize).sum::<usize>();
                HEADER + rows.iter().map(|(values, _)| 8 + 8 * table.layout.len() + row(values)).sum::<usize>()
            }
            What::Counts => HEADER + 12 * rows.len(),
            What::Literal { column, delimiter } => {
                literals.push(literal(pieces, rows, *column, *delimiter));
                literals[literals.len() - 1].len()
            }
        }
    }

    fn put(&self, rope: &mut Rope, pieces: &[Bytes], table: &Table, rows: &[Counted<'_>]) {
        let len = self.len(pieces, table, rows, &mut Vec::new());
        rope.put_u32(len as u32);
        // One dimension, which may hold NULLs, of this type and length, counted from 1.
        let element = match &self.what {
            What::Array { element, .. } => *element,
            What::Rows { .. } => table.row_type,
            What::Counts | What::Literal { .. } => INT8,
        };
        for word in [1, 1, element, rows.len() as u32, 1] {
            rope.put_u32(word);
        }
        for (row, count) in rows {
            match &self.what {
                What::Array { column, .. } => put_value(rope, pieces, &row[*column]),
                What::Rows { columns } => put_row(rope, pieces, table, row, columns),
                What::Counts | What::Literal { .. } => {
                    rope.put_u32(8);
                    rope.put(&count.to_be_bytes());
                }
            }
        }
    }
}

/// A value after its length; NULL is the length -1.
#[inline]
pub(super) fn put_value(rope: &mut Rope, pieces: &[Bytes], value: &Value) {
    match value.kind {
        Kind::Null | Kind::Unchanged => rope.put_u32(u32::MAX),
        Kind::Text | Kind::Binary => {
            let piece = &pieces[usize::from(value.piece)];
            rope.put_u32(value.len);
            rope.put_value(piece, value.of(piece));
        }
    }
}

fn put_row(rope: &mut Rope, pieces: &[Bytes], table: &Table, row: &[Value], columns: &[usize]) {
    let len: usize = columns.iter().map(|n| row[*n].len as usize).sum();
    rope.put_u32((4 + 8 * table.layout.len() + len) as u32);
    rope.put_u32(table.layout.len() as u32);
    for (oid, column) in &table.layout {
        rope.put_u32(*oid);
        match column.filter(|column| columns.contains(column)) {
            Some(column) => put_value(rope, pieces, &row[column]),
            None => rope.put_u32(u32::MAX),
        }
    }
}

/// An array in text. Every element is quoted, so that nothing in it has a meaning.
fn literal(pieces: &[Bytes], rows: &[Counted<'_>], column: usize, delimiter: u8) -> Vec<u8> {
    let mut text = vec![b'{'];
    for (n, (row, _)) in rows.iter().enumerate() {
        if n > 0 {
            text.push(delimiter);
        }
        let value = &row[column];
        if matches!(value.kind, Kind::Null | Kind::Unchanged) {
            text.extend_from_slice(b"NULL");
            continue;
        }
        text.push(b'"');
        for byte in value.of(&pieces[usize::from(value.piece)]) {
            if matches!(byte, b'"' | b'\\') {
                text.push(b'\\');
            }
            text.push(*byte);
        }
        text.push(b'"');
    }
    text.push(b'}');
    text
}
