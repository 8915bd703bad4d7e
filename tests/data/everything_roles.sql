-- The roles that everything.sql names. They belong to the server, so this may run again.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'app_owner') THEN CREATE ROLE app_owner; END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'app_reader') THEN CREATE ROLE app_reader LOGIN NOINHERIT; END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'Weird "Role"') THEN CREATE ROLE "Weird ""Role""" CREATEDB; END IF;
    GRANT app_owner TO "Weird ""Role""";
END $$;
