//! What the application does, and says, when its database is fenced, moves, or is given back.

mod support;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use causeway_ledger::{
    CheckOptions, History, Summary, WriteOptions,
    driver::{Chore, Driver, Error, Session, Snapshot, Work},
    transaction::Chain,
    write::write_with,
};
use rusqlite::Connection;
use support::{Bench, PATIENCE, assert_ok};

/// Sets the write version in the header to 3 by an ordinary transaction, which SQLite takes for read-only.
fn fence(path: &Path) {
    let conn = Connection::open(path).expect("the database opens");
    conn.busy_timeout(PATIENCE).expect("a timeout");
    conn.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    let select = "SELECT data FROM sqlite_dbpage WHERE pgno = 1";
    let mut page: Vec<u8> = conn.query_row(select, [], |r| r.get(0)).expect("the first page");
    page[18] = 3;
    conn.execute("UPDATE sqlite_dbpage SET data = ? WHERE pgno = 1", [page]).expect("the fence");
    conn.execute_batch("COMMIT").expect("the fence is committed");
}

/// Copies a fenced database to another path, where it appears at once and whole.
fn appear(from: &Path, to: &Path) {
    let making = to.with_extension("making");
    let conn = Connection::open(from).expect("the database opens");
    conn.execute("VACUUM INTO ?", [making.display().to_string()]).expect("a copy");
    let copy = Connection::open(&making).expect("the copy opens");
    copy.pragma_update(None, "journal_mode", "WAL").expect("WAL");
    copy.close().expect("the copy closes");
    std::fs::rename(making, to).expect("the copy appears");
}

#[test]
fn the_application_follows_its_database_and_tells_the_freeze() {
    for processes in [false, true] {
        let bench = Bench::new();
        let (west, east) = (bench.path("app.db"), bench.path("east.db"));
        let options = WriteOptions {
            writers: 2,
            readers: 1,
            reader_hold_ms: 5,
            reader_pause_ms: 20,
            follow: vec![east.clone()],
            processes,
            ..bench.options()
        };
        let mut writer = bench.spawn(&options);
        writer.wait_for_commits_at(&west, 100, PATIENCE).expect("it writes in the west");
        fence(&west);
        writer.wait_for_fence(2, PATIENCE).expect("every writer is refused");
        thread::sleep(Duration::from_millis(50));
        appear(&west, &east);
        writer.wait_for_commits_at(&east, 100, PATIENCE).expect("it writes in the east");
        let summary = writer.stop().expect("the writer stops");
        assert_eq!((summary.fenced, summary.moves.len(), summary.torn, summary.errors), (2, 1, 0, 0), "{summary:?}");
        let freeze_ms = summary.freeze_ms.expect("it moved");
        assert!((50.0..5000.0).contains(&freeze_ms), "{freeze_ms}");
        assert_eq!(summary.moves[0].to, east.display().to_string());
        let moved = CheckOptions::new(&east, bench.path("app.hist"));
        let report = bench.check_with(moved);
        assert_ok(&report);
        assert_eq!((report.acknowledged, report.fenced), (summary.committed, 2));
        let freeze_ms_read = History::read(&[bench.path("app.hist")]).expect("the history").freeze_ms();
        assert_eq!(freeze_ms_read, Some(freeze_ms));
        // What was written in the east is not in the west.
        assert!(bench.check().lost > 0);
    }
}

#[test]
fn without_a_place_to_go_a_fence_ends_the_application() {
    let bench = Bench::new();
    let mut writer = bench.spawn(&WriteOptions { writers: 2, ..bench.options() });
    writer.wait_for_commits(20, PATIENCE).expect("it writes");
    fence(&bench.path("app.db"));
    let summary = writer.wait_at_most(PATIENCE).expect("it ends by itself");
    assert_eq!((summary.fenced, summary.freeze_ms), (2, None));
    assert_ok(&bench.check());
}

#[test]
fn a_tombstone_is_no_place_to_write() {
    let bench = Bench::new();
    let east = bench.path("east.db");
    Connection::open(&east).expect("a file").execute_batch("CREATE TABLE moved(note)").expect("a note");
    let mut bytes = std::fs::read(&east).expect("the tombstone");
    bytes[18] = 3;
    std::fs::write(&east, &bytes).expect("the tombstone");
    let mut writer = bench.spawn(&WriteOptions { follow: vec![east.clone()], ..bench.options() });
    writer.wait_for_commits(20, PATIENCE).expect("it writes");
    fence(&bench.path("app.db"));
    writer.wait_for_fence(1, PATIENCE).expect("it is refused");
    thread::sleep(Duration::from_millis(50));
    assert!(writer.is_running().expect("a state"));
    assert_eq!(std::fs::read(&east).expect("the tombstone"), bytes);
    appear(&bench.path("app.db"), &east);
    writer.wait_for_commits_at(&east, 20, PATIENCE).expect("it writes in the east");
    writer.stop().expect("the writer stops");
    assert_ok(&bench.check_with(CheckOptions::new(&east, bench.path("app.hist"))));
}

/// Two places in memory, whose state the test sets.
#[derive(Default)]
struct Fake {
    places: [Mutex<FakePlace>; 2],
}

