//! Rich errors survive the wire format and stay small.

use std::time::Duration;

use tonic::{Code, Status};

use super::{describe, is_transport, problem, reason_of, remedy_of, retry_after_of, retryable};

#[test]
fn what_goes_in_comes_out() {
    let status: Status = problem(Code::FailedPrecondition, "database \"shop\" cannot be moved")
        .reason("PREFLIGHT_FAILED")
        .remedy("free some space")
        .meta("database", "shop")
        .field("databases[0]", "unknown")
        .precondition("DISK_FULL", "east", "needs 3 GB, has 1 GB")
        .retry_after(Duration::from_secs(3))
        .into();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(reason_of(&status).as_deref(), Some("PREFLIGHT_FAILED"));
    assert_eq!(remedy_of(&status).as_deref(), Some("free some space"));
    assert_eq!(retry_after_of(&status), Some(Duration::from_secs(3)));
    let expected = "database \"shop\" cannot be moved\n  databases[0]: unknown\n  east: needs 3 GB, has 1 GB\n  remedy: free some space";
    assert_eq!(describe(&status), expected);
    assert!(!is_transport(&status) && !retryable(&status));
}

#[test]
fn plain_statuses_read_too() {
    let status = Status::unavailable("not yet");
    assert_eq!((reason_of(&status), remedy_of(&status), describe(&status).as_str()), (None, None, "not yet"));
    assert!(retryable(&status) && !retryable(&Status::aborted("stale")) && !retryable(&Status::internal("bug")));
    assert!(!describe(&Status::new(Code::NotFound, "")).is_empty());
    let garbage = Status::with_details(Code::Internal, "odd", vec![0xff; 20].into());
    assert_eq!((reason_of(&garbage), describe(&garbage).as_str()), (None, "odd"));
}

#[test]
fn however_much_is_said_it_stays_small() {
    let mut large = problem(Code::InvalidArgument, "é".repeat(5000)).reason("R".repeat(200)).remedy("r".repeat(9000));
    for number in 0..300 {
        large = large.field(format!("databases[{number}]"), "x".repeat(900)).precondition("K", "s", "d".repeat(900));
    }
    for number in 0..20 {
        large = large.meta(format!("k{number}"), "v".repeat(900));
    }
    let status = large.status();
    assert!(status.details().len() <= 3 * 1024, "{}", status.details().len());
    assert!(status.message().len() <= 1024);
    assert!(remedy_of(&status).is_some() && reason_of(&status).is_some());

    let mut many = problem(Code::InvalidArgument, "many").reason("MANY");
    for number in 0..100 {
        many = many.field(format!("databases[{number}]"), "x".repeat(100));
    }
    let text = describe(&many.status());
    let shown = text.lines().filter(|line| line.contains("databases[")).count();
    assert!(shown > 10 && text.contains(&format!("and {} more", 100 - shown)), "{text}");
}
