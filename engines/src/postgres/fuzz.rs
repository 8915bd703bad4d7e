//! Fuzz targets: what a server, or the other half of the engine, may send.

use super::{
    log::pgoutput,
    payload::{self, Extra, LogPayload, large_objects},
    position::Point,
    wire::{frame_len, server_error},
};
use ::fuzz::fuzz;
use bytes::{Bytes, BytesMut};
use handover::Position;

/// Messages of pgoutput as a server writes them.
fn messages() -> Vec<Vec<u8>> {
    let whole: [&[u8]; 11] = [
        b"B\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x20\0\0\0\x07",
        b"C\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x20\0\0\0\0\0\0\0\x30",
        b"R\0\0\0\x07public\0t\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0pad\0\0\0\0\x19\xff\xff\xff\xff",
        b"I\0\0\0\x07N\0\x02b\0\0\0\x04\0\0\0\x01t\0\0\0\x02xy",
        b"U\0\0\0\x07O\0\x02b\0\0\0\x01xnN\0\x02t\0\0\0\x02yzu",
        b"U\0\0\0\x07K\0\x01t\0\0\0\x011N\0\x01n",
        b"D\0\0\0\x07K\0\x01t\0\0\0\x011",
        b"T\0\0\0\x02\x03\0\0\0\x07\0\0\0\x08",
        b"M\x01\0\0\0\0\0\0\0\x09causeway.fence\0\0\0\0\x05token",
        b"Y\0\0\0\x01public\0mood\0",
        b"O\0\0\0\0\0\0\0\x01origin\0",
    ];
    whole.iter().map(|message| message.to_vec()).collect()
}

fn read_message(message: &[u8]) -> bool {
    match pgoutput::read(message) {
        Ok(pgoutput::Message::Relation { body, .. }) => pgoutput::Relation::read(body).is_ok(),
        Ok(pgoutput::Message::Row { change, .. }) => {
            let (mut old, mut new) = (Vec::new(), Vec::new());
            let read = pgoutput::tuples(message, 0, change, &mut old, &mut new).is_ok();
            if read {
                // Every value lies inside the message.
                let bytes: usize = old.iter().chain(&new).map(|value| value.of(message).len()).sum();
                assert!(bytes <= message.len());
            }
            read
        }
        read => read.is_ok(),
    }
}

#[test]
fn fuzz_pgoutput() {
    fuzz("pgoutput", &messages(), read_message);
}

#[test]
fn fuzz_log_payloads() {
    let mut changes = LogPayload::changes_buffer(0);
    messages().iter().for_each(|message| payload::put_message(&mut changes, message));
    let extra = LogPayload::extra(&Extra::LargeObjectList(vec![1, 2]), b"raw").expect("small");
    fuzz("log payloads of PostgreSQL", &[changes.to_vec(), extra.to_vec()], |input| {
        match LogPayload::read(Bytes::copy_from_slice(input)) {
            Ok(LogPayload::Changes(changes)) => {
                payload::messages(&changes).all(|message| message.is_ok_and(read_message))
            }
            read => read.is_ok(),
        }
    });
}

#[test]
fn fuzz_large_objects() {
    use large_objects::{Record, put, take};
    let mut whole = BytesMut::new();
    put(&mut whole, &Record::Object { oid: 7, statements: "ALTER LARGE OBJECT 7 OWNER TO o".to_owned() });
    put(&mut whole, &Record::Piece { oid: 7, offset: 9, data: Bytes::from_static(b"abc") });
    fuzz("large objects", &[whole.to_vec()], |input| {
        let mut rest = Bytes::copy_from_slice(input);
        loop {
            let before = rest.len();
            match take(&mut rest) {
                Ok(Some(_)) => assert!(rest.len() < before, "a record takes nothing"),
                end => return end.is_ok(),
            }
        }
    });
}

#[test]
fn fuzz_server_messages() {
    let error = b"E\0\0\0\x30SERROR\0VERROR\0C55006\0Mdatabase is not open\0\0".to_vec();
    fuzz("messages of the server", &[error], |input| {
        let _ = server_error("fuzz", input.get(5..).unwrap_or_default());
        matches!(frame_len("fuzz", input), Ok(Some(len)) if len > 4)
    });
}

#[test]
fn fuzz_positions() {
    let samples = [Point::at(super::position::Lsn(77)), Point::end(super::position::Lsn(u64::MAX / 2))];
    let samples = samples.map(|point| point.position().as_str().as_bytes().to_vec());
    fuzz("positions of PostgreSQL", &samples, |input| {
        let text = String::from_utf8_lossy(input);
        let Some(position) = Position::parse(&text) else { return false };
        // What is read is written again as it was: else two texts would stand for one point.
        Point::read(&position).is_ok_and(|point| {
            assert_eq!(point.position(), position);
            true
        })
    });
}
