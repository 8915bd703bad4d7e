//! What a database needs at its destination.

use super::Subject;
use crate::{
    Result,
    postgres::{
        payload::{Extension, FORMAT, Requirements, Role},
        rows::{Row, rows},
        source::seed::properties,
        sql::Sql,
    },
};

/// Reads it. `sql` is with the maintenance database, `inside` with the database.
pub(super) async fn read(sql: &Sql, inside: &Sql, subject: &Subject<'_>, version: u32) -> Result<Requirements> {
    let properties = properties::read(sql, subject.name).await?;
    let mut tablespaces = tablespaces(inside).await?;
    tablespaces.extend(properties.tablespace.clone().filter(|own| !tablespaces.contains(own)));
    let extensions =
        rows(inside, "list the extensions", "SELECT extname, extversion FROM pg_extension ORDER BY 1").await?;
    Ok(Requirements {
        format: FORMAT,
        server_version: version,
        database: subject.name.to_owned(),
        owner: properties.owner,
        locale: properties.locale,
        size_bytes: subject.row.parse(1)?,
        tablespaces,
        extensions: extensions.iter().map(|row| Extension { name: row.owned(0), version: row.owned(1) }).collect(),
        roles: roles(inside).await?,
    })
}

async fn tablespaces(inside: &Sql) -> Result<Vec<String>> {
    let query = "SELECT DISTINCT t.spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace
         WHERE t.spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1";
    Ok(rows(inside, "list the tablespaces", query).await?.iter().map(|row| row.owned(0)).collect())
}

/// Everybody who owns something in the database or of it, holds a grant, is named by a policy, or has a setting there. The one
/// that initdb made is not recorded as an owner, being always there; at the destination it may have another name.
pub(in crate::postgres::source) async fn roles(inside: &Sql) -> Result<Vec<Role>> {
    let query = "
        WITH here AS (SELECT oid, datdba FROM pg_database WHERE datname = current_database()),
        named AS (
            SELECT s.refobjid AS oid FROM pg_shdepend s, here
            WHERE s.refclassid = 'pg_authid'::regclass
              AND (s.dbid = here.oid OR s.dbid = 0 AND s.classid = 'pg_database'::regclass AND s.objid = here.oid)
            UNION SELECT datdba FROM here
            UNION SELECT setrole FROM pg_db_role_setting, here WHERE setdatabase = here.oid AND setrole <> 0
            UNION SELECT 10 FROM pg_class WHERE oid >= 16384 AND relowner = 10
            UNION SELECT 10 FROM pg_proc WHERE oid >= 16384 AND proowner = 10)
        SELECT r.rolname, r.rolcanlogin, r.rolsuper, r.rolinherit, r.rolcreatedb, r.rolcreaterole, r.rolreplication, r.rolbypassrls,
            (SELECT to_json(array_agg(g.rolname ORDER BY g.rolname)) FROM pg_auth_members m
             JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid)
        FROM named JOIN pg_roles r USING (oid) WHERE r.rolname !~ '^pg_' ORDER BY 1";
    let role = |row: &Row| {
        Ok(Role {
            name: row.owned(0),
            login: row.flag(1),
            superuser: row.flag(2),
            inherit: row.flag(3),
            createdb: row.flag(4),
            createrole: row.flag(5),
            replication: row.flag(6),
            bypassrls: row.flag(7),
            member_of: row.list(8)?,
        })
    };
    rows(inside, "list the roles of the database", query).await?.iter().map(role).collect()
}
