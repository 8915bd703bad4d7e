//! What arrives damaged, from a stranger, or under a bad certificate.

use causeway_tests::{
    Cluster, DEST, Op, Party, content,
    v1::{self, source_frame::Frame, transfer_client::TransferClient},
};
use engines::sqlite::wire::{Journal, SeedHeader};
use service::{
    Env, Timestamp,
    certs::{self, Spec},
    status::{describe, reason_of},
};
use std::time::Duration;
use tonic::{Code, Status};

/// Sends frames on a lane and returns how the destination ends it.
fn send(cluster: &Cluster, certificate: &str, frames: Vec<Frame>) -> Status {
    let channel = cluster.channel(&cluster.address(DEST), certificate);
    cluster.block_on(async {
        let frames = frames.into_iter().map(|frame| v1::SourceFrame { frame: Some(frame) });
        // The stream stays open after the frames: it is the destination that ends it.
        let frames = tokio_stream::StreamExt::chain(tokio_stream::iter(frames), tokio_stream::pending());
        let talk = async {
            let mut answers = TransferClient::new(channel).replicate(frames).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok::<(), Status>(())
        };
        match tokio::time::timeout(Duration::from_secs(20), talk).await {
            Ok(Err(status)) => status,
            Ok(Ok(())) => Status::ok("the destination ended the stream without a word"),
            Err(_) => Status::deadline_exceeded("the destination took it all"),
        }
    })
}

/// A destination that knows an operation, as the coordinator would have prepared it, and the Hello of its source.
fn prepared(cluster: &Cluster) -> v1::Hello {
    let operation = "01890000-0000-7000-8000-000000000001".to_owned();
    let request = v1::PrepareRequest {
        operation: operation.clone(),
        version: 1,
        kind: v1::Kind::Move.into(),
        database: "shop.db".to_owned(),
        token: "a".repeat(32),
        source_identity: "spiffe://causeway/agent-source/west".to_owned(),
    };
    cluster.call(cluster.dest_agent("east").prepare(request)).expect("prepare");
    v1::Hello {
        operation,
        token: "a".repeat(32),
        lane: 0,
        protocol: 1,
        engine: "sqlite".to_owned(),
        database: "shop.db".to_owned(),
        incarnation: "1:2".to_owned(),
        epoch: 1,
        generation: 0,
    }
}

#[track_caller]
fn assert_ended(status: &Status, code: Code, reason: &str) {
    let found = (status.code(), reason_of(status).map(|reason| reason.to_string()).unwrap_or_default());
    assert_eq!(found, (code, reason.to_owned()), "{}", describe(status));
}

#[test]
fn a_lane_is_for_the_source_agent_of_the_operation_only() {
    let cluster = Cluster::new();
    let hello = prepared(&cluster);
    let source = "source-west";
    let say = |certificate: &str, hello: v1::Hello| send(&cluster, certificate, vec![Frame::Hello(hello)]);

    let unknown = "01890000-0000-7000-8000-00000000000f".to_owned();
    assert_ended(&say(source, v1::Hello { operation: unknown, ..hello.clone() }), Code::NotFound, "OPERATION_UNKNOWN");
    let token = "b".repeat(32);
    assert_ended(&say(source, v1::Hello { token, ..hello.clone() }), Code::Unauthenticated, "BAD_TOKEN");
    assert_eq!(say(source, v1::Hello { token: String::new(), ..hello.clone() }).code(), Code::Unauthenticated);
    assert_ended(&say(source, v1::Hello { protocol: 9, ..hello.clone() }), Code::FailedPrecondition, "WRONG_PROTOCOL");
    assert_eq!(say("user", hello.clone()).code(), Code::PermissionDenied);
    let malformed = v1::Hello { operation: "../../etc".to_owned(), ..hello.clone() };
    assert_eq!(say(source, malformed).code(), Code::InvalidArgument);
    let nonsense = v1::Hello { lane: 1000, ..hello.clone() };
    assert_eq!(say(source, nonsense).code(), Code::InvalidArgument);
    // A first frame that is no Hello.
    let first = send(&cluster, source, vec![Frame::Settle(v1::Settle {})]);
    assert_eq!(first.code(), Code::InvalidArgument, "{first:?}");
}

