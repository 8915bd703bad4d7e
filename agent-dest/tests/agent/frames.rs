//! Frames that are damaged, malformed or out of place: each ends its lane with a reason, and nothing panics.

use crate::{
    client::*,
    fake::{Fault, World},
};
use proto::v1::{
    DigestRequest, LogRecord, Plan, SeedChunk, SeedEnd, Settle, dest_frame::Frame as Answer, source_frame::Frame,
};
use tonic::Code;

#[tokio::test]
async fn what_has_no_place_on_lane_0_ends_it() {
    let world = World::default();
    let (agent, _source) = Agent::replica(&world).await;
    let ok = || log_record(10, 11, b"frames");
    let Frame::Plan(good) = plan(1, 0) else { unreachable!("a plan") };
    let part = |part| proto::v1::Part { part, object: String::new(), bytes: 0 };
    let cases: Vec<(bool, Frame, Code, &str)> = vec![
        (false, log(10, 11), Code::InvalidArgument, "BAD_FRAME"),
        (false, marker(1, 10), Code::InvalidArgument, "BAD_FRAME"),
        (false, Frame::Settle(Settle {}), Code::InvalidArgument, "BAD_FRAME"),
        (false, Frame::Plan(Plan { generation: 0, ..good.clone() }), Code::InvalidArgument, "BAD_FRAME"),
        (false, Frame::Plan(Plan { log_start: String::new(), ..good.clone() }), Code::InvalidArgument, "BAD_FIELD"),
        (false, Frame::Plan(Plan { log_resume: "a b".to_owned(), ..good.clone() }), Code::InvalidArgument, "BAD_FIELD"),
        (false, Frame::Plan(Plan { parts: vec![part(3), part(3)], ..good }), Code::InvalidArgument, "BAD_FRAME"),
        (true, hello(), Code::InvalidArgument, "BAD_FRAME"),
        (true, chunk(0, 0, 1, false), Code::InvalidArgument, "BAD_FRAME"),
        (true, Frame::SeedEnd(SeedEnd { generation: 9 }), Code::FailedPrecondition, "WRONG_GENERATION"),
        (true, marker(0, 10), Code::InvalidArgument, "BAD_FIELD"),
        (true, marker(u32::MAX, 10), Code::InvalidArgument, "BAD_FIELD"),
        (true, Frame::Log(LogRecord { to: "\u{7f}".to_owned(), ..ok() }), Code::InvalidArgument, "BAD_FIELD"),
        (true, Frame::Log(LogRecord { from: "x".repeat(257), ..ok() }), Code::InvalidArgument, "BAD_FIELD"),
        (true, Frame::Log(LogRecord { crc32c: 1, ..ok() }), Code::DataLoss, "BAD_CRC"),
        (true, Frame::Log(LogRecord { uncompressed: 5, ..ok() }), Code::InvalidArgument, "BAD_FRAME"),
        (true, Frame::Log(LogRecord { uncompressed: u32::MAX, ..ok() }), Code::InvalidArgument, "BAD_FRAME"),
        (true, log(11, 12), Code::OutOfRange, "LOG_GAP"),
    ];
    let applied = world.calls("log");
    for (after_plan, frame, code, reason) in cases {
        let shown = format!("{frame:?}");
        let mut lane = agent.source(hello()).await;
        lane.welcome().await;
        if after_plan {
            lane.plan(1, 0).await;
        }
        lane.send(frame).await;
        let status = lane.refusal().await;
        assert_eq!(status.code(), code, "{shown}: {status:?}");
        is(&status, code, reason);
    }
    // Only the gap came as far as the engine.
    assert_eq!(world.calls("log"), applied + 1);
    let mut empty = agent.source(hello()).await;
    empty.welcome().await;
    empty.send_nothing().await;
    is(&empty.refusal().await, Code::InvalidArgument, "BAD_FRAME");
}

#[tokio::test]
async fn what_has_no_place_on_a_seed_lane_ends_it() {
    let world = World::default();
    let agent = Agent::prepared_operation(&world).await;
    let mut control = agent.source(hello()).await;
    control.plan(1, 2).await;
    let ok = || chunk_message(0, 0, 5, false);
    let digest = |part, offset, length| Frame::Digest(DigestRequest { part, offset, length });
    let cases: Vec<(Frame, Code, &str)> = vec![
        (log(0, 1), Code::InvalidArgument, "BAD_FRAME"),
        (Frame::Chunk(SeedChunk { part: 7, ..ok() }), Code::InvalidArgument, "BAD_FRAME"),
        (Frame::Chunk(SeedChunk { generation: 2, ..ok() }), Code::FailedPrecondition, "WRONG_GENERATION"),
        (Frame::Chunk(SeedChunk { crc32c: 0, ..ok() }), Code::DataLoss, "BAD_CRC"),
        (Frame::Chunk(SeedChunk { offset: 9, next_offset: 8, ..ok() }), Code::InvalidArgument, "BAD_FRAME"),
        (Frame::Chunk(SeedChunk { offset: 50, next_offset: 60, ..ok() }), Code::OutOfRange, "LOG_GAP"),
        (digest(7, 0, 1), Code::InvalidArgument, "BAD_FRAME"),
        (digest(0, 0, 0), Code::InvalidArgument, "BAD_FRAME"),
        (digest(0, 0, u32::MAX), Code::InvalidArgument, "BAD_FRAME"),
        (digest(0, u64::MAX, 10), Code::InvalidArgument, "BAD_FRAME"),
    ];
    for (frame, code, reason) in cases {
        let mut lane = agent.source(seed_hello(1, 1)).await;
        lane.welcome().await;
        lane.send(frame).await;
        is(&lane.refusal().await, code, reason);
    }
    let mut lane = agent.source(seed_hello(1, 1)).await;
    lane.welcome().await;
    lane.send(digest(1, 2, 3)).await;
    let payload = lane.until(|answer| match answer {
        Answer::Digest(digest) => Some(digest.payload.clone()),
        _ => None,
    });
    assert_eq!(payload.await, "1/2/3");
}

