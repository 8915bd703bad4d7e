//! Taking up what the agents remember.

use proto::v1;

use super::{error::Error, wire};
use crate::{
    adopt::{self, Adopted},
    auth::Caller,
    core::Core,
};

pub(super) async fn adopt(
    core: &Core,
    caller: &Caller,
    request: v1::AdoptOperationsRequest,
) -> Result<v1::AdoptOperationsResponse, Error> {
    caller.may_adopt(core)?;
    let Adopted { operations, refused } = adopt::adopt(core, request.validate_only).await?;
    for stored in operations.iter().filter(|_| !request.validate_only) {
        let operation = stored.operation();
        tracing::warn!(operation = %operation.id, database = %operation.database, state = operation.state.as_str(),
            by = %caller, "adopted an operation");
    }
    Ok(v1::AdoptOperationsResponse {
        operations: operations.iter().map(|stored| wire::operation(core, stored)).collect(),
        not_adopted: refused
            .into_iter()
            .map(|refused| v1::NotAdopted {
                operation: refused.operation.to_string(),
                found: refused.found,
                message: refused.why,
                remedy: refused.remedy,
            })
            .collect(),
    })
}
