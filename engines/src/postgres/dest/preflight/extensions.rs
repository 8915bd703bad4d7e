//! Extensions that are not installed on the destination's machine, or older there.

use super::{error, warning};
use crate::{
    Result,
    postgres::{
        payload::Requirements,
        sql::{Sql, failed},
    },
};
use handover::Finding;
use std::cmp::Ordering;

pub(super) async fn judge(sql: &Sql, wanted: &Requirements) -> Result<Vec<Finding>> {
    let names: Vec<&str> = wanted.extensions.iter().map(|extension| extension.name.as_str()).collect();
    let available = "SELECT e.name::text, e.default_version,
             (SELECT array_agg(v.version) FROM pg_available_extension_versions v WHERE v.name = e.name)
         FROM pg_available_extensions e WHERE e.name::text = ANY ($1)";
    let rows = sql.query(available, &[&names]).await;
    let rows = rows.map_err(|error| failed("look for available extensions", &error))?;
    let mut findings = vec![];
    for extension in &wanted.extensions {
        let (name, version) = (&extension.name, &extension.version);
        let Some(row) = rows.iter().find(|row| row.get::<_, &str>(0) == name) else {
            let message = format!("the destination has no extension {name:?}");
            findings.push(error("EXTENSION_MISSING", message, "install its package on the destination's machine"));
            continue;
        };
        // A dump creates an extension in the version that is the default where it is restored.
        let default: Option<&str> = row.get(1);
        let versions: Option<Vec<String>> = row.get(2);
        let newest = versions.unwrap_or_default().join(", ");
        match default.and_then(|default| compare(default, version)) {
            Some(Ordering::Less) => {
                let message = format!(
                    "the destination would create extension {name:?} in version {}, the source has {version}; available: {newest}",
                    default.unwrap_or("none")
                );
                let remedy = "install a package of it that is not older, and whose default version is not";
                findings.push(error("EXTENSION_OLDER", message, remedy));
            }
            Some(_) => {}
            None => {
                let message = format!(
                    "extension {name:?} has version {version} at the source and would have {} at the destination, which \
                     cannot be compared",
                    default.unwrap_or("none")
                );
                findings.push(warning("EXTENSION_DIFFERS", message, "make sure that the destination's is not older"));
            }
        }
    }
    Ok(findings)
}

/// Compares versions such as `1.10`; there is no rule for others unless they are equal.
fn compare(ours: &str, theirs: &str) -> Option<Ordering> {
    if ours == theirs {
        return Some(Ordering::Equal);
    }
    let numbers = |text: &str| text.split('.').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<u64>>>();
    Some(numbers(ours)?.cmp(&numbers(theirs)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(compare("1.10", "1.9"), Some(Ordering::Greater));
        assert_eq!(compare("1.9", "1.10"), Some(Ordering::Less));
        assert_eq!(compare("3.4.2", "3.4"), Some(Ordering::Greater));
        assert_eq!(compare("unpackaged", "unpackaged"), Some(Ordering::Equal));
        assert_eq!(compare("3.4.2dev", "3.4.2"), None);
    }
}
