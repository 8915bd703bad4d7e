//! What an operation's objects at the source are called.

use handover::OperationId;

/// How the names of all our slots begin.
pub(super) const PREFIX: &str = "causeway_";

/// The names of one operation. They are its identifier where that fits, else a hash of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// The slot, and the publication.
    pub(super) slot: String,
    /// The purpose of the session that holds the seed's snapshot. It does not begin with the half: a take-over leaves it alone.
    pub(super) holder: String,
}

impl Names {
    pub(super) fn of(operation: &OperationId) -> Self {
        let id = operation.as_str();
        // An application name has 63 bytes, and a slot's name knows no capitals; an identifier has no underscore, so that two
        // never become one.
        let fits = id.len() <= 40 && !id.bytes().any(|b| b.is_ascii_uppercase());
        let key = match fits {
            true => id.replace('-', "_"),
            false => format!("x_{:032x}", xxhash_rust::xxh3::xxh3_128(id.as_bytes())),
        };
        Self { slot: format!("{PREFIX}{key}"), holder: format!("snapshot {key}") }
    }

    /// The temporary slot of a mark.
    pub(super) fn mark(&self) -> String {
        format!("{}_mark", self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let of = |id: &str| Names::of(&OperationId::parse(id).expect("an id"));
        assert_eq!(of("0198-ab").slot, "causeway_0198_ab");
        let long = "a".repeat(64);
        let all = [of("a"), of("A"), of("a-b"), of("A-B"), of(&long), of(&long.to_uppercase())];
        for names in &all {
            assert!(names.mark().len() <= 63 && names.holder.len() + "causeway ".len() <= 63, "{names:?}");
            assert_eq!(all.iter().filter(|other| other.slot == names.slot).count(), 1, "{names:?}");
        }
    }
}
