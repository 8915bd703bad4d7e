//! What is defined in a PostgreSQL database, a row for each object: every kind that `pg_dump` carries.

/// Definitions that every major version prints alike; what follows an extension is its own affair, and the owner of a multirange
/// cannot be given to another, not even by pg_dump.
const OBJECTS: &str = "
    SELECT 'relation', c.oid::regclass::text, c.relkind::text, c.relpersistence::text, pg_get_userbyid(c.relowner),
      (SELECT string_agg(a::text, ',' ORDER BY a::text)
         FROM unnest(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))) a),
      concat_ws(';', c.reloptions::text, c.relrowsecurity, c.relforcerowsecurity, c.relreplident,
        pg_get_expr(c.relpartbound, c.oid), CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END,
        (SELECT string_agg(inhparent::regclass::text, ',' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid))
    FROM mine c WHERE c.relkind <> 'i' AND c.relkind <> 'I'
  UNION ALL
    SELECT 'column', c.oid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod),
      concat_ws(';', a.attnotnull, a.attidentity, a.attgenerated, a.attcollation::regcollation, a.attacl::text, a.attislocal,
        a.attstorage, a.attcompression),
      pg_get_expr(d.adbin, d.adrelid), row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum)::text
    FROM mine c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'c')
  UNION ALL
    SELECT 'constraint', c.conrelid::regclass::text, c.contypid::regtype::text, c.conname, pg_get_constraintdef(c.oid),
      c.convalidated::text, NULL
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
    WHERE c.contype NOT IN ('n', 't') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'causeway')
  UNION ALL
    SELECT 'index', i.indrelid::regclass::text, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid),
      concat_ws(';', i.indisvalid, i.indisreplident, i.indisclustered), NULL, NULL
    FROM mine c JOIN pg_index i ON i.indexrelid = c.oid
  UNION ALL
    SELECT 'trigger', t.tgrelid::regclass::text, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled::text, NULL, NULL
    FROM mine c JOIN pg_trigger t ON t.tgrelid = c.oid WHERE NOT t.tgisinternal
  UNION ALL
    SELECT 'policy', p.tablename, p.policyname, p.permissive || p.cmd, p.roles::text, p.qual, p.with_check
    FROM pg_policies p
  UNION ALL
    SELECT 'sequence', s.seqrelid::regclass::text, s.seqtypid::regtype::text, s.seqstart::text,
      concat_ws(';', s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle), NULL, NULL
    FROM mine c JOIN pg_sequence s ON s.seqrelid = c.oid
  UNION ALL
    SELECT 'function', p.oid::regprocedure::text, md5(p.prosrc), pg_get_userbyid(p.proowner), p.proconfig::text,
      (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(coalesce(p.proacl, acldefault('f', p.proowner))) a),
      concat_ws(';', p.prokind, p.provolatile, p.proisstrict, p.prosecdef, p.proparallel, p.procost, p.prorows)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'causeway')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE (d.classid, d.objid, d.deptype) = ('pg_proc'::regclass, p.oid, 'e'))
  UNION ALL
    SELECT 'type', t.oid::regtype::text, t.typtype::text,
      CASE WHEN t.typtype <> 'm' THEN pg_get_userbyid(t.typowner) END, t.typdefault, t.typnotnull::text,
      (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'causeway') AND t.typtype IN ('e', 'd', 'r', 'm')
  UNION ALL
    SELECT 'schema', n.nspname, pg_get_userbyid(n.nspowner),
      (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(coalesce(n.nspacl, acldefault('n', n.nspowner))) a),
      NULL, NULL, NULL
    FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'causeway')
  UNION ALL
    SELECT 'extension', e.extname, e.extnamespace::regnamespace::text, NULL, NULL, NULL, NULL FROM pg_extension e
  UNION ALL
    SELECT 'event trigger', e.evtname, e.evtevent, e.evtfoid::regproc::text, e.evtenabled::text, e.evttags::text, NULL
    FROM pg_event_trigger e WHERE e.evtname !~ '^causeway'
  UNION ALL
    SELECT 'publication', p.pubname, pg_get_userbyid(p.pubowner),
      concat_ws(';', p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot),
      (SELECT string_agg(pt.schemaname || '.' || pt.tablename, ',' ORDER BY pt.schemaname, pt.tablename) FROM pg_publication_tables pt
         WHERE pt.pubname = p.pubname AND NOT p.puballtables), NULL, NULL
    FROM pg_publication p WHERE p.pubname !~ '^causeway'
  UNION ALL
    SELECT 'comment', i.type, i.identity, d.description, NULL, NULL, NULL
    FROM pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    WHERE d.objoid >= 16384 AND i.identity IS NOT NULL AND NOT EXISTS
      (SELECT FROM pg_depend e WHERE (e.classid, e.objid, e.deptype) = (d.classoid, d.objoid, 'e'))";

