//! Roles that the destination lacks, created where its agent may, and gone again if the operation is discarded.

use super::{
    super::{
        payload::Role,
        sql::{failed, ident},
    },
    Shared,
    memo::Memo,
    preflight,
};
use crate::{Error, Result};
use handover::OperationId;
use std::collections::BTreeSet;

/// Creates the roles that are missing, without passwords; records them in the memo in the same transaction.
pub(super) async fn create_missing(
    shared: &Shared,
    operation: &OperationId,
    roles: &[Role],
    memo: &mut Memo,
) -> Result<()> {
    let tx = shared.store.transaction("create roles").await?;
    let missing = preflight::missing_roles(&tx, roles).await?;
    if missing.is_empty() {
        return Ok(());
    }
    if !shared.config.setup().create_missing_roles {
        let names: Vec<&str> = missing.iter().map(|role| role.name.as_str()).collect();
        return Err(Error::Unsupported {
            code: "ROLE_MISSING",
            message: format!("the destination has no role {}", names.join(", ")),
            remedy: "create them, or start the agent with --create-missing-roles; then start again".to_owned(),
        });
    }
    for role in &missing {
        tx.run(&format!("create role {:?}", role.name), &create_statement(role)).await?;
    }
    let parents: BTreeSet<&str> = missing.iter().flat_map(|role| role.member_of.iter().map(String::as_str)).collect();
    let parents: Vec<&str> = parents.into_iter().collect();
    let there = "SELECT rolname::text FROM pg_roles WHERE rolname::text = ANY ($1)";
    let rows = tx.query(there, &[&parents]).await.map_err(|error| failed("look for roles", &error))?;
    let there: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    for role in &missing {
        for parent in role.member_of.iter().filter(|parent| there.contains(*parent)) {
            let grant = format!("GRANT {} TO {}", ident(parent), ident(&role.name));
            tx.run(&format!("make role {:?} a member", role.name), &grant).await?;
        }
    }
    memo.roles.extend(missing.iter().map(|role| role.name.clone()));
    tx.set_memo(operation, memo).await?;
    tx.commit().await
}

/// Drops the roles that were created for the operation, but those that somebody uses meanwhile.
pub(super) async fn drop_created(shared: &Shared, roles: &[String]) -> Result<()> {
    if roles.is_empty() {
        return Ok(());
    }
    let sql = shared.maintenance().await?;
    // In the other order members go before what they are members of, mostly; a grant goes with either.
    for role in roles.iter().rev() {
        if let Err(error) = sql.run("drop a role", &format!("DROP ROLE IF EXISTS {}", ident(role))).await {
            tracing::warn!(role, %error, "leave a role that was created for an operation");
        }
    }
    Ok(())
}

/// Everything but the password, and never a superuser: that is for people to decide.
fn create_statement(role: &Role) -> String {
    let word = |on: bool, word: &str| if on { format!(" {word}") } else { format!(" NO{word}") };
    [
        format!("CREATE ROLE {}", ident(&role.name)),
        word(role.login, "LOGIN"),
        word(role.inherit, "INHERIT"),
        word(role.createdb, "CREATEDB"),
        word(role.createrole, "CREATEROLE"),
        word(role.replication, "REPLICATION"),
        word(role.bypassrls, "BYPASSRLS"),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_created_without_superuser_and_password() {
        let role = Role {
            name: "a\"b".to_owned(),
            login: true,
            superuser: true,
            inherit: true,
            createdb: false,
            createrole: false,
            replication: false,
            bypassrls: true,
            member_of: vec![],
        };
        let sql = create_statement(&role);
        assert_eq!(sql, r#"CREATE ROLE "a""b" LOGIN INHERIT NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS"#);
    }
}
