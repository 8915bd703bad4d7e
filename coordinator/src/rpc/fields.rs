//! Checking the fields of requests, all of them, so that every violation is told at once.

use handover::{DatabaseName, InstanceName, Kind, OperationId};
use proto::{
    convert::{self, BadField},
    v1,
};

use super::error::{Error, bad};

/// Most databases or ids of one request.
pub(super) const NAMES_MAX: usize = 100;

/// Collects violations while fields are read.
#[derive(Default)]
pub(super) struct Fields {
    wrong: Vec<BadField>,
}

impl Fields {
    /// The value, or nothing after noting what is wrong with it.
    pub(super) fn take<T>(&mut self, value: Result<T, BadField>) -> Option<T> {
        value.map_err(|wrong| self.wrong.push(wrong)).ok()
    }

    /// Note that a field is wrong.
    pub(super) fn wrong(&mut self, field: &str, problem: impl Into<String>) {
        self.wrong.push(bad(field, problem));
    }

    /// An instance that has to be given.
    pub(super) fn instance(&mut self, field: &str, text: &str) -> Option<InstanceName> {
        self.take(convert::instance_name(field, text))
    }

    /// An instance that may be given.
    pub(super) fn instance_if_given(&mut self, field: &str, text: &str) -> Option<InstanceName> {
        if text.is_empty() { None } else { self.instance(field, text) }
    }

    /// An operation's id.
    pub(super) fn operation(&mut self, field: &str, text: &str) -> Option<OperationId> {
        self.take(convert::operation_id(field, text))
    }

    /// Ids, at most [`NAMES_MAX`].
    pub(super) fn operations(&mut self, field: &str, texts: &[String]) -> Vec<OperationId> {
        self.many(field, texts, |fields, field, text| fields.operation(field, text))
    }

    /// Databases, at most [`NAMES_MAX`], each once.
    pub(super) fn databases(&mut self, field: &str, texts: &[String]) -> Vec<DatabaseName> {
        self.many(field, texts, |fields, field, text| fields.take(convert::database_name(field, text)))
    }

    fn many<T>(&mut self, field: &str, texts: &[String], read: impl Fn(&mut Self, &str, &str) -> Option<T>) -> Vec<T> {
        if texts.len() > NAMES_MAX {
            self.wrong(field, format!("{} are given, at most {NAMES_MAX} are allowed", texts.len()));
            return Vec::new();
        }
        let mut values = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            let field = format!("{field}[{at}]");
            if texts[..at].contains(text) {
                self.wrong(&field, format!("{text:?} is given twice"));
            } else {
                values.extend(read(self, &field, text));
            }
        }
        values
    }

    /// A kind that has to be given.
    pub(super) fn kind(&mut self, field: &str, kind: i32) -> Option<Kind> {
        self.take(convert::kind(field, kind))
    }

    /// A kind that may be given.
    pub(super) fn kind_if_given(&mut self, field: &str, kind: i32) -> Option<Kind> {
        if kind == i32::from(v1::Kind::Unspecified) { None } else { self.kind(field, kind) }
    }

    /// A batch that may be given.
    pub(super) fn batch_if_given(&mut self, field: &str, text: &str) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        self.operation(field, text).map(|id| id.to_string())
    }

    /// A confirmation: the id once more.
    pub(super) fn confirm(&mut self, id: &str, confirm: &str) {
        if confirm.is_empty() || id != confirm {
            self.wrong("confirm", "give the operation's id here a second time, to say that you mean it");
        }
    }

    /// Nothing if all fields are fine.
    pub(super) fn check(self) -> Result<(), Error> {
        if self.wrong.is_empty() { Ok(()) } else { Err(Error::Fields(self.wrong)) }
    }
}

/// A field that [`Fields::check`] has found given and right.
pub(super) fn checked<T>(value: Option<T>, field: &str) -> Result<T, Error> {
    value.ok_or_else(|| Error::Fields(vec![bad(field, "it is missing")]))
}