/// The objects that few databases have, of 15 and newer. Going through `jsonb` picks a column that a version has under another
/// name.
const RARER: &str = "
    SELECT 'column options', c.oid::regclass::text, a.attname, nullif(a.attstattarget, -1)::text,
      (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(a.attoptions) o WHERE o NOT LIKE 'pg\\_%'),
      (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(a.attfdwoptions) o), NULL
    FROM mine c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind NOT IN ('v', 'S')
  UNION ALL
    SELECT 'storage', c.oid::regclass::text, m.amname, nullif(c.reloftype, 0)::regtype::text, NULL,
      (SELECT s.srvname || ' ' || (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(f.ftoptions) o)
         FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid), NULL
    FROM mine c LEFT JOIN pg_am m ON m.oid = c.relam
  UNION ALL
    SELECT 'rule', c.oid::regclass::text, r.rulename, r.ev_type::text, r.ev_enabled::text, r.is_instead::text, NULL
    FROM mine c JOIN pg_rewrite r ON r.ev_class = c.oid
  UNION ALL
    SELECT 'statistics', s.stxname, pg_get_statisticsobjdef(s.oid), pg_get_userbyid(s.stxowner),
      nullif(s.stxstattarget, -1)::text, NULL, NULL
    FROM mine c JOIN pg_statistic_ext s ON s.stxrelid = c.oid
  UNION ALL
    SELECT 'default privileges', d.defaclrole::regrole::text, nullif(d.defaclnamespace, 0)::regnamespace::text,
      d.defaclobjtype::text, (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(d.defaclacl) a), NULL, NULL
    FROM pg_default_acl d
  UNION ALL
    SELECT 'aggregate', a.aggfnoid::regprocedure::text, a.aggtransfn::text, concat_ws(';', a.aggfinalfn, a.aggcombinefn, a.aggkind,
      a.aggfinalextra, a.aggsortop::regoperator), a.aggtranstype::regtype::text, a.agginitval, NULL
    FROM pg_aggregate a WHERE a.aggfnoid >= 16384 AND ('pg_proc'::regclass, a.aggfnoid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'type', t.oid::regtype::text, format_type(t.typbasetype, t.typtypmod), nullif(t.typcollation, 0)::regcollation::text,
      t.typisdefined::text, (SELECT concat_ws(';', r.rngsubtype::regtype, r.rngcollation::regcollation, c.opcname, r.rngcanonical,
        r.rngsubdiff, (to_jsonb(r)->>'rngmultitypid')::oid::regtype) FROM pg_range r JOIN pg_opclass c ON c.oid = r.rngsubopc
        WHERE r.rngtypid = t.oid),
      (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(t.typacl) a)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname !~ '^pg_'
      AND n.nspname NOT IN ('information_schema', 'causeway') AND (t.typtype IN ('d', 'r') OR t.typacl IS NOT NULL OR NOT t.typisdefined)
      AND ('pg_type'::regclass, t.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'cast', c.castsource::regtype::text, c.casttarget::regtype::text, nullif(c.castfunc, 0)::regprocedure::text,
      c.castcontext::text, c.castmethod::text, NULL
    FROM pg_cast c WHERE c.oid >= 16384 AND ('pg_cast'::regclass, c.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'operator', o.oid::regoperator::text, pg_get_userbyid(o.oprowner), o.oprcode::regprocedure::text,
      concat_ws(';', o.oprcom::regoperator, o.oprnegate::regoperator), concat_ws(';', o.oprrest, o.oprjoin),
      concat_ws(';', o.oprcanmerge, o.oprcanhash)
    FROM pg_operator o WHERE o.oid >= 16384 AND ('pg_operator'::regclass, o.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'operator class', c.opcnamespace::regnamespace || '.' || c.opcname, m.amname, pg_get_userbyid(c.opcowner), f.opfname,
      concat_ws(';', c.opcintype::regtype, nullif(c.opckeytype, 0)::regtype), c.opcdefault::text
    FROM pg_opclass c JOIN pg_am m ON m.oid = c.opcmethod JOIN pg_opfamily f ON f.oid = c.opcfamily WHERE c.oid >= 16384 AND ('pg_opclass'::regclass, c.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'operator family', f.opfnamespace::regnamespace || '.' || f.opfname, m.amname, pg_get_userbyid(f.opfowner),
      (SELECT string_agg(concat_ws(' ', a.amopstrategy, a.amoppurpose, a.amopopr::regoperator), ',' ORDER BY a.amopstrategy, a.amopopr)
         FROM pg_amop a WHERE a.amopfamily = f.oid),
      (SELECT string_agg(concat_ws(' ', a.amprocnum, a.amproc::regprocedure), ',' ORDER BY a.amprocnum, a.amproc::regprocedure::text)
         FROM pg_amproc a WHERE a.amprocfamily = f.oid), NULL
    FROM pg_opfamily f JOIN pg_am m ON m.oid = f.opfmethod WHERE f.oid >= 16384 AND ('pg_opfamily'::regclass, f.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'conversion', c.connamespace::regnamespace || '.' || c.conname, pg_get_userbyid(c.conowner), c.conproc::text,
      pg_encoding_to_char(c.conforencoding), pg_encoding_to_char(c.contoencoding), c.condefault::text
    FROM pg_conversion c WHERE c.oid >= 16384 AND ('pg_conversion'::regclass, c.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'collation', c.oid::regcollation::text, pg_get_userbyid(c.collowner), c.collprovider::text, c.collisdeterministic::text,
      coalesce(to_jsonb(c)->>'colllocale', to_jsonb(c)->>'colliculocale', c.collcollate), to_jsonb(c)->>'collicurules'
    FROM pg_collation c WHERE c.oid >= 16384 AND ('pg_collation'::regclass, c.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'text search configuration', c.oid::regconfig::text, pg_get_userbyid(c.cfgowner), p.prsname,
      (SELECT string_agg(concat_ws(':', m.maptokentype, m.mapseqno, m.mapdict::regdictionary), ',' ORDER BY m.maptokentype, m.mapseqno)
         FROM pg_ts_config_map m WHERE m.mapcfg = c.oid), NULL, NULL
    FROM pg_ts_config c JOIN pg_ts_parser p ON p.oid = c.cfgparser WHERE c.oid >= 16384 AND ('pg_ts_config'::regclass, c.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'text search dictionary', d.oid::regdictionary::text, pg_get_userbyid(d.dictowner), t.tmplname, d.dictinitoption, NULL, NULL
    FROM pg_ts_dict d JOIN pg_ts_template t ON t.oid = d.dicttemplate WHERE d.oid >= 16384 AND ('pg_ts_dict'::regclass, d.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'text search parser', p.prsnamespace::regnamespace || '.' || p.prsname,
      concat_ws(';', p.prsstart, p.prstoken, p.prsend, p.prsheadline, p.prslextype), NULL, NULL, NULL, NULL
    FROM pg_ts_parser p WHERE p.oid >= 16384 AND ('pg_ts_parser'::regclass, p.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'text search template', t.tmplnamespace::regnamespace || '.' || t.tmplname, concat_ws(';', t.tmplinit, t.tmpllexize),
      NULL, NULL, NULL, NULL
    FROM pg_ts_template t WHERE t.oid >= 16384 AND ('pg_ts_template'::regclass, t.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'foreign data wrapper', w.fdwname, pg_get_userbyid(w.fdwowner), nullif(w.fdwhandler, 0)::regproc::text,
      nullif(w.fdwvalidator, 0)::regproc::text, (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(w.fdwoptions) o),
      (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(w.fdwacl) a)
    FROM pg_foreign_data_wrapper w WHERE ('pg_foreign_data_wrapper'::regclass, w.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'foreign server', s.srvname, pg_get_userbyid(s.srvowner), w.fdwname, concat_ws(';', s.srvtype, s.srvversion),
      (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(s.srvoptions) o),
      (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(s.srvacl) a)
    FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
  UNION ALL
    SELECT 'user mapping', u.usename, u.srvname, (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(u.umoptions) o), NULL, NULL, NULL
    FROM pg_user_mappings u
  UNION ALL
    SELECT 'access method', m.amname, m.amtype::text, m.amhandler::text, NULL, NULL, NULL FROM pg_am m WHERE m.oid >= 16384 AND ('pg_am'::regclass, m.oid) NOT IN (TABLE theirs)
  UNION ALL
    SELECT 'language', l.lanname, pg_get_userbyid(l.lanowner), l.lanpltrusted::text, concat_ws(';', nullif(l.lanplcallfoid, 0)::regproc,
      nullif(l.laninline, 0)::regproc, nullif(l.lanvalidator, 0)::regproc),
      (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(l.lanacl) a), NULL
    FROM pg_language l
  UNION ALL
    SELECT 'transform', t.trftype::regtype::text, l.lanname, t.trffromsql::text, t.trftosql::text, NULL, NULL
    FROM pg_transform t JOIN pg_language l ON l.oid = t.trflang
  UNION ALL
    SELECT 'published table', p.pubname, r.prrelid::regclass::text, pg_get_expr(r.prqual, r.prrelid),
      (SELECT string_agg(a.attname, ',' ORDER BY a.attname) FROM pg_attribute a
         WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)), NULL, NULL
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname !~ '^causeway'
  UNION ALL
    SELECT 'published schema', p.pubname, n.pnnspid::regnamespace::text, NULL, NULL, NULL, NULL
    FROM pg_publication_namespace n JOIN pg_publication p ON p.oid = n.pnpubid WHERE p.pubname !~ '^causeway'";

/// All of it.
pub(super) fn objects() -> String {
    format!("{MINE} {OBJECTS} UNION ALL {RARER}")
}

/// The texts that a server makes of trees.
pub(super) fn deparsed() -> String {
    format!("{MINE} {DEPARSED}")
}

/// Relations of the user's own, and what is an extension's own affair.
const MINE: &str = "WITH mine AS (SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'causeway') AND c.relpersistence <> 't'),
  theirs AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e')";

/// As the server prints them, which changes a little from one major version to the next.
const DEPARSED: &str = "SELECT 'deparsed', 'view', c.oid::regclass::text, pg_get_viewdef(c.oid) FROM mine c WHERE c.relkind IN ('v', 'm')
  UNION ALL
    SELECT 'deparsed', 'rule', r.rulename, pg_get_ruledef(r.oid)
    FROM mine c JOIN pg_rewrite r ON r.ev_class = c.oid WHERE r.rulename <> '_RETURN'
  UNION ALL
    SELECT 'deparsed', 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'causeway') AND to_jsonb(p)->>'prosqlbody' IS NOT NULL";

pub(super) const SETTINGS: &str = "SELECT 'setting', coalesce(s.setrole::regrole::text, ''), s.setconfig::text
    FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database()
  UNION ALL
    SELECT 'database', concat_ws(';', pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
        d.datallowconn, d.datconnlimit, shobj_description(d.oid, 'pg_database')),
      (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(coalesce(d.datacl, acldefault('d', d.datdba))) a)
    FROM pg_database d WHERE d.datname = current_database()";