#[derive(Default)]
struct FakePlace {
    there: bool,
    fenced: bool,
    chains: BTreeMap<u32, Chain>,
}

struct FakeSession<'a>(&'a Mutex<FakePlace>);

impl Driver for &'static Fake {
    fn set_up(&self) -> Result<(), Error> {
        Ok(())
    }
    fn places(&self) -> usize {
        2
    }
    fn name(&self, place: usize) -> String {
        ["west", "east"][place].into()
    }
    fn connect(&self, place: usize) -> Result<Box<dyn Session>, Error> {
        let place = &self.places[place];
        match place.lock().expect("no panic").there {
            true => Ok(Box::new(FakeSession(place))),
            false => Err(Error::Failed { stage: "connect", cause: "absent".into() }),
        }
    }
}

impl Session for FakeSession<'_> {
    fn chain(&mut self, writer: u32) -> Result<Chain, Error> {
        Ok(self.0.lock().expect("no panic").chains.get(&writer).cloned().unwrap_or_default())
    }
    fn is_fenced(&self) -> Result<bool, Error> {
        Ok(self.0.lock().expect("no panic").fenced)
    }
    fn transact(&mut self, work: &Work, attempted: &mut dyn FnMut(i64) -> io::Result<()>) -> Result<(), Error> {
        let mut place = self.0.lock().expect("no panic");
        if place.fenced {
            return Err(Error::Fenced { stage: "write", cause: "read-only".into() });
        }
        attempted(1)?;
        place.chains.insert(work.transaction.writer, work.chain.clone());
        Ok(())
    }
    fn keep_house(&mut self, _: Chore) -> Result<(), Error> {
        Ok(())
    }
    fn snapshot(&mut self, _: i64, _: Duration) -> Result<Snapshot, Error> {
        Ok(Snapshot { sum_first: 0, sum_last: 0, items: vec![] })
    }
}

impl Fake {
    /// A database in the west; never freed, which a test may.
    fn new() -> &'static Self {
        let fake: &'static Self = Box::leak(Box::default());
        fake.places[0].lock().expect("no panic").there = true;
        fake
    }

    fn fence(&self, place: usize, fenced: bool) {
        self.places[place].lock().expect("no panic").fenced = fenced;
    }

    fn chains(&self, place: usize) -> BTreeMap<u32, Chain> {
        self.places[place].lock().expect("no panic").chains.clone()
    }

    fn appear_in_the_east(&self, chains: BTreeMap<u32, Chain>) {
        *self.places[1].lock().expect("no panic") = FakePlace { there: true, fenced: false, chains };
    }

    /// Waits until writer 0 got further at a place.
    fn progress(&self, place: usize) {
        let seq = |fake: &Self| fake.chains(place).get(&0).map_or(0, |c| c.seq);
        let goal = seq(self) + 10;
        let patience = std::time::Instant::now() + PATIENCE;
        while seq(self) < goal {
            assert!(std::time::Instant::now() < patience, "the writer stands still");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Runs one writer while the test does something to its database.
    fn run(&'static self, bench: &Bench, disturb: impl FnOnce()) -> Summary {
        /// Ends the writer also when the test panics; the scope would wait for it for ever.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let (options, stop) = (WriteOptions { follow: vec!["east".into()], ..bench.options() }, AtomicBool::new(false));
        thread::scope(|scope| {
            let writer = scope.spawn(|| write_with(&self, &options, &stop));
            let ends = Stop(&stop);
            disturb();
            drop(ends);
            writer.join().expect("no panic").expect("a summary")
        })
    }
}

#[test]
fn a_fence_taken_back_is_a_wait_and_no_move() {
    let (bench, fake) = (Bench::new(), Fake::new());
    let summary = fake.run(&bench, || {
        fake.progress(0);
        fake.fence(0, true);
        thread::sleep(Duration::from_millis(60));
        fake.fence(0, false);
        fake.progress(0);
        fake.fence(0, true);
        fake.appear_in_the_east(fake.chains(0));
        fake.progress(1);
    });
    assert_eq!((summary.moves.len(), summary.fenced, summary.losses_noticed), (1, 2, 0), "{summary:?}");
    let waited_ms = summary.aborted_freeze_ms_max.expect("it waited");
    assert!(waited_ms >= 60.0 && summary.freeze_ms.is_some_and(|ms| ms > 0.0), "{summary:?}");
}

#[test]
fn a_database_that_moved_without_its_newest_transactions_is_noticed() {
    let (bench, fake) = (Bench::new(), Fake::new());
    let summary = fake.run(&bench, || {
        fake.progress(0);
        let early = fake.chains(0);
        fake.progress(0);
        fake.fence(0, true);
        fake.appear_in_the_east(early);
        let patience = std::time::Instant::now() + PATIENCE;
        while !std::fs::read_to_string(bench.path("app.hist")).expect("the history").contains("\nL 0 ") {
            assert!(std::time::Instant::now() < patience, "nothing was noticed");
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!((summary.losses_noticed, summary.moves.len()), (1, 0), "{summary:?}");
}
