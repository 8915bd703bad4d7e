//! Conversion between the wire and the types of `handover`; what cannot be converted names the field.

use crate::v1;
use handover::{
    Attempt, DatabaseName, Finding, IdError, InstanceName, Kind, OperationId, Position, Severity, Side, Token,
};

/// A field of a message that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadField {
    /// The field, as a path such as `operations.databases[2]`.
    pub field: String,
    /// What is the matter with it.
    pub problem: String,
}

impl std::fmt::Display for BadField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}
impl std::error::Error for BadField {}

fn bad(field: &str, error: IdError) -> BadField {
    BadField { field: field.to_owned(), problem: error.to_string() }
}

/// Log is retained near its cap from this share of it on, in percent.
const NEAR_CAP_PERCENT: u128 = 80;

impl v1::Progress {
    /// Whether the log retained at the source comes near its cap, at which the operation ends.
    pub fn near_cap(&self) -> bool {
        let (used, cap) = (u128::from(self.retained_bytes), u128::from(self.retained_budget_bytes));
        cap > 0 && used * 100 >= cap * NEAR_CAP_PERCENT
    }
}

/// Reads an operation id.
pub fn operation_id(field: &str, text: &str) -> Result<OperationId, BadField> {
    OperationId::parse(text).map_err(|e| bad(field, e))
}

/// Reads an instance name.
pub fn instance_name(field: &str, text: &str) -> Result<InstanceName, BadField> {
    InstanceName::parse(text).map_err(|e| bad(field, e))
}

/// Reads a database name.
pub fn database_name(field: &str, text: &str) -> Result<DatabaseName, BadField> {
    DatabaseName::parse(text).map_err(|e| bad(field, e))
}

/// Reads an operation token.
pub fn token(field: &str, text: &str) -> Result<Token, BadField> {
    Token::parse(text).map_err(|e| bad(field, e))
}

/// Reads a position.
pub fn position(field: &str, text: &str) -> Result<Position, BadField> {
    Position::parse(text).ok_or_else(|| BadField {
        field: field.to_owned(),
        problem: format!("a position is printable ASCII of at most {} bytes", Position::LEN_MAX),
    })
}

/// Reads an attempt, counted from 1.
pub fn attempt(field: &str, n: u32) -> Result<Attempt, BadField> {
    if n == 0 || n == u32::MAX {
        return Err(BadField { field: field.to_owned(), problem: "an attempt is counted from 1".to_owned() });
    }
    Ok(Attempt(n))
}

/// Reads a kind that has to be given.
pub fn kind(field: &str, kind: i32) -> Result<Kind, BadField> {
    match v1::Kind::try_from(kind) {
        Ok(v1::Kind::Move) => Ok(Kind::Move),
        Ok(v1::Kind::Copy) => Ok(Kind::Copy),
        Ok(v1::Kind::Unspecified) | Err(_) => {
            Err(BadField { field: field.to_owned(), problem: "give KIND_MOVE or KIND_COPY".to_owned() })
        }
    }
}

/// Writes a kind.
pub fn kind_to_wire(kind: Kind) -> v1::Kind {
    match kind {
        Kind::Move => v1::Kind::Move,
        Kind::Copy => v1::Kind::Copy,
    }
}

/// Writes a finding.
pub fn finding_to_wire(finding: &Finding) -> v1::Finding {
    let severity = match finding.severity {
        Severity::Warning => v1::Severity::Warning,
        Severity::Error => v1::Severity::Error,
    };
    let side = match finding.side {
        Side::Coordinator => "coordinator",
        Side::Source => "source",
        Side::Dest => "dest",
    };
    v1::Finding {
        severity: severity.into(),
        side: side.to_owned(),
        code: finding.code.clone(),
        message: finding.message.clone(),
        remedy: finding.remedy.clone(),
    }
}

/// Reads a finding. An unknown severity or side of a newer agent is taken for the graver and the coordinator's.
pub fn finding(wire: v1::Finding) -> Finding {
    let severity = match wire.severity() {
        v1::Severity::Warning => Severity::Warning,
        v1::Severity::Error | v1::Severity::Unspecified => Severity::Error,
    };
    let side = match wire.side.as_str() {
        "source" => Side::Source,
        "dest" => Side::Dest,
        _ => Side::Coordinator,
    };
    Finding { severity, side, code: wire.code, message: wire.message, remedy: wire.remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_of_the_cap_are_near_it() {
        let near = |retained_bytes, retained_budget_bytes| {
            v1::Progress { retained_bytes, retained_budget_bytes, ..Default::default() }.near_cap()
        };
        assert!(!near(0, 0) && !near(5, 0) && !near(79, 100));
        assert!(near(80, 100) && near(200, 100) && near(u64::MAX, u64::MAX));
    }
}
