-- One of every kind of object that PostgreSQL 15 knows, with rows, for tests of a whole copy.
--
-- Plain SQL that runs as one string in an empty database, by a superuser; run everything_roles.sql before it in any
-- database of the server. What a table holds is chosen so that a wrong copy shows: values at the edges of their types,
-- NULLs, duplicates, names that need quotes, names of 63 bytes.

SET client_min_messages = warning;

-- A value added to an enum can be used only after its transaction; one string is one transaction unless it says otherwise.
BEGIN;

-- Schemas, also one whose name needs quotes.
CREATE SCHEMA shop AUTHORIZATION app_owner;
CREATE SCHEMA "Weird ""Schema""; --" AUTHORIZATION "Weird ""Role""";
CREATE SCHEMA ext;
COMMENT ON SCHEMA shop IS 'It''s a shop';
GRANT USAGE ON SCHEMA shop TO app_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner IN SCHEMA shop GRANT SELECT ON TABLES TO app_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Extensions, some in schemas of their own.
CREATE EXTENSION pg_trgm WITH SCHEMA ext;
CREATE EXTENSION hstore WITH SCHEMA ext;
CREATE EXTENSION citext WITH SCHEMA ext;
CREATE EXTENSION btree_gist WITH SCHEMA public;
CREATE EXTENSION pgcrypto WITH SCHEMA ext;
CREATE EXTENSION ltree WITH SCHEMA ext;
CREATE EXTENSION file_fdw WITH SCHEMA ext;
CREATE EXTENSION postgres_fdw WITH SCHEMA ext;
COMMENT ON EXTENSION hstore IS 'our comment on hstore';

-- Types of every kind.
CREATE TYPE shop.mood AS ENUM ('sad', 'so-so', 'happy', 'it''s "great"');
ALTER TYPE shop.mood ADD VALUE 'meh' BEFORE 'so-so';
COMMIT;
CREATE TYPE shop.address AS (street text, zip varchar(10), geo point);
CREATE TYPE shop.person AS (name text, home shop.address, moods shop.mood[]);
CREATE TYPE shop.floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE DOMAIN shop.positive AS integer DEFAULT 1 CONSTRAINT is_positive CHECK (VALUE > 0);
CREATE DOMAIN shop.email AS ext.citext CHECK (VALUE ~ '@');
CREATE DOMAIN shop.positives AS shop.positive[];
CREATE TYPE shop.shell;
COMMENT ON TYPE shop.mood IS 'how it feels';
COMMENT ON DOMAIN shop.positive IS 'more than nothing';
ALTER TYPE shop.mood OWNER TO app_owner;
GRANT USAGE ON TYPE shop.address TO app_reader;

