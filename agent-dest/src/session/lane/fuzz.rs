//! Fuzz target: frames of a transfer as they come from the network, with what is done to them before an engine sees anything.

use super::{name, unpack};
use bytes::Bytes;
use prost::Message as _;
use proto::{
    convert,
    v1::{self, SourceFrame, source_frame::Frame},
};

fn chunk(payload: &[u8], uncompressed: u32) -> Frame {
    let payload = Bytes::copy_from_slice(payload);
    let crc32c = crc32c::crc32c(&payload);
    Frame::Chunk(v1::SeedChunk {
        generation: 1,
        next_offset: 9,
        last: true,
        payload,
        crc32c,
        uncompressed,
        ..Default::default()
    })
}

fn samples() -> Vec<Vec<u8>> {
    let packed = zstd::bulk::compress(&[7; 600], 1).expect("compress");
    let hello = v1::Hello {
        operation: "0197-a".to_owned(),
        token: "0123456789abcdef0123456789abcdef".to_owned(),
        protocol: proto::PROTOCOL,
        engine: "memory".to_owned(),
        database: "shop".to_owned(),
        incarnation: "1".to_owned(),
        epoch: 2,
        ..Default::default()
    };
    let log = v1::LogRecord {
        from: "1.1".to_owned(),
        to: "1.2".to_owned(),
        payload: Bytes::from_static(b"log"),
        crc32c: crc32c::crc32c(b"log"),
        transactions: 1,
        ..Default::default()
    };
    let part = v1::Part { part: 0, object: "t".to_owned(), bytes: 7 };
    let plan = v1::Plan { generation: 1, parts: vec![part], log_start: "1.1".to_owned(), ..Default::default() };
    let frames = [
        Frame::Hello(hello),
        Frame::Plan(plan),
        chunk(b"rows", 0),
        chunk(&packed, 600),
        Frame::Log(log),
        Frame::Marker(v1::Marker { attempt: 3, position: "1.2".to_owned() }),
        Frame::SeedEnd(v1::SeedEnd { generation: 1 }),
    ];
    frames.into_iter().map(|frame| SourceFrame { frame: Some(frame) }.encode_to_vec()).collect()
}

/// Whether a frame would get as far as an engine.
fn taken(input: &[u8]) -> bool {
    let Ok(SourceFrame { frame: Some(frame) }) = SourceFrame::decode(input) else { return false };
    let _ = name(Some(&frame));
    match frame {
        Frame::Hello(hello) => {
            convert::operation_id("operation", &hello.operation).is_ok()
                && handover::Incarnation::parse(&hello.incarnation).is_ok()
        }
        Frame::Plan(plan) => convert::position("log_start", &plan.log_start).is_ok(),
        Frame::Chunk(chunk) => unpacks(chunk.payload, chunk.crc32c, chunk.uncompressed),
        Frame::Log(log) => {
            convert::position("from", &log.from).is_ok() && unpacks(log.payload, log.crc32c, log.uncompressed)
        }
        Frame::Marker(marker) => convert::position("position", &marker.position).is_ok(),
        Frame::Digest(_) | Frame::SeedEnd(_) | Frame::Settle(_) => true,
    }
}

fn unpacks(payload: Bytes, crc: u32, uncompressed: u32) -> bool {
    // What a sender means harm with has a right checksum; and a gigabyte announced is a gigabyte reserved, which is allowed
    // but takes long.
    let right = crc32c::crc32c(&payload);
    let _ = unpack("a fuzzed payload", payload.clone(), right, uncompressed.min(1 << 20));
    unpack("a fuzzed payload", payload, crc, uncompressed.min(1 << 20)).is_ok()
}

#[test]
fn fuzz_frames() {
    ::fuzz::fuzz("frames of a transfer", &samples(), taken);
}
