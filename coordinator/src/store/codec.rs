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
    let head: Head = serde_json::from_slice(value).map_err(damaged)?;
    if head.format > FORMAT {
        return Err(Error::Newer { what: format!("the value of {key:?}"), found: head.format, known: FORMAT });
    }
    let read: Read<T> = serde_json::from_slice(value).map_err(damaged)?;
    Ok(read.data)
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
}
