//! A query for each kind of object: its name, and what is to be equal.
//!
//! Only what `pg_get_...def` and the like show is taken, and columns that are in all versions from 13 on. Not taken: OIDs,
//! statistics, owners' passwords, physical places, what a version computes otherwise (a NOT NULL is a constraint from 18 on),
//! what the server notes for itself (`pg_attver` among a column's options).

/// Owner and grants, in the order of the grantees' names. The owner's own rights are not looked at, and no entry is as good
/// as the entry that it stands for.
macro_rules! acl {
    ($class:literal, $acl:literal, $owner:literal) => {
        concat!(
            "' owner ' || pg_get_userbyid(",
            $owner,
            ") || coalesce((SELECT ' ' || string_agg(g, ',' ORDER BY g) FROM (
                SELECT coalesce(nullif(a.grantee, 0)::regrole::text, 'PUBLIC') || '=' || string_agg(a.privilege_type
                    || CASE WHEN a.is_grantable THEN '*' ELSE '' END, '+' ORDER BY a.privilege_type) AS g
                FROM aclexplode(coalesce(",
            $acl,
            ", acldefault('",
            $class,
            "', ",
            $owner,
            "))) a WHERE a.grantee <> ",
            $owner,
            " AND a.privilege_type <> 'MAINTAIN'
                GROUP BY a.grantee) x), '')"
        )
    };
}

/// Whether a schema `n` is of the database's users; `d` (an OID) and its class are not of an extension.
macro_rules! users {
    ($class:literal, $oid:literal) => {
        concat!(
            "n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'causeway') AND n.nspname !~ '^pg_(toast_)?temp_'
             AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = '", $class, "'::regclass AND x.objid = ", $oid,
            " AND x.deptype = 'e')"
        )
    };
}

/// Comments, by class and object.
macro_rules! comment {
    ($oid:literal, $class:literal) => {
        concat!("coalesce(' comment ' || md5(obj_description(", $oid, ", '", $class, "')), '')")
    };
}

/// The catalogs that the queries and the functions in them read. Of the large ones the rows of users' objects: those of the
/// server's own never change.
pub(super) const READ: &[(&str, &str)] = &[
    ("pg_aggregate", ""),
    ("pg_am", ""),
    ("pg_attrdef", ""),
    ("pg_attribute", " WHERE attrelid >= 16384"),
    ("pg_cast", " WHERE oid >= 16384"),
    ("pg_class", " WHERE oid >= 16384"),
    ("pg_collation", " WHERE oid >= 16384"),
    ("pg_constraint", ""),
    ("pg_conversion", " WHERE oid >= 16384"),
    ("pg_default_acl", ""),
    ("pg_depend", " WHERE objid >= 16384"),
    ("pg_description", " WHERE objoid >= 16384 OR classoid = 'pg_namespace'::regclass"),
    ("pg_enum", ""),
    ("pg_event_trigger", ""),
    ("pg_extension", ""),
    ("pg_foreign_data_wrapper", ""),
    ("pg_foreign_server", ""),
    ("pg_foreign_table", ""),
    ("pg_index", " WHERE indrelid >= 16384"),
    ("pg_inherits", ""),
    ("pg_language", ""),
    ("pg_namespace", ""),
    ("pg_opclass", " WHERE oid >= 16384"),
    ("pg_operator", " WHERE oid >= 16384"),
    ("pg_opfamily", " WHERE oid >= 16384"),
    ("pg_partitioned_table", ""),
    ("pg_policy", ""),
    ("pg_proc", " WHERE oid >= 16384"),
    ("pg_publication", ""),
    ("pg_publication_rel", ""),
    ("pg_range", ""),
    ("pg_rewrite", " WHERE oid >= 16384"),
    ("pg_seclabel", ""),
    ("pg_sequence", ""),
    ("pg_statistic_ext", ""),
    ("pg_transform", ""),
    ("pg_trigger", ""),
    ("pg_ts_config", " WHERE oid >= 16384"),
    ("pg_ts_config_map", " WHERE mapcfg >= 16384"),
    ("pg_ts_dict", " WHERE oid >= 16384"),
    ("pg_ts_parser", " WHERE oid >= 16384"),
    ("pg_ts_template", " WHERE oid >= 16384"),
    ("pg_type", " WHERE oid >= 16384"),
];

