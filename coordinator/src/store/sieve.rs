//! A quick look at records as they are stored: most of those that a filter does not take need not be decoded, which is what lists
//! of many operations cost.

use handover::{DatabaseName, InstanceName};
use memchr::memmem::Finder;

/// Texts that a stored operation contains if it has certain values. It may contain them for another reason: the filter itself
/// still has to look at what comes through.
#[derive(Default)]
pub struct Sieve(Vec<Finder<'static>>);

impl Sieve {
    /// Let only operations of this source through.
    pub fn source(&mut self, name: &InstanceName) {
        self.field("source", name.as_str());
    }

    /// Let only operations of this destination through.
    pub fn destination(&mut self, name: &InstanceName) {
        self.field("destination", name.as_str());
    }

    /// Let only operations of this database through.
    pub fn database(&mut self, name: &DatabaseName) {
        self.field("database", name.as_str());
    }

    /// Let only operations of this batch through.
    pub fn batch(&mut self, batch: &str) {
        self.field("batch", batch);
    }

    /// Whether everything comes through.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn field(&mut self, name: &str, value: &str) {
        // As the codec writes it, escapes and all.
        let text = format!("\"{name}\":{}", serde_json::Value::from(value));
        self.0.push(Finder::new(text.as_bytes()).into_owned());
    }

    pub(super) fn lets_through(&self, value: &[u8]) -> bool {
        self.0.iter().all(|text| text.find(value).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture,
        store::{Record, codec},
    };
    use handover::{Kind, operation::State};

    #[test]
    fn what_a_filter_takes_comes_through_and_hardly_anything_else() {
        let mut operation = fixture::operation(Kind::Move, State::Queued);
        operation.database = DatabaseName::parse("Größe \"1\"").expect("a database name");
        let value = codec::encode("op/1", &Record::new(operation.clone())).expect("a record");
        type Wanted = fn(&mut Sieve, &handover::operation::Operation);
        let wanted: [Wanted; 4] = [
            |sieve, of| sieve.source(&of.source),
            |sieve, of| sieve.destination(&of.destination),
            |sieve, of| sieve.database(&of.database),
            |sieve, of| sieve.batch(&of.batch),
        ];
        let mut other = operation.clone();
        other.source = InstanceName::parse("other-source").expect("a name");
        other.destination = InstanceName::parse("other-destination").expect("a name");
        other.database = DatabaseName::parse("other").expect("a name");
        other.batch = "other".to_owned();
        let mut all = Sieve::default();
        for want in wanted {
            want(&mut all, &operation);
            let mut sieve = Sieve::default();
            want(&mut sieve, &other);
            assert!(!sieve.lets_through(&value));
        }
        assert!(all.lets_through(&value), "{}", String::from_utf8_lossy(&value));
    }
}
