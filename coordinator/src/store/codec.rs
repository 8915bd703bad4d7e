//! Values as JSON with the number of their format, so that a later program can tell what an earlier one wrote.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Error;

/// The format of every value written by this program.
const FORMAT: u64 = 1;

#[derive(Serialize)]
struct Written<'a, T> {
    format: u64,
    data: &'a T,
}

#[derive(Deserialize)]
struct Head {
    format: u64,
}

#[derive(Deserialize)]
struct Read<T> {
    format: u64,
    data: T,
}

pub(super) fn encode<T: Serialize>(key: &str, data: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(&Written { format: FORMAT, data })
        .map_err(|error| Error::Value { key: key.to_owned(), reason: error.to_string() })
}

pub(super) fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, Error> {
    let damaged = |error: serde_json::Error| {
        // serde_json quotes what it read, which may be a token: only where and what kind is told.
        let reason = format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column());
        Error::Value { key: key.to_owned(), reason }
    };
    let newer = |found| Error::Newer { what: format!("the value of {key:?}"), found, known: FORMAT };
    match serde_json::from_slice::<Read<T>>(value) {
        Ok(read) if read.format > FORMAT => Err(newer(read.format)),
        Ok(read) => Ok(read.data),
        // A newer format need not have the form that is known here.
        Err(error) => match serde_json::from_slice::<Head>(value) {
            Ok(head) if head.format > FORMAT => Err(newer(head.format)),
            _ => Err(damaged(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_and_a_newer_one_says_so() {
        let written = encode("k", &vec![1, 2]).unwrap();
        assert_eq!(decode::<Vec<i32>>("k", &written).unwrap(), [1, 2]);
        let newer = br#"{"format":2,"data":{"other":"shape"}}"#;
        let error = decode::<Vec<i32>>("k", newer).unwrap_err();
        assert!(matches!(error, Error::Newer { found: 2, .. }), "{error}");
        assert!(error.to_string().contains("run the newer program"), "{error}");
    }

    #[test]
    fn a_damaged_value_is_an_error_that_shows_no_content() {
        for damaged in [&b"secret"[..], b"{\"format\":1}", b"{\"format\":1,\"data\":\"secret\"}", b""] {
            let error = decode::<Vec<i32>>("op/1", damaged).unwrap_err();
            assert!(matches!(error, Error::Value { .. }), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    /// A record that some disk or person has damaged is read or refused, and what is read can be driven.
    #[test]
    fn fuzz_stored_records() {
        use crate::fixture;
        use crate::store::{InstanceRecord, Record, RequestRecord};
        use handover::operation::{Completing, CompletionStep, Reason, State, Then};
        let aborting = CompletionStep::Aborting { reason: Reason::new("CODE", "why", ""), then: Then::Ready };
        let attempt = handover::Attempt(3);
        let completing = Completing { attempt, max_freeze_ms: 1000, grace_ms: 300, retries: 5, step: aborting };
        let samples = [State::Queued, State::Ready, State::Completing(completing)];
        let samples =
            samples.map(|state| encode("op/1", &Record::new(fixture::operation(handover::Kind::Move, state))).unwrap());
        fuzz::fuzz("stored operations", &samples, |input| {
            decode::<Record>("op/1", input).is_ok_and(|record| {
                let _ = handover::operation::actions(&record.operation);
                for now_ms in [i64::MIN, 0, i64::MAX] {
                    for event in
                        [handover::operation::Event::Tick { now_ms }, handover::operation::Event::Cancel { now_ms }]
                    {
                        let _ = handover::operation::step(&record.operation, &event);
                    }
                }
                true
            })
        });
        let instance =
            r#"{"format":1,"data":{"name":"west","engine":"sqlite","source_agent":"db1:7441","region":"eu"}}"#;
        fuzz::fuzz("stored instances", &[instance.into()], |input| {
            decode::<InstanceRecord>("instance/west", input).is_ok_and(|record| {
                let _ = crate::instances::violations(&record);
                true
            })
        });
        let request = r#"{"format":1,"data":{"batch":"b","kind":"move","source":"west","destination":"east",
            "databases":["shop"],"log_budget_bytes":0,"window_seconds":0}}"#;
        fuzz::fuzz("stored requests", &[request.into()], |input| decode::<RequestRecord>("request/1", input).is_ok());
    }
}
