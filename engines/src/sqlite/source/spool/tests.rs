//! The spool: what is read is what was written, over segments, restarts, damage and sleepers.

use super::*;
use bytes::BytesMut;

fn point(seq: u64) -> Point {
    Point::Wal { seq, salt: [1, 2], frame: seq as u32, checksum: [seq as u32, 7] }
}

fn filled(dir: &Path, epoch: u64, upto: u64) -> Spool {
    let mut spool = Spool::create(dir, epoch, 1000, point(0)).expect("created");
    fill(&mut spool, upto);
    spool
}

fn fill(spool: &mut Spool, upto: u64) {
    for seq in spool.end().seq() + 1..=upto {
        spool.append(point(seq), &[seq as u8; 100], 1, seq as i64).expect("appended");
    }
}

fn read(spool: &mut Spool, after: u64, max: usize, limit: u64) -> (u64, Vec<u8>) {
    let mut into = BytesMut::new();
    let piece = spool.read(point(after), max, limit, &mut into).expect("read");
    (piece.to.seq(), into.to_vec())
}

#[test]
fn records_come_back_in_order_and_in_the_size_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = filled(dir.path(), 1, 40);
    let (mut at, mut all) = (0, vec![]);
    while at < 38 {
        let (to, bytes) = read(&mut spool, at, 350, 38);
        assert!(bytes.len() <= 350 && to > at);
        at = to;
        all.extend(bytes);
    }
    let expected: Vec<u8> = (1..=38u8).flat_map(|seq| [seq; 100]).collect();
    assert_eq!((at, all), (38, expected));
    // A record larger than the size asked for is given whole; reading again from an earlier point works.
    assert_eq!(read(&mut spool, 7, 1, 40).0, 8);
    assert!(spool.read(point(40), 1, 40, &mut BytesMut::new()).is_err(), "there is nothing after the end");
    let other = Point::Wal { seq: 7, salt: [9, 9], frame: 7, checksum: [7, 7] };
    assert!(matches!(spool.read(other, 1, 40, &mut BytesMut::new()), Err(Error::LogLost(_))));
}

#[test]
fn only_segments_wholly_confirmed_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = filled(dir.path(), 1, 40);
    let before = spool.bytes();
    spool.confirm(&point(20)).expect("confirmed");
    assert!(spool.bytes() < before && spool.start().seq() <= 20);
    assert!(spool.holds(point(20)) && !spool.holds(point(0)));
    spool.confirm(&point(40)).expect("confirmed");
    fill(&mut spool, 41);
    assert_eq!(read(&mut spool, 40, 1, 41).0, 41);
}

#[test]
fn a_restart_goes_on_and_cuts_what_is_torn() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(filled(dir.path(), 1, 40));
    let last = disk::list(dir.path()).expect("listed").pop().expect("a segment");
    let file = OpenOptions::new().write(true).open(&last).expect("open");
    let len = file.metadata().expect("length").len();
    file.write_all_at(b"?", len - 50).expect("damaged");

    let mut spool = Spool::recover(dir.path(), 2, 1000).expect("recovered").expect("some");
    assert_eq!(spool.end(), point(39));
    fill(&mut spool, 45);
    let mut again = Spool::recover(dir.path(), 3, 1000).expect("recovered").expect("some");
    assert_eq!((again.start(), again.end()), (point(0), point(45)));
    let mut at = 0;
    while at < 45 {
        let (to, bytes) = read(&mut again, at, 100, 45);
        assert_eq!(bytes, [to as u8; 100]);
        at = to;
    }
}

#[test]
fn a_sleeper_that_wakes_up_adds_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut sleeper = filled(dir.path(), 1, 10);
    let mut newer = Spool::recover(dir.path(), 2, 1000).expect("recovered").expect("some");
    fill(&mut newer, 12);
    sleeper.append(point(11), &[99; 100], 1, 0).expect("appended");
    let mut third = Spool::recover(dir.path(), 3, 1000).expect("recovered").expect("some");
    assert_eq!(third.end(), point(12));
    assert_eq!(read(&mut third, 10, 1, 12).1, [11; 100]);
}

#[test]
fn a_hole_ends_it() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(filled(dir.path(), 1, 40));
    let second = disk::list(dir.path()).expect("listed").swap_remove(1);
    std::fs::remove_file(second).expect("removed");
    let spool = Spool::recover(dir.path(), 2, 1000).expect("recovered").expect("some");
    assert!(spool.end().seq() < 20);
    assert_eq!(disk::list(dir.path()).expect("listed").len(), 1);
    assert!(Spool::recover(&dir.path().join("none"), 2, 1000).expect("no error").is_none());
}

/// Whatever a disk makes of a segment, it is read up to the damage.
#[test]
fn fuzz_segments() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = filled(dir.path(), 1, 5);
    let segment =
        |dir: &Path| std::fs::read_dir(dir).expect("a directory").next().expect("a segment").expect("its name").path();
    let sample = std::fs::read(segment(dir.path())).expect("read the segment");
    drop(spool);
    let path = dir.path().join("fuzzed");
    fuzz::fuzz("segments of a spool", &[sample], |input| {
        std::fs::write(&path, input).expect("write the segment");
        let quick = scan(&path, None, false).expect("a file can be read").map_or(0, |s| s.bytes);
        let thorough = scan(&path, None, true).expect("a file can be read").map_or(0, |s| s.bytes);
        assert!(thorough <= quick && quick <= input.len() as u64);
        thorough > 0
    });
}
