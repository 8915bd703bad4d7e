//! The event triggers of an operation in the user's database: what they refuse, and what they do about new tables.
//!
//! The log carries rows, not definitions, and a rewrite of a table writes no rows into it at all; so DDL is refused while an
//! operation runs, or it is noticed and ends the operation.

use super::super::{OnDdl, sql::literal};
use handover::OperationId;

/// The prefix of the message with which a transaction that changes definitions is noticed in the log.
pub(super) const MESSAGE: &str = "causeway.ddl";

/// Both run at the end of a command, when what it touched is known. A session of ours says so by a setting; so does the
/// trigger itself while it changes a new table.
const GUARDS: &str = r#"
CREATE OR REPLACE FUNCTION causeway.ddl_end() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $causeway$
DECLARE
    found record;
BEGIN
    IF current_setting('causeway.agent', true) = 'on' OR tg_tag = 'REFRESH MATERIALIZED VIEW' THEN
        RETURN;
    END IF;
    FOR found IN
        SELECT c.classid, c.objid, c.command_tag, c.object_type, c.object_identity
        FROM pg_event_trigger_ddl_commands() c
        WHERE c.schema_name IS DISTINCT FROM 'pg_temp'
    LOOP
        @POLICY@
        IF found.classid = 'pg_class'::regclass AND found.object_type = 'table' THEN
            PERFORM causeway.identify(found.objid);
        END IF;
    END LOOP;
END $causeway$;

CREATE OR REPLACE FUNCTION causeway.ddl_drop() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $causeway$
DECLARE
    found record;
BEGIN
    IF current_setting('causeway.agent', true) = 'on' THEN
        RETURN;
    END IF;
    FOR found IN
        SELECT d.object_type, d.object_identity, tg_tag AS command_tag
        FROM pg_event_trigger_dropped_objects() d
        WHERE d.original AND NOT d.is_temporary
    LOOP
        @POLICY@
    END LOOP;
END $causeway$;

CREATE OR REPLACE FUNCTION causeway.identify(relation oid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $causeway$
BEGIN
    IF EXISTS (
        SELECT FROM pg_class c
        WHERE c.oid = relation AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident IN ('d', 'n')
          AND NOT (c.relreplident = 'd' AND EXISTS (
              SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid
                AND NOT EXISTS (SELECT FROM pg_attribute g WHERE g.attrelid = c.oid AND g.attnum = ANY (i.indkey)
                    AND g.attgenerated <> '')))
    ) THEN
        PERFORM set_config('causeway.agent', 'on', true);
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', relation::regclass);
        PERFORM set_config('causeway.agent', '', true);
    END IF;
END $causeway$;

-- The triggers run as whoever changes definitions.
GRANT USAGE ON SCHEMA causeway TO PUBLIC;
GRANT EXECUTE ON FUNCTION causeway.identify(oid) TO PUBLIC;

DROP EVENT TRIGGER IF EXISTS causeway_ddl_end;
CREATE EVENT TRIGGER causeway_ddl_end ON ddl_command_end EXECUTE FUNCTION causeway.ddl_end();
ALTER EVENT TRIGGER causeway_ddl_end ENABLE ALWAYS;
DROP EVENT TRIGGER IF EXISTS causeway_ddl_drop;
CREATE EVENT TRIGGER causeway_ddl_drop ON sql_drop EXECUTE FUNCTION causeway.ddl_drop();
ALTER EVENT TRIGGER causeway_ddl_drop ENABLE ALWAYS;
"#;

/// The statements that make them; run again they change nothing but the policy.
pub(super) fn create(operation: &OperationId, policy: OnDdl) -> String {
    let policy = match policy {
        // 55006 is "object in use"; applications and migration tools show the message to whoever ran the command.
        OnDdl::Block => format!(
            "RAISE EXCEPTION USING ERRCODE = '55006', \
             MESSAGE = format('%s of %s %s is refused while the database is being copied or moved', found.command_tag, \
                 found.object_type, found.object_identity), \
             HINT = {};",
            literal(&format!(
                "Causeway operation {operation} works on this database: do this before it starts or after it has ended."
            ))
        ),
        OnDdl::Cancel => format!(
            "PERFORM pg_logical_emit_message(true, {}, concat_ws(' ', found.command_tag, found.object_identity));",
            literal(MESSAGE)
        ),
    };
    format!(
        "CREATE SCHEMA IF NOT EXISTS causeway;
         COMMENT ON SCHEMA causeway IS 'Helpers of a copy or move by Causeway; they go when it ends';{}",
        GUARDS.replace("@POLICY@", &policy)
    )
}

/// The statements that remove them, and the schema with everything else of ours.
pub(super) const DROP: &str = "
    DROP EVENT TRIGGER IF EXISTS causeway_ddl_end;
    DROP EVENT TRIGGER IF EXISTS causeway_ddl_drop;
    DROP SCHEMA IF EXISTS causeway CASCADE";