-- Collations and text search.
CREATE COLLATION shop.german (provider = icu, locale = 'de-u-kn-true');
CREATE COLLATION shop.insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
COMMENT ON COLLATION shop.german IS 'numbers as numbers';
CREATE TEXT SEARCH DICTIONARY shop.simple_dict (TEMPLATE = simple, stopwords = english);
CREATE TEXT SEARCH CONFIGURATION shop.search (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION shop.search ALTER MAPPING FOR asciiword WITH shop.simple_dict;
CREATE TEXT SEARCH TEMPLATE shop.simple_template (LEXIZE = dsimple_lexize, INIT = dsimple_init);
CREATE TEXT SEARCH PARSER shop.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
COMMENT ON TEXT SEARCH CONFIGURATION shop.search IS 'how we search';

-- Functions, procedures, aggregates, operators, casts.
CREATE FUNCTION shop.add_tax(price numeric, rate numeric DEFAULT 0.19) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN round(price * (1 + rate), 2);
CREATE FUNCTION shop.label(m shop.mood) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = shop, pg_temp
    AS $body$ BEGIN RETURN 'mood: ' || m::text || $q$; it's quoted$q$; END $body$;
CREATE FUNCTION shop.many(OUT a integer, OUT b text) RETURNS SETOF record LANGUAGE sql ROWS 3 AS
    $$ VALUES (1, 'one'), (2, 'two'), (3, NULL) $$;
CREATE FUNCTION shop.begin_atomic(n integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT n + 1; SELECT n + 2; END;
CREATE PROCEDURE shop.nothing(INOUT n integer) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; COMMIT; END $$;
CREATE FUNCTION shop.first_state(anyelement, anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1';
CREATE AGGREGATE shop.first_of(anyelement) (SFUNC = shop.first_state, STYPE = anyelement);
CREATE AGGREGATE shop.percentile_of(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
CREATE FUNCTION shop.near(a point, b point) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT a <-> b < 1';
CREATE OPERATOR shop.~~~ (LEFTARG = point, RIGHTARG = point, FUNCTION = shop.near, COMMUTATOR = OPERATOR(shop.~~~));
CREATE FUNCTION shop.mood_rank(shop.mood) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT CASE $1 WHEN 'sad' THEN 1 ELSE 9 END $$;
CREATE CAST (shop.mood AS integer) WITH FUNCTION shop.mood_rank(shop.mood) AS ASSIGNMENT;
CREATE FUNCTION shop.cmp_abs(integer, integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN abs($1::int8) < abs($2::int8) THEN -1 WHEN abs($1::int8) > abs($2::int8) THEN 1 ELSE 0 END';
CREATE OPERATOR FAMILY shop.abs_family USING btree;
CREATE OPERATOR CLASS shop.abs_ops FOR TYPE integer USING btree FAMILY shop.abs_family AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 shop.cmp_abs(integer, integer);
CREATE CONVERSION shop.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
COMMENT ON FUNCTION shop.add_tax(numeric, numeric) IS 'gross';
COMMENT ON AGGREGATE shop.first_of(anyelement) IS 'the first';
COMMENT ON CAST (shop.mood AS integer) IS 'ranked';
COMMENT ON OPERATOR shop.~~~ (point, point) IS 'close';
REVOKE EXECUTE ON FUNCTION shop.label(shop.mood) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shop.label(shop.mood) TO app_reader;
ALTER FUNCTION shop.add_tax(numeric, numeric) OWNER TO app_owner;
GRANT EXECUTE ON PROCEDURE shop.nothing(integer) TO app_reader;

-- Sequences of each kind.
CREATE SEQUENCE shop.plain;
CREATE SEQUENCE shop.down AS smallint INCREMENT -3 MINVALUE -100 MAXVALUE 50 START 50 CACHE 5 CYCLE;
CREATE SEQUENCE shop."Never Called" START 4711;
CREATE UNLOGGED SEQUENCE shop.unlogged_seq;
SELECT nextval('shop.plain') FROM generate_series(1, 42);
SELECT nextval('shop.down'), setval('shop.unlogged_seq', 77);
ALTER SEQUENCE shop.plain OWNER TO app_owner;
GRANT USAGE ON SEQUENCE shop.down TO app_reader;
COMMENT ON SEQUENCE shop.plain IS 'counts';

-- Tables: every type, generated and identity columns, defaults, storage, constraints.
CREATE TABLE shop.types (
    id bigint PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, n numeric, n2 numeric(30, 10), r real, d double precision, m money,
    t text COLLATE shop.german, vc varchar(20), c char(5), nm name, bin bytea, ts timestamp, tz timestamptz, dt date, tm time, tmz timetz, iv interval,
    u uuid, js json, jb jsonb, x xml, ip inet, net cidr, mac macaddr, mac8 macaddr8, bits bit(5), vbits bit varying,
    pt point, ln line, sg lseg, bx box, ph path, pg polygon, ci circle, tsv tsvector, tsq tsquery, lsn pg_lsn, snap pg_snapshot, o oid,
    reg regclass, regp regprocedure, regt regtype, ir int4range, tr tstzrange, mr int8multirange, fr shop.floatrange,
    e shop.mood, ea shop.mood[], a shop.address, aa shop.address[], p shop.person, dom shop.positive, doms shop.positives, mail shop.email,
    ia integer[], ta text[][], hs ext.hstore, lt ext.ltree, jp jsonpath, ci_text ext.citext, xid8 xid8
);
INSERT INTO shop.types (id) VALUES (0);
INSERT INTO shop.types VALUES (
    1, true, -32768, -2147483648, -9223372036854775808, 'NaN', 12345678901234567890.0123456789, 'Infinity', '-Infinity', '-92233720368547758.08',
    E'tab\tnew\nline \\ backslash ''quote'' \u00e4\u20ac\U0001F600', 'varchar', 'ch', 'a_name', '\x00ff5c0a', 'infinity', '-infinity', '4713-01-01 BC', '24:00:00', '23:59:59.999999+15:59', '-178000000 years 11 mons 3 days 04:05:06.789',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": [1, 2.50, null],  "a": "dup"}', '{"b": 1e400, "a": "\u20ac"}', '<a b="c">d</a>', '::ffff:1.2.3.4/120', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'10101', B'',
    '(1e308,-0)', '{1,2,3}', '[(0,0),(1,1)]', '((2,2),(0,0))', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(0,0),5>', 'a:1A fat:2B,4C cat:5', '''fat'' & (''cat'':* | !''rat'')', '16/B374D848', '10:20:10,14,15', 4294967295,
    'pg_class', 'abs(integer)', 'shop.mood', 'empty', '(,2020-01-01)', '{[1,3),[5,7)}', '[1.5,2.5)',
    'it''s "great"', '{sad,NULL,"it''s \"great\""}', ROW('Main "St", 1', NULL, '(1,2)'), ARRAY[ROW('x', 'y', NULL)::shop.address, NULL], ROW('P', ROW('s', 'z', '(0,0)'), '{happy}'), 7, '{1,2}', 'Me@Example.com',
    '[5:7]={1,NULL,3}', '{{a,"b,c"},{NULL,"NULL"}}', 'a=>1, "b c"=>NULL', 'Top.Science', '$.a[*] ? (@ > 1)', 'MixedCase', '18446744073709551615');
INSERT INTO shop.types (id, t, bin, i4, doms) SELECT n, repeat(md5(n::text), n % 700), decode(repeat(md5(n::text), n % 90), 'hex'), n, ARRAY[n, n + 1] FROM generate_series(2, 600) n;

CREATE TABLE shop.customers (
    id bigint GENERATED ALWAYS AS IDENTITY (START WITH 100 INCREMENT BY 5),
    nr integer GENERATED BY DEFAULT AS IDENTITY,
    mail shop.email NOT NULL, name text NOT NULL DEFAULT 'nobody', born date CHECK (born > '1850-01-01'),
    name_lower text GENERATED ALWAYS AS (lower(name)) STORED, serial_nr serial, big text,
    CONSTRAINT customers_pkey PRIMARY KEY (id) INCLUDE (name), CONSTRAINT customers_mail_key UNIQUE (mail),
    CONSTRAINT later UNIQUE (nr) DEFERRABLE INITIALLY DEFERRED
);
ALTER TABLE shop.customers ALTER big SET STORAGE EXTERNAL, ALTER big SET COMPRESSION pglz, ALTER mail SET STATISTICS 500, ALTER name SET (n_distinct = -0.5);
ALTER TABLE shop.customers SET (fillfactor = 80, autovacuum_enabled = false, toast.autovacuum_enabled = false);
INSERT INTO shop.customers (mail, name, born, big) SELECT 'user' || n || '@example.com', 'Name ' || n, date '1970-01-01' + n, repeat(chr(64 + n % 26), n * 20) FROM generate_series(1, 500) n;
DELETE FROM shop.customers WHERE nr % 7 = 0;
UPDATE shop.customers SET name = name || ' updated' WHERE nr % 5 = 0;
ALTER TABLE shop.customers OWNER TO app_owner;
GRANT SELECT (id, name), UPDATE (name) ON shop.customers TO app_reader;
GRANT INSERT ON shop.customers TO "Weird ""Role""" WITH GRANT OPTION;
COMMENT ON TABLE shop.customers IS 'who buys; "quoted", it''s';
COMMENT ON COLUMN shop.customers.mail IS 'unique';
COMMENT ON CONSTRAINT later ON shop.customers IS 'checked at the end';

CREATE TABLE shop.orders (
    id bigserial PRIMARY KEY, customer bigint NOT NULL REFERENCES shop.customers ON DELETE CASCADE, placed timestamptz NOT NULL DEFAULT now(),
    mood shop.mood NOT NULL DEFAULT 'so-so', total numeric(12, 2), during tstzrange, room integer,
    self bigint REFERENCES shop.orders DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT no_overlap EXCLUDE USING gist (room WITH =, during WITH &&) WHERE (room IS NOT NULL)
);
INSERT INTO shop.orders (customer, placed, mood, total, during, room)
    SELECT id, '2020-01-01 UTC'::timestamptz + nr * interval '1 hour', (enum_range(NULL::shop.mood))[1 + nr % 5], nr * 1.11,
           tstzrange('2020-01-01 UTC'::timestamptz + nr * interval '1 hour', '2020-01-01 UTC'::timestamptz + nr * interval '1 hour' + interval '30 min'), nr % 3 FROM shop.customers;
UPDATE shop.orders SET self = id - 1 WHERE id % 2 = 0;
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE shop.orders ADD CONSTRAINT not_yet CHECK (total >= 0) NOT VALID;
ALTER TABLE shop.orders ADD CONSTRAINT fk_not_valid FOREIGN KEY (room) REFERENCES shop.types (id) NOT VALID;
CREATE INDEX orders_placed ON shop.orders (placed DESC NULLS LAST) WITH (fillfactor = 70);
CREATE INDEX orders_part ON shop.orders (customer) WHERE mood = 'happy';
CREATE INDEX orders_expr ON shop.orders ((total * 2), md5(id::text) COLLATE "C" text_pattern_ops);
CREATE INDEX orders_brin ON shop.orders USING brin (placed) WITH (pages_per_range = 16);
CREATE INDEX customers_trgm ON shop.customers USING gin (name ext.gin_trgm_ops);
CREATE INDEX customers_hash ON shop.customers USING hash (name);
CREATE UNIQUE INDEX customers_cover ON shop.customers (nr) INCLUDE (born);
CREATE INDEX types_abs ON shop.types (i4 shop.abs_ops);
ALTER TABLE shop.orders CLUSTER ON orders_placed;
ALTER INDEX shop.orders_expr ALTER COLUMN 1 SET STATISTICS 400;
COMMENT ON INDEX shop.orders_part IS 'the happy ones';
CREATE STATISTICS shop.orders_stats (ndistinct, dependencies, mcv) ON customer, mood FROM shop.orders;
CREATE STATISTICS shop.orders_expr_stats ON (total % 10), room FROM shop.orders;
COMMENT ON STATISTICS shop.orders_stats IS 'related';
ALTER STATISTICS shop.orders_stats SET STATISTICS 300;

-- No key at all, with duplicates and NULLs; a replica identity by index, by full, by nothing.
CREATE TABLE shop.no_key (a integer, b text, c double precision);
INSERT INTO shop.no_key SELECT n % 10, CASE WHEN n % 3 = 0 THEN NULL ELSE 'dup' END, CASE WHEN n % 2 = 0 THEN 'NaN'::float8 END FROM generate_series(1, 200) n;
CREATE TABLE shop.by_index (k integer NOT NULL, v text);
CREATE UNIQUE INDEX by_index_k ON shop.by_index (k);
ALTER TABLE shop.by_index REPLICA IDENTITY USING INDEX by_index_k;
INSERT INTO shop.by_index SELECT n, 'v' || n FROM generate_series(1, 50) n;
CREATE TABLE shop.by_full (k integer PRIMARY KEY, v text);
ALTER TABLE shop.by_full REPLICA IDENTITY FULL;
INSERT INTO shop.by_full SELECT n, 'v' || n FROM generate_series(1, 50) n;
CREATE TABLE shop.deferrable_key (k integer PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
INSERT INTO shop.deferrable_key SELECT n, 'v' || n FROM generate_series(1, 50) n;
CREATE TABLE shop.no_columns ();
INSERT INTO shop.no_columns DEFAULT VALUES;
INSERT INTO shop.no_columns DEFAULT VALUES;
CREATE TABLE shop.only_generated (a integer GENERATED ALWAYS AS (1) STORED);
INSERT INTO shop.only_generated DEFAULT VALUES;
CREATE TABLE shop.dropped_columns (a integer, gone text, b integer DEFAULT 5, PRIMARY KEY (a));
INSERT INTO shop.dropped_columns SELECT n, 'x', n FROM generate_series(1, 20) n;
ALTER TABLE shop.dropped_columns DROP COLUMN gone;
ALTER TABLE shop.dropped_columns ADD COLUMN fast text DEFAULT 'filled in without a rewrite';
CREATE UNLOGGED TABLE shop.cache (k text PRIMARY KEY, v jsonb);
INSERT INTO shop.cache SELECT 'k' || n, jsonb_build_object('n', n) FROM generate_series(1, 30) n;
CREATE TABLE shop.of_type OF shop.address (zip WITH OPTIONS NOT NULL, PRIMARY KEY (zip));
INSERT INTO shop.of_type VALUES ('s', 'z', '(1,1)');
CREATE TABLE shop.composite_of_table (id integer PRIMARY KEY, o shop.orders, c shop.customers[]);
INSERT INTO shop.composite_of_table SELECT 1, o, NULL FROM shop.orders o LIMIT 1;

-- Names.
CREATE TABLE "Weird ""Schema""; --"."a table with ""quotes"", commas and 'apostrophes'" ("select" integer PRIMARY KEY, "Ünï cödé" text, "a.b" text, "$1" text, "tab	in it" text);
INSERT INTO "Weird ""Schema""; --"."a table with ""quotes"", commas and 'apostrophes'" VALUES (1, 'ä', 'b', 'c', 'd'), (2, NULL, '', E'\\N', E'\\.');
CREATE INDEX "index with a ; in it" ON "Weird ""Schema""; --"."a table with ""quotes"", commas and 'apostrophes'" ("Ünï cödé", "a.b");
CREATE TABLE shop.aaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg (aaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg integer PRIMARY KEY, v text UNIQUE);
INSERT INTO shop.aaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg VALUES (1, 'x');
ALTER TABLE "Weird ""Schema""; --"."a table with ""quotes"", commas and 'apostrophes'" OWNER TO "Weird ""Role""";

-- Inheritance and partitions of several levels, with indexes on each.
CREATE TABLE shop.vehicles (id integer PRIMARY KEY, name text);
CREATE TABLE shop.cars (doors integer, PRIMARY KEY (id)) INHERITS (shop.vehicles);
CREATE TABLE shop.sports_cars (top_speed integer CHECK (top_speed > 200) NO INHERIT) INHERITS (shop.cars);
INSERT INTO shop.vehicles SELECT n, 'v' || n FROM generate_series(1, 10) n;
INSERT INTO shop.cars SELECT n, 'c' || n, 4 FROM generate_series(11, 20) n;
INSERT INTO shop.sports_cars SELECT n, 's' || n, 2, 250 FROM generate_series(21, 30) n;
CREATE TABLE shop.events (at timestamptz NOT NULL, kind text NOT NULL, n bigint GENERATED ALWAYS AS (length(kind)) STORED, body jsonb, PRIMARY KEY (at, kind)) PARTITION BY RANGE (at);
CREATE TABLE shop.events_2020 PARTITION OF shop.events FOR VALUES FROM ('2020-01-01 UTC') TO ('2021-01-01 UTC') PARTITION BY LIST (kind);
CREATE TABLE shop.events_2020_a PARTITION OF shop.events_2020 FOR VALUES IN ('a', 'aa');
CREATE TABLE shop.events_2020_rest (body jsonb, kind text NOT NULL, at timestamptz NOT NULL, n bigint GENERATED ALWAYS AS (length(kind)) STORED);
ALTER TABLE shop.events_2020 ATTACH PARTITION shop.events_2020_rest DEFAULT;
CREATE TABLE shop.events_2021 PARTITION OF shop.events FOR VALUES FROM ('2021-01-01 UTC') TO (MAXVALUE) WITH (fillfactor = 90);
CREATE INDEX events_kind ON shop.events (kind);
CREATE INDEX only_parent ON ONLY shop.events (body);
CREATE TABLE shop.hashed (id integer REFERENCES shop.vehicles, v text, UNIQUE (id)) PARTITION BY HASH (id);
CREATE TABLE shop.hashed_0 PARTITION OF shop.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE shop.hashed_1 PARTITION OF shop.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE shop.refers_to_partitioned (id integer PRIMARY KEY, hashed integer REFERENCES shop.hashed (id));
INSERT INTO shop.events (at, kind, body) SELECT '2020-06-01 UTC'::timestamptz + n * interval '3 days', (ARRAY['a', 'aa', 'b', 'c'])[1 + n % 4], jsonb_build_object('n', n) FROM generate_series(1, 200) n;
INSERT INTO shop.hashed SELECT n, 'h' || n FROM generate_series(1, 10) n;
INSERT INTO shop.refers_to_partitioned SELECT n, n FROM generate_series(1, 10) n;

-- Row level security.
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.by_full ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON shop.orders AS PERMISSIVE FOR SELECT TO app_reader USING (mood <> 'sad');
CREATE POLICY strict ON shop.orders AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (true) WITH CHECK (total > 0);
COMMENT ON POLICY mine ON shop.orders IS 'not the sad ones';

-- Views, also one that needs a primary key, one on another, recursive, with check option, with rules and triggers.
CREATE VIEW shop.happy AS SELECT o.id, c.name, o.total FROM shop.orders o JOIN shop.customers c ON c.id = o.customer WHERE o.mood = 'happy';
CREATE VIEW shop.by_key AS SELECT c.id, c.name, c.mail, count(o.id) FROM shop.customers c LEFT JOIN shop.orders o ON o.customer = c.id GROUP BY c.id;
CREATE RECURSIVE VIEW shop.countdown (n) AS SELECT 5 UNION ALL SELECT n - 1 FROM countdown WHERE n > 0;
CREATE VIEW shop.checked WITH (security_barrier, security_invoker) AS SELECT * FROM shop.by_index WHERE k > 10 WITH LOCAL CHECK OPTION;
CREATE VIEW shop.on_view AS SELECT * FROM shop.happy WHERE total > 10;
COMMENT ON VIEW shop.happy IS 'for the board';
GRANT SELECT ON shop.happy TO app_reader;
ALTER VIEW shop.happy ALTER total SET DEFAULT 5;
CREATE MATERIALIZED VIEW shop.totals AS SELECT customer, sum(total) AS total FROM shop.orders GROUP BY customer;
CREATE UNIQUE INDEX totals_customer ON shop.totals (customer);
CREATE MATERIALIZED VIEW shop.totals_of_totals AS SELECT sum(total) AS total, count(*) FROM shop.totals;
CREATE MATERIALIZED VIEW shop.aa_first_by_name AS SELECT * FROM shop.totals_of_totals;
CREATE MATERIALIZED VIEW shop.matview_by_key AS SELECT c.id, c.name FROM shop.customers c GROUP BY c.id;
CREATE MATERIALIZED VIEW shop.of_partitions AS SELECT kind, count(*) FROM shop.events GROUP BY kind;
CREATE MATERIALIZED VIEW shop.empty AS SELECT * FROM shop.orders WITH NO DATA;
COMMENT ON MATERIALIZED VIEW shop.totals IS 'sums';
GRANT SELECT ON shop.totals TO app_reader;
CREATE RULE log_it AS ON INSERT TO shop.by_index DO ALSO NOTIFY by_index;
CREATE RULE always_rule AS ON DELETE TO shop.by_index DO ALSO NOTIFY by_index;
ALTER TABLE shop.by_index ENABLE ALWAYS RULE always_rule;
CREATE RULE instead_rule AS ON UPDATE TO shop.happy DO INSTEAD NOTHING;
COMMENT ON RULE log_it ON shop.by_index IS 'tells';

-- Triggers of every kind and state.
CREATE TABLE shop.audit (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text NOT NULL, what text NOT NULL);
CREATE FUNCTION shop.audit_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO shop.audit (who, what) VALUES (TG_NAME, TG_OP); RETURN COALESCE(NEW, OLD); END $$;
CREATE TRIGGER ordinary AFTER INSERT OR UPDATE OF mood ON shop.orders FOR EACH ROW WHEN (NEW.total > 100) EXECUTE FUNCTION shop.audit_it();
CREATE TRIGGER always AFTER UPDATE ON shop.by_full FOR EACH ROW EXECUTE FUNCTION shop.audit_it();
ALTER TABLE shop.by_full ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER for_replica AFTER INSERT ON shop.no_key FOR EACH ROW EXECUTE FUNCTION shop.audit_it();
ALTER TABLE shop.no_key ENABLE REPLICA TRIGGER for_replica;
CREATE TRIGGER disabled BEFORE DELETE ON shop.customers FOR EACH ROW EXECUTE FUNCTION shop.audit_it();
ALTER TABLE shop.customers DISABLE TRIGGER disabled;
CREATE TRIGGER statement AFTER TRUNCATE ON shop.audit FOR EACH STATEMENT EXECUTE FUNCTION shop.audit_it();
CREATE TRIGGER transition AFTER UPDATE ON shop.deferrable_key REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION shop.audit_it();
CREATE CONSTRAINT TRIGGER constraint_trigger AFTER INSERT ON shop.by_full DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shop.audit_it();
CREATE TRIGGER on_partitioned AFTER INSERT ON shop.events FOR EACH ROW EXECUTE FUNCTION shop.audit_it();
CREATE TRIGGER instead INSTEAD OF INSERT ON shop.by_key FOR EACH ROW EXECUTE FUNCTION shop.audit_it();
COMMENT ON TRIGGER ordinary ON shop.orders IS 'keeps count';
CREATE FUNCTION shop.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('shop.last_ddl', tg_tag, false); END $$;
CREATE EVENT TRIGGER ddl_seen ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION shop.on_ddl();
CREATE EVENT TRIGGER ddl_always ON sql_drop EXECUTE FUNCTION shop.on_ddl();
ALTER EVENT TRIGGER ddl_always ENABLE ALWAYS;
CREATE EVENT TRIGGER ddl_off ON ddl_command_start EXECUTE FUNCTION shop.on_ddl();
ALTER EVENT TRIGGER ddl_off DISABLE;
COMMENT ON EVENT TRIGGER ddl_seen IS 'watches';

-- Foreign data.
CREATE FOREIGN DATA WRAPPER own_wrapper OPTIONS (debug 'true');
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE SERVER remote TYPE 'pg' VERSION '15' FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '192.0.2.1', dbname 'x');
CREATE USER MAPPING FOR app_reader SERVER remote OPTIONS (user 'u', password 'not a secret');
CREATE FOREIGN TABLE shop.passwd (line text OPTIONS (force_not_null 'false')) SERVER files OPTIONS (filename '/dev/null', format 'csv');
CREATE FOREIGN TABLE shop.elsewhere (id integer NOT NULL, v text) SERVER remote OPTIONS (table_name 'there');
GRANT USAGE ON FOREIGN SERVER files TO app_reader;
COMMENT ON SERVER files IS 'local files';
COMMENT ON FOREIGN TABLE shop.elsewhere IS 'far away';

-- Publications, which have to come along.
CREATE PUBLICATION some_tables FOR TABLE shop.by_index (k, v), shop.by_full WHERE (k > 5);
CREATE PUBLICATION one_schema FOR TABLES IN SCHEMA "Weird ""Schema""; --";
CREATE PUBLICATION inserts_only FOR ALL TABLES WITH (publish = 'insert');
COMMENT ON PUBLICATION some_tables IS 'for the warehouse';

-- Access methods. (A language whose handler belongs to an extension cannot be dumped.)
GRANT USAGE ON LANGUAGE plpgsql TO app_reader;
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE shop.in_heap2 (a integer PRIMARY KEY) USING heap2;
INSERT INTO shop.in_heap2 VALUES (1);
CREATE FUNCTION shop.to_sql_internal(internal) RETURNS internal LANGUAGE internal AS 'bytea_string_agg_transfn' IMMUTABLE;
DROP FUNCTION shop.to_sql_internal(internal);

-- Large objects: empty, of one page, of many, with a hole; with owner, grants and comment.
SELECT lo_create(100001), lo_from_bytea(100002, 'small'), lo_from_bytea(100003, decode(repeat('00ff5c', 30000), 'hex')), lo_create(100004);
SELECT lo_put(100004, 1000000, 'behind a hole');
ALTER LARGE OBJECT 100002 OWNER TO app_owner;
GRANT SELECT, UPDATE ON LARGE OBJECT 100003 TO app_reader;
COMMENT ON LARGE OBJECT 100003 IS 'it''s large';

-- The database itself.
DO $$
BEGIN
    EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), 'everything, it''s "all"');
    EXECUTE format('ALTER DATABASE %I SET work_mem = %L', current_database(), '7MB');
    EXECUTE format('ALTER DATABASE %I SET shop.custom = %L', current_database(), 'a, "b"');
    EXECUTE format('ALTER DATABASE %I SET search_path = shop, public', current_database());
    EXECUTE format('ALTER ROLE app_reader IN DATABASE %I SET statement_timeout = %L', current_database(), '7s');
    EXECUTE format('GRANT CREATE, TEMPORARY ON DATABASE %I TO app_reader', current_database());
    EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 33', current_database());
    EXECUTE format('ALTER DATABASE %I OWNER TO app_owner', current_database());
END $$;
