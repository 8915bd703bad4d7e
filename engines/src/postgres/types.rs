//! Types whose binary form does not mean the same in another database.

/// A common table expression `oid_bound(oid)`: types whose binary form holds OIDs that are this database's own, or that
/// have no binary form. The `reg*` types are OIDs; a composite sends those of its columns' types, an array that of its
/// elements'; domains, ranges and arrays are what they are made of. What initdb made (below 16384) is the same everywhere, and
/// arrays and composites of it are harmless.
pub(crate) const OID_BOUND: &str = "
    WITH RECURSIVE oid_bound(oid) AS (
        SELECT t.oid FROM pg_catalog.pg_type t
        WHERE t.typsend = 0
           OR t.oid::regtype::text = ANY ('{regproc,regprocedure,regoper,regoperator,regclass,regcollation,regtype,regrole,regnamespace,regconfig,regdictionary}')
           OR t.oid >= 16384 AND (t.typtype = 'c' OR t.typcategory = 'A' AND t.typelem >= 16384)
        UNION
        SELECT t.oid FROM oid_bound b
        JOIN pg_catalog.pg_type t ON t.typelem = b.oid AND t.typcategory = 'A'
            OR t.typtype = 'd' AND t.typbasetype = b.oid
            OR t.oid IN (SELECT rngtypid FROM pg_catalog.pg_range WHERE rngsubtype = b.oid)
    )";

/// Relations whose rows an operation carries: a condition on `c`, of `pg_class`, and `n`, of `pg_namespace`. Partitions and
/// children are relations of their own; what is temporary or foreign has no rows here.
pub(crate) const CARRIED: &str = "c.relkind = 'r' AND c.oid >= 16384 AND n.nspname <> 'causeway'";