#[test]
fn damaged_and_malformed_frames_end_the_lane_and_nothing_else() {
    let cluster = Cluster::new();
    let hello = prepared(&cluster);
    let say = |frames: Vec<Frame>| {
        let hello = [Frame::Hello(hello.clone())];
        send(&cluster, "source-west", hello.into_iter().chain(frames).collect())
    };
    // One part of one page, then a log record.
    let start = "0.0000000a.0000000b.0.0000000c.0000000d";
    let header =
        SeedHeader { page_size: 4096, journal: Journal::Wal, file_bytes: 4096, part_bytes: 1 << 20, mode: 0o644 };
    let plan = v1::Plan {
        generation: 1,
        parts: vec![v1::Part { part: 0, object: "shop.db".to_owned(), bytes: 4096 }],
        verify: false,
        log_start: start.to_owned(),
        log_resume: start.to_owned(),
        header: header.encode(),
    };
    let log = |from: &str, crc_off: u32| {
        let payload = bytes::Bytes::from_static(b"not a log payload");
        Frame::Log(v1::LogRecord {
            from: from.to_owned(),
            to: from.to_owned(),
            crc32c: crc32c::crc32c(&payload) ^ crc_off,
            payload,
            ..Default::default()
        })
    };
    let planned = |frame: Frame| say(vec![Frame::Plan(plan.clone()), frame]);
    assert_ended(&planned(log(start, 1)), Code::DataLoss, "BAD_CRC");
    let refused = |status: Status| {
        let fair = ![Code::Ok, Code::DeadlineExceeded, Code::Internal, Code::Unknown].contains(&status.code());
        assert!(fair, "{status:?}");
    };
    // Positions that are none.
    assert_eq!(planned(log("pos\u{7}ition", 0)).code(), Code::InvalidArgument);
    refused(planned(log("no position", 0)));
    let marker = |attempt, position: &str| Frame::Marker(v1::Marker { attempt, position: position.to_owned() });
    assert_eq!(planned(marker(0, start)).code(), Code::InvalidArgument);
    assert_eq!(planned(marker(1, "\u{1F4A5}")).code(), Code::InvalidArgument);
    // Nothing comes before the plan, and a plan has to make sense.
    assert_eq!(say(vec![log(start, 0)]).code(), Code::InvalidArgument);
    let junk = v1::Plan { header: bytes::Bytes::from_static(b"junk"), generation: 2, ..plan.clone() };
    refused(say(vec![Frame::Plan(junk)]));
    assert_eq!(say(vec![Frame::Plan(v1::Plan { generation: 0, ..plan.clone() })]).code(), Code::InvalidArgument);
    // A chunk with a wrong checksum, on a lane for chunks.
    let chunk = v1::SeedChunk {
        generation: 1,
        next_offset: 4096,
        last: true,
        payload: bytes::Bytes::from_static(b"not a page"),
        crc32c: 77,
        ..Default::default()
    };
    let lane = v1::Hello { lane: 1, generation: 1, ..hello.clone() };
    let damaged = send(&cluster, "source-west", vec![Frame::Hello(lane), Frame::Chunk(chunk)]);
    assert_ended(&damaged, Code::DataLoss, "BAD_CRC");
    // The agent is none the worse for it.
    cluster.call(cluster.dest_agent("east").describe(v1::DescribeRequest {})).expect("the agent lives");
    let discard = v1::DiscardRequest { operation: hello.operation.clone(), version: 2 };
    cluster.call(cluster.dest_agent("east").discard(discard)).expect("discard");
    let forget = v1::ForgetRequest { operation: hello.operation.clone(), version: 3 };
    cluster.call(cluster.dest_agent("east").forget(forget)).expect("forget");
    content::filled(&cluster.west().database("shop.db"), 3);
    let op: Op<'_> = cluster.start_move("shop.db");
    op.until_ready();
    op.complete();
    op.until_succeeded();
}

