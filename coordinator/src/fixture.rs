//! An operation for unit tests.

use handover::{
    Attempt, DatabaseName, InstanceName, Kind, OperationId, Token,
    operation::{Operation, Options, State, Times},
};

/// An operation from west to east in a state, of which nothing else is known.
pub(crate) fn operation(kind: Kind, state: State) -> Operation {
    let instance = |name| InstanceName::parse(name).expect("a name");
    Operation {
        id: OperationId::parse("0197-a").expect("an id"),
        batch: "b".to_owned(),
        kind,
        source: instance("west"),
        destination: instance("east"),
        database: DatabaseName::parse("shop").expect("a name"),
        token: Token::parse("0123456789abcdef0123456789abcdef").expect("a token"),
        options: Options { log_budget_bytes: 0, window_ms: 1 },
        state,
        attempt: Attempt(0),
        findings: vec![],
        reason: None,
        times: Times::default(),
        hook: None,
        freeze_ms: None,
        overrides: vec![],
    }
}
