//! Fuzz targets: what an application's SQLite, a disk, or the other half of the engine may hold.

use super::{
    header::{self, Header},
    source::wal,
    wire::{self, ChunkPayload, Digest, Frame, Log, Point, SeedHeader, Sparse},
};
use ::fuzz::fuzz;
use bytes::{Bytes, BytesMut};
use handover::Position;
use std::{
    fs::{self, File},
    path::Path,
};

/// A database and its write-ahead log, as SQLite makes them.
fn real_files(dir: &Path) -> (Vec<u8>, Vec<u8>) {
    let path = dir.join("real.db");
    let db = rusqlite::Connection::open(&path).expect("open a database");
    let make = "PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a, b);
        WITH RECURSIVE s(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM s WHERE n<20)
        INSERT INTO t SELECT n, zeroblob(100) FROM s";
    db.execute_batch(make).expect("fill it");
    let wal = fs::read(dir.join("real.db-wal")).expect("read its log");
    db.execute_batch("PRAGMA wal_checkpoint").expect("checkpoint it");
    let head = fs::read(&path).expect("read the database")[..header::LEN].to_vec();
    (head, wal)
}

#[test]
fn fuzz_headers() {
    let dir = tempfile::tempdir().expect("a directory");
    let (head, _) = real_files(dir.path());
    fuzz("headers of SQLite", &[head], |input| {
        Header::parse(input).is_ok_and(|header| {
            assert!(header.page_size.is_power_of_two());
            let _ = (header.is_fenced(), header.is_wal(), super::tombstone::is_tombstone(&header));
            true
        })
    });
}

#[test]
fn fuzz_write_ahead_logs() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, whole) = real_files(dir.path());
    let path = dir.path().join("fuzzed-wal");
    fuzz("write-ahead logs", &[whole], |input| {
        fs::write(&path, input).expect("write the log");
        let file = File::open(&path).expect("open it");
        let Some(head) = wal::read_header(&file).expect("a file can be read") else { return false };
        let frames = (input.len() / (24 + head.page_size as usize)) as u32;
        let mut cursor = wal::Cursor { seq: 0, salt: head.salt, frame: 0, checksum: head.checksum };
        let mut reader = wal::FrameReader::new(head.page_size);
        let mut read = 0;
        while cursor.frame < frames {
            let before = cursor.frame;
            let Ok(found) = reader.read(&file, &mut cursor, frames) else { break };
            assert!(cursor.frame > before && found.wire.len() >= wal::FrameReader::wire_frame(head.page_size));
            read = cursor.frame;
        }
        let _ = wal::read_frame_header(&file, head.page_size, frames);
        read > 0
    });
}

#[test]
fn fuzz_seeds() {
    let header =
        SeedHeader { page_size: 512, journal: wire::Journal::Wal, file_bytes: 5120, part_bytes: 1024, mode: 0o640 };
    fuzz("plans of SQLite", &[header.encode().to_vec()], |input| {
        SeedHeader::decode(input).is_ok_and(|header| {
            assert!(header.parts() > 0);
            true
        })
    });
    let mut sparse = Sparse::new(1024, Some(7));
    sparse.push(1, &[7; 512]);
    let mut full = BytesMut::new();
    wire::full_prefix(&mut full, Some(512));
    full.extend_from_slice(&[1; 512]);
    let digest = Digest::of(&[3; 2048], 512).encode();
    fuzz("chunks of SQLite", &[sparse.finish().to_vec(), full.to_vec()], |input| {
        ChunkPayload::decode(&Bytes::copy_from_slice(input), 512).is_ok()
    });
    fuzz("digests of SQLite", &[digest.to_vec()], |input| {
        Digest::decode(&Bytes::copy_from_slice(input)).is_ok_and(|digest| {
            for page in 0..digest.pages() + 2 {
                let _ = digest.matches(page, &[3; 512]);
            }
            true
        })
    });
}

#[test]
fn fuzz_log() {
    let mut log = BytesMut::new();
    wire::begin_log(&mut log, 512);
    for pgno in 1..=3 {
        wire::push_frame(&mut log, Frame { pgno, commit: if pgno == 3 { 3 } else { 0 }, page: &[0; 512] });
    }
    fuzz("log of SQLite", &[log.to_vec()], |input| {
        Log::decode(input).is_ok_and(|log| {
            assert!(log.frames().all(|frame| frame.page.len() == log.page_size() as usize && frame.pgno > 0));
            log.frames().count() == log.len() && !log.is_empty()
        })
    });
}

#[test]
fn fuzz_requirements_and_positions() {
    let requirements = wire::Requirements {
        format: wire::VERSION,
        page_size: 4096,
        bytes: 1 << 20,
        sqlite_version: 3_051_003,
        written_by: 0,
        journal: wire::Journal::Rollback,
        mode: 0o600,
    };
    let sample = requirements.encode().expect("JSON").to_vec();
    fuzz("requirements of SQLite", &[sample], |input| wire::Requirements::decode(input).is_ok());

    let points = [Point::Wal { seq: 9, salt: [1, 2], frame: 3, checksum: [4, 5] }, Point::Rollback { pass: 1, seq: 2 }];
    let samples = points.map(|point| point.position().as_str().as_bytes().to_vec());
    fuzz("positions of SQLite", &samples, |input| {
        let Some(position) = Position::parse(&String::from_utf8_lossy(input)) else { return false };
        Point::parse(&position).is_ok_and(|point| {
            assert_eq!(point.position(), position);
            true
        })
    });
}
