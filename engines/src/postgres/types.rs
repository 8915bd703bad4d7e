//! Types whose binary form does not mean the same in another database.

/// A common table expression `oid_bound(oid)`: types whose binary form holds OIDs that are this database's own, or that
/// have no binary form. The `reg*` types are OIDs; a composite sends those of its columns' types, an array that of its
/// elements'; domains, ranges and arrays are what they are made of. What initdb made (below 16384) is the same everywhere, and
/// arrays and composites of it are harmless.
pub(crate) const OID_BOUND: &str = "
    WITH RECURSIVE made_of(oid, base) AS (
        SELECT oid, typelem FROM pg_catalog.pg_type WHERE typcategory = 'A' AND typelem <> 0
        UNION ALL SELECT oid, typbasetype FROM pg_catalog.pg_type WHERE typtype = 'd'
        UNION ALL SELECT rngtypid, rngsubtype FROM pg_catalog.pg_range
    ), oid_bound(oid) AS (
        SELECT oid FROM pg_catalog.pg_type
        WHERE typsend = 0
           OR oid < 16384 AND typname IN ('regproc', 'regprocedure', 'regoper', 'regoperator', 'regclass', 'regcollation',
               'regtype', 'regrole', 'regnamespace', 'regconfig', 'regdictionary')
           OR oid >= 16384 AND (typtype = 'c' OR typcategory = 'A' AND typelem >= 16384)
        UNION SELECT m.oid FROM oid_bound b JOIN made_of m ON m.base = b.oid
    )";

/// Relations whose rows an operation carries: a condition on `c`, of `pg_class`, and `n`, of `pg_namespace`. Partitions and
/// children are relations of their own; what is temporary or foreign has no rows here.
pub(crate) const CARRIED: &str = "c.relkind = 'r' AND c.oid >= 16384 AND n.nspname <> 'causeway'";