#[test]
fn agents_refuse_malformed_commands() {
    let cluster = Cluster::new();
    let mut source = cluster.source_agent("west");
    let begin = |change: &dyn Fn(&mut v1::BeginRequest)| {
        let mut request = v1::BeginRequest {
            operation: "01890000-0000-7000-8000-000000000002".to_owned(),
            version: 1,
            kind: v1::Kind::Move.into(),
            database: "shop.db".to_owned(),
            token: "a".repeat(32),
            dest_address: cluster.address(DEST),
            dest_instance: "east".to_owned(),
            ..Default::default()
        };
        change(&mut request);
        request
    };
    type Spoil = fn(&mut v1::BeginRequest);
    let wrong: [(&str, Spoil); 6] = [
        ("operation", |r| r.operation = "a/b".to_owned()),
        ("kind", |r| r.kind = 9),
        ("database", |r| r.database = "../shop.db".to_owned()),
        ("database", |r| r.database = String::new()),
        ("token", |r| r.token = "short".to_owned()),
        ("dest_address", |r| r.dest_address = "nowhere".to_owned()),
    ];
    for (field, change) in wrong {
        let refused = cluster.call(source.begin(begin(&change))).expect_err("a malformed Begin");
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {}", describe(&refused));
        assert!(describe(&refused).contains(field), "{field}: {}", describe(&refused));
    }
    let status = v1::SourceStatusRequest { operation: "01890000-0000-7000-8000-000000000003".to_owned() };
    assert_ended(&cluster.call(source.get_status(status)).expect_err("unknown"), Code::NotFound, "OPERATION_UNKNOWN");
    let fence = v1::FenceRequest { operation: "no".to_owned(), version: 1, attempt: 0, grace_ms: 0 };
    assert_ne!(cluster.call(source.fence(fence)).expect_err("malformed").code(), Code::Internal);
}

#[test]
fn strangers_and_expired_certificates_are_turned_away() {
    let cluster = Cluster::new();
    let address = cluster.address(Party::Coordinator);
    let list = |certs: &std::path::Path, stem: &str| {
        let env = Env::real();
        let files = service::TlsFiles::in_dir(certs, stem);
        cluster.block_on(async {
            let tls = service::Tls::load(&env, files).await.map_err(|e| e.to_string())?;
            let channel = service::dial::Dialer::new(env, Some(tls)).connect(&address).await;
            channel.map(|_| ()).map_err(|e| service::status::chain(&e))
        })
    };
    assert_eq!(list(&cluster.certs(), "user"), Ok(()));

    // Another authority, of the same name.
    let other = tempfile::tempdir().expect("a directory");
    let now = Env::real().now();
    certs::issue_dev(other.path(), &[Spec::new("user", "spiffe://causeway/user/tester", now)], now).expect("issue");
    let refused = list(other.path(), "user").expect_err("a stranger's certificate");
    println!("stranger: {refused}");
    // The right authority for the server, but a certificate by the wrong one.
    std::fs::copy(cluster.certs().join("ca.pem"), other.path().join("ca.pem")).expect("copy the CA");
    let refused = list(other.path(), "user").expect_err("a certificate by another authority");
    println!("other authority: {refused}");
    assert!(refused.contains("certificate"), "{refused}");

    let day = 86_400_000;
    let ago = |days: i64| Timestamp::from_millis(now.as_millis() - days * day);
    cluster.issue(Spec::new("expired", "spiffe://causeway/user/tester", now).valid(ago(10), ago(1)));
    let refused = list(&cluster.certs(), "expired").expect_err("an expired certificate");
    println!("expired: {refused}");
    assert!(refused.contains("expired"), "{refused}");
}

/// An agent under a certificate that is not its own is not taken for it.
#[test]
fn an_agent_with_the_wrong_certificate_gets_no_operation() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("a.db"));
    cluster.kill(DEST);
    let certs = cluster.certs();
    cluster.set_flag(DEST, &format!("--cert={}", certs.join("user.pem").display()));
    cluster.set_flag(DEST, &format!("--key={}", certs.join("user-key.pem").display()));
    cluster.restart(DEST);
    let request = causeway_tests::operation::request(v1::Kind::Move, &["a.db"]);
    let refused = cluster.try_start(request).expect_err("a start with an impostor");
    println!("{}", describe(&refused));
    assert!(matches!(refused.code(), Code::FailedPrecondition | Code::Unavailable), "{refused:?}");
}