#[tokio::test]
async fn an_oversized_frame_is_the_callers_mistake() {
    let world = World::default();
    let (agent, _source) = Agent::replica(&world).await;
    is(&agent.announced(&[hello()], proto::FRAME_BYTES_MAX + 1).await, Code::InvalidArgument, "BAD_FRAME");
    agent.source(hello()).await.welcome().await;
}

/// Whoever can connect could else have a gigabyte set aside for them with five bytes.
#[tokio::test]
async fn before_its_hello_a_lane_takes_small_messages_only() {
    let world = World::default();
    let (agent, _source) = Agent::replica(&world).await;
    for len in [(16 << 10) + 1, 1 << 20, proto::FRAME_BYTES_MAX, u32::MAX as usize] {
        let refused = agent.announced(&[], len).await;
        is(&refused, Code::InvalidArgument, "BAD_FRAME");
        assert!(refused.message().contains("before a Hello"), "{len}: {refused:?}");
    }
    // Behind it frames are as large as they have to be: this one is not refused for its length, but because nothing follows.
    let refused = agent.announced(&[hello()], 512 << 20).await;
    assert!(!refused.message().contains("Hello") && !refused.message().contains("limit"), "{refused:?}");
    agent.source(hello()).await.welcome().await;
}

#[tokio::test]
async fn a_damaged_record_is_trouble_until_something_becomes_durable() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    source.durable("10").await;
    source.send(Frame::Log(LogRecord { crc32c: 1, ..log_record(10, 11, b"frames") })).await;
    is(&source.refusal().await, Code::DataLoss, "BAD_CRC");
    let status = agent.status().await;
    assert_eq!(status.trouble.expect("trouble").code, "BAD_CRC");
    assert!(!status.fatal);

    let mut again = agent.source(hello()).await;
    assert_eq!(again.welcome().await.log_position, "10");
    again.plan(1, 0).await;
    again.send(log(10, 11)).await;
    again.durable("11").await;
    assert!(agent.status().await.trouble.is_none());
}

#[tokio::test]
async fn compressed_payloads_are_unpacked_up_to_the_length_announced() {
    let world = World::default();
    let (_agent, mut source) = Agent::replica(&world).await;
    for (to, len) in [(11u64, 1usize << 10), (12, 1 << 20)] {
        let packed = zstd::bulk::compress(&vec![7; len], 1).expect("pack");
        let crc32c = crc32c::crc32c(&packed);
        let uncompressed = u32::try_from(len).expect("small");
        let record = LogRecord { payload: packed.into(), crc32c, uncompressed, ..log_record(to - 1, to, b"") };
        source.send(Frame::Log(record)).await;
        source.received(&to.to_string()).await;
    }
    // A bomb: it says 10 bytes and unpacks to a million.
    let packed = zstd::bulk::compress(&vec![7; 1 << 20], 1).expect("pack");
    let crc32c = crc32c::crc32c(&packed);
    source
        .send(Frame::Log(LogRecord { payload: packed.into(), crc32c, uncompressed: 10, ..log_record(12, 13, b"") }))
        .await;
    is(&source.refusal().await, Code::InvalidArgument, "BAD_FRAME");
}

#[tokio::test]
async fn rot_in_the_log_is_fatal_and_a_full_disk_is_not() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    source.durable("10").await;
    world.fail("log", Fault::DiskFull);
    source.send(log(10, 11)).await;
    is(&source.refusal().await, Code::ResourceExhausted, "DISK_FULL");
    assert!(!agent.status().await.fatal);

    let mut source = agent.source(hello()).await;
    source.plan(1, 0).await;
    world.fail("log", Fault::Corrupt);
    source.send(log(10, 11)).await;
    is(&source.refusal().await, Code::DataLoss, "CORRUPT");
    let status = agent.status().await;
    assert!(status.fatal);
    assert_eq!(status.trouble.expect("trouble").code, "CORRUPT");
}

#[tokio::test]
async fn a_failed_sync_ends_the_lanes_and_is_tried_again() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    source.durable("10").await;
    world.fail("sync", Fault::DiskFull);
    source.send(log(10, 11)).await;
    is(&source.refusal().await, Code::ResourceExhausted, "DISK_FULL");
    assert_eq!(agent.status().await.trouble.expect("trouble").code, "DISK_FULL");
    let mut source = agent.source(hello()).await;
    source.plan(1, 0).await;
    source.durable("11").await;
    assert!(agent.status().await.trouble.is_none());
}
