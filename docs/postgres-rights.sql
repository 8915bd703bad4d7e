-- The role that Causeway's agents use at a PostgreSQL server. Run it once at each server, as a superuser:
--
--     psql -f postgres-rights.sql
--
-- It has to be a superuser, for as long as agents run, because PostgreSQL gives these rights to nobody else (13 to 18):
--
--   source        CREATE PUBLICATION ... FOR ALL TABLES     tables that are created meanwhile are included by themselves
--                 CREATE EVENT TRIGGER                      DDL is refused, or noticed, while an operation runs
--                 ALTER TABLE ... REPLICA IDENTITY          of tables of every owner, where there is no usable primary key
--                 pg_terminate_backend() of superusers      the fence shuts out everybody
--                 reading every table, large object and sequence, whatever row security says
--   destination   SET session_replication_role              rows arrive as they were, no trigger or foreign key acts again
--                 objects, grants and settings of every owner
--                 pg_terminate_backend() of superusers      nobody is in the database when it opens
--
-- What can be done about the width of that right:
--   * the role is Causeway's alone, so that its sessions (application_name begins with "causeway") can be told from others;
--   * let it in from the agents' machines only, over TLS, with SCRAM. In pg_hba.conf, before other lines:
--         hostssl  all          causeway  <the agents' address>/32  scram-sha-256
--         host     all          causeway  all                       reject
--   * when no operation runs, ALTER ROLE causeway NOLOGIN takes it away. An operation that is under way needs it to end cleanly.
--
-- Give it a password by \password causeway in psql, and hand that to the agents by --postgres-password-file or PGPASSWORD.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'causeway') THEN
        CREATE ROLE causeway;
    END IF;
END $$;

ALTER ROLE causeway LOGIN SUPERUSER REPLICATION NOCREATEROLE NOINHERIT;

-- Its statements are long and few; limits that the server sets for applications are not for it.
ALTER ROLE causeway SET statement_timeout = 0;
ALTER ROLE causeway SET lock_timeout = 0;
ALTER ROLE causeway SET idle_in_transaction_session_timeout = 0;

COMMENT ON ROLE causeway IS 'Agents of Causeway; see docs/postgres-rights.sql';
