//! Page tokens: where a listing goes on, and for which question.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use handover::OperationId;
use proto::v1;

/// Which operations are asked for, without the page.
fn question(request: &v1::ListOperationsRequest) -> u64 {
    // Fixed keys: a token outlives a restart of this program, though not every change of it.
    let mut hasher = DefaultHasher::new();
    (request.kind, &request.source, &request.destination, &request.databases, &request.batch).hash(&mut hasher);
    (request.only_latest_per_database, request.only_active).hash(&mut hasher);
    hasher.finish()
}

/// The token for what follows `last`.
pub(super) fn token(request: &v1::ListOperationsRequest, last: &OperationId) -> String {
    let plain = format!("1 {:016x} {last}", question(request));
    plain.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// After which operation to go on, or what is wrong with the token.
pub(super) fn after(request: &v1::ListOperationsRequest) -> Result<Option<OperationId>, &'static str> {
    const MALFORMED: &str = "it is no next_page_token of an earlier answer";
    if request.page_token.is_empty() {
        return Ok(None);
    }
    let plain = decode(&request.page_token).ok_or(MALFORMED)?;
    let mut parts = plain.split(' ');
    let (Some("1"), Some(of), Some(last), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(MALFORMED);
    };
    let of = u64::from_str_radix(of, 16).map_err(|_| MALFORMED)?;
    let last = OperationId::parse(last).map_err(|_| MALFORMED)?;
    if of != question(request) {
        return Err("it belongs to another listing: repeat all other fields as they were");
    }
    Ok(Some(last))
}

fn decode(token: &str) -> Option<String> {
    if token.len() > 512 || !token.len().is_multiple_of(2) || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let bytes = token.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_on_where_it_was_made_and_nowhere_else() {
        let last = OperationId::parse("0192-7a").unwrap();
        let mut request = v1::ListOperationsRequest { source: "west".to_owned(), ..Default::default() };
        assert_eq!(after(&request), Ok(None));
        request.page_token = token(&request, &last);
        assert_eq!(after(&request), Ok(Some(last)));
        request.page_size = 7;
        assert!(after(&request).is_ok());
        request.source = "east".to_owned();
        assert!(after(&request).unwrap_err().contains("another listing"));
    }

    #[test]
    fn a_malformed_token_is_an_error() {
        for token in ["x", "zz", "31", "é1", &"31".repeat(1000), "31202020"] {
            let request = v1::ListOperationsRequest { page_token: token.to_owned(), ..Default::default() };
            assert!(after(&request).is_err(), "{token}");
        }
    }
}