pub(super) const ALL: &[(&str, &str)] = &[
    (
        "schema",
        concat!(
            "SELECT quote_ident(n.nspname), ", acl!("n", "n.nspacl", "n.nspowner"),
            " FROM pg_namespace n WHERE ", users!("pg_namespace", "n.oid")
        ),
    ),
    // A newer server brings newer extensions: preflight has seen that they are not older.
    ("extension", "SELECT quote_ident(extname), '' FROM pg_extension"),
    ("deparsed extension", "SELECT quote_ident(extname), extversion FROM pg_extension"),
    (
        "relation",
        concat!(
            "SELECT format('%I.%I', n.nspname, c.relname),
                concat_ws(' ', c.relkind, c.relpersistence, m.amname, array_to_string(c.reloptions, ','),
                    CASE WHEN c.relrowsecurity THEN 'rls' END, CASE WHEN c.relforcerowsecurity THEN 'force' END,
                    pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid), c.reloftype::regtype,
                    (SELECT string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno) FROM pg_inherits i
                     WHERE i.inhrelid = c.oid AND c.relkind <> 'i')) || ",
            acl!("r", "c.relacl", "c.relowner"), " || ", comment!("c.oid", "pg_class"),
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND ", users!("pg_class", "c.oid")
        ),
    ),
    (
        "column",
        concat!(
            "SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname),
                concat_ws(' ', (SELECT count(*) FROM pg_attribute b WHERE b.attrelid = a.attrelid AND b.attnum > 0
                    AND b.attnum <= a.attnum AND NOT b.attisdropped), format_type(a.atttypid, a.atttypmod),
                    nullif(a.attcollation, t.typcollation)::regcollation, CASE WHEN a.attnotnull THEN 'not null' END,
                    a.attidentity, a.attgenerated, a.attstorage, (SELECT string_agg(o, ',' ORDER BY o)
                    FROM unnest(a.attoptions) o WHERE o NOT LIKE 'pg\\_attver=%'),
                    pg_get_expr(d.adbin, d.adrelid), (SELECT string_agg(x::text, ',' ORDER BY x::text) FROM unnest(a.attacl) x),
                    'comment ' || md5(col_description(c.oid, a.attnum)))
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_type t ON t.oid = a.atttypid
             LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND a.attnum > 0 AND NOT a.attisdropped AND ",
            users!("pg_class", "c.oid")
        ),
    ),
    (
        "index",
        concat!(
            "SELECT format('%I.%I', n.nspname, c.relname), pg_get_indexdef(c.oid)
                || CASE WHEN i.indisprimary THEN ' primary' ELSE '' END || CASE WHEN i.indisvalid THEN '' ELSE ' invalid' END
                || CASE WHEN i.indisclustered THEN ' cluster' ELSE '' END || coalesce(' of '
                || (SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = c.oid), '') || ",
            comment!("c.oid", "pg_class"),
            " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relname NOT LIKE 'causeway\\_row\\_%' AND ", users!("pg_class", "i.indrelid")
        ),
    ),
    // A foreign key of a partition follows from its parent's; how many there are, and their names, is a version's own.
    (
        "constraint",
        concat!(
            "SELECT concat_ws(' ', coalesce(nullif(k.conrelid, 0)::regclass::text, nullif(k.contypid, 0)::regtype::text),
                quote_ident(k.conname)), pg_get_constraintdef(k.oid) || CASE WHEN k.convalidated THEN '' ELSE ' invalid' END
                || CASE WHEN k.conislocal THEN '' ELSE ' inherited' END
             FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
             WHERE k.contype NOT IN ('n', 't') AND NOT (k.contype = 'f' AND k.conparentid <> 0) AND ", users!("pg_constraint", "k.oid"),
            " AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_class'::regclass AND x.objid = k.conrelid
                AND x.deptype = 'e')"
        ),
    ),
    (
        "sequence",
        concat!(
            "SELECT format('%I.%I', n.nspname, c.relname), concat_ws(' ', format_type(s.seqtypid, NULL), s.seqstart,
                s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle) || ",
            acl!("s", "c.relacl", "c.relowner"),
            " FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relpersistence <> 't' AND ", users!("pg_class", "c.oid")
        ),
    ),
    (
        "routine",
        concat!(
            "SELECT p.oid::regprocedure::text, md5(CASE WHEN p.prokind = 'a' THEN concat_ws(' ', a.aggtransfn, a.aggfinalfn,
                a.aggcombinefn, a.agginitval, a.aggkind, format_type(a.aggtranstype, NULL)) ELSE pg_get_functiondef(p.oid) END) || ",
            acl!("f", "p.proacl", "p.proowner"), " || ", comment!("p.oid", "pg_proc"),
            " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid
             WHERE ", users!("pg_proc", "p.oid")
        ),
    ),
    (
        "trigger",
        concat!(
            "SELECT format('%s %I', t.tgrelid::regclass, t.tgname), pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text
             FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE NOT t.tgisinternal AND ", users!("pg_class", "c.oid")
        ),
    ),
    (
        "event trigger",
        "SELECT quote_ident(evtname), concat_ws(' ', evtevent, evtfoid::regproc, evtenabled, array_to_string(evttags, ','))
         FROM pg_event_trigger WHERE evtname NOT IN ('causeway_ddl_end', 'causeway_ddl_drop')",
    ),
    (
        "rule",
        concat!(
            "SELECT format('%s %I', r.ev_class::regclass, r.rulename), concat_ws(' ', r.ev_enabled, r.ev_type, r.is_instead)
             FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE r.rulename <> '_RETURN' AND ", users!("pg_class", "c.oid")
        ),
    ),
    (
        "deparsed rule",
        concat!(
            "SELECT format('%s %I', r.ev_class::regclass, r.rulename), md5(pg_get_ruledef(r.oid))
             FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE r.rulename <> '_RETURN' AND ", users!("pg_class", "c.oid")
        ),
    ),
    (
        "deparsed view",
        concat!(
            "SELECT format('%I.%I', n.nspname, c.relname), md5(pg_get_viewdef(c.oid))
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('v', 'm') AND ", users!("pg_class", "c.oid")
        ),
    ),
    (
        "policy",
        concat!(
            "SELECT format('%s %I', p.polrelid::regclass, p.polname), concat_ws(' ', p.polcmd, p.polpermissive,
                (SELECT string_agg(coalesce(nullif(r, 0)::regrole::text, 'PUBLIC'), ',' ORDER BY r) FROM unnest(p.polroles) r),
                pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
             FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ",
            users!("pg_class", "c.oid")
        ),
    ),
    (
        "type",
        concat!(
            "SELECT t.oid::regtype::text, concat_ws(' ', t.typtype, t.typnotnull, t.typdefault,
                CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) END,
                nullif(t.typcollation, 0)::regcollation, (SELECT md5(string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder))
                FROM pg_enum e WHERE e.enumtypid = t.oid), (SELECT g.rngsubtype::regtype FROM pg_range g WHERE g.rngtypid = t.oid)) || ",
            acl!("T", "t.typacl", "t.typowner"),
            " FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
             WHERE (t.typtype IN ('d', 'e', 'r') OR t.typtype = 'b' AND t.typcategory <> 'A') AND ", users!("pg_type", "t.oid")
        ),
    ),
    (
        "statistics",
        concat!(
            "SELECT format('%I.%I', n.nspname, s.stxname), pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s
             JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE ", users!("pg_statistic_ext", "s.oid")
        ),
    ),
    (
        "publication",
        "SELECT quote_ident(p.pubname), concat_ws(' ', p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,
            (SELECT string_agg(r.prrelid::regclass::text, ',' ORDER BY r.prrelid::regclass::text) FROM pg_publication_rel r
             WHERE r.prpubid = p.oid))
         FROM pg_publication p WHERE p.pubname NOT LIKE 'causeway\\_%'",
    ),
    (
        "operator",
        concat!(
            "SELECT o.oid::regoperator::text, concat_ws(' ', o.oprcode, o.oprrest, o.oprjoin, o.oprcanmerge, o.oprcanhash)
             FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE ", users!("pg_operator", "o.oid")
        ),
    ),
    (
        "collation",
        concat!(
            "SELECT format('%I.%I', n.nspname, c.collname), concat_ws(' ', c.collprovider, c.collisdeterministic,
                to_jsonb(c)->>'collcollate') FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE ",
            users!("pg_collation", "c.oid")
        ),
    ),
    (
        "text search configuration",
        concat!(
            "SELECT c.oid::regconfig::text, (SELECT string_agg(concat_ws(':', m.maptokentype, m.mapseqno, m.mapdict::regdictionary),
                ',' ORDER BY m.maptokentype, m.mapseqno) FROM pg_ts_config_map m WHERE m.mapcfg = c.oid)
             FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace WHERE ", users!("pg_ts_config", "c.oid")
        ),
    ),
    (
        "cast",
        "SELECT format('%s %s', c.castsource::regtype, c.casttarget::regtype), concat_ws(' ', nullif(c.castfunc, 0)::regprocedure,
            c.castcontext, c.castmethod) FROM pg_cast c WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend x
            WHERE x.classid = 'pg_cast'::regclass AND x.objid = c.oid AND x.deptype = 'e')",
    ),
    (
        "default privileges",
        "SELECT format('%s %s %s', d.defaclrole::regrole, coalesce(nullif(d.defaclnamespace, 0)::regnamespace::text, '-'), d.defaclobjtype),
            (SELECT string_agg(x::text, ',' ORDER BY x::text) FROM unnest(d.defaclacl) x) FROM pg_default_acl d",
    ),
    ("language", "SELECT quote_ident(lanname), lanpltrusted::text FROM pg_language WHERE oid >= 16384"),
    ("foreign server", "SELECT quote_ident(srvname), concat_ws(' ', srvtype, srvversion, (SELECT md5(string_agg(o, ',' ORDER BY o)) FROM unnest(srvoptions) o)) FROM pg_foreign_server"),
];
