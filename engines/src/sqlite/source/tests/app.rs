//! The application of a test: this very test binary, run again as another process.

use rusqlite::Connection;
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

/// A running application process.
pub struct App {
    child: Child,
    reader: Option<std::thread::JoinHandle<()>>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl App {
    /// Starts one. `script` is words: see [`work`].
    pub fn start(path: &Path, who: u32, script: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "sqlite::source::tests::app::an_application", "--ignored", "--nocapture"])
            .env("CAUSEWAY_TEST_APP", path)
            .env("CAUSEWAY_TEST_WHO", who.to_string())
            .env("CAUSEWAY_TEST_SCRIPT", script)
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawned");
        let out = child.stdout.take().expect("piped");
        let lines = Arc::new(Mutex::new(vec![]));
        let kept = lines.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                kept.lock().expect("not poisoned").push(line);
            }
        });
        Self { child, reader: Some(reader), lines }
    }

    /// The ids of transactions that it was told are committed.
    pub fn acknowledged(&self) -> Vec<i64> {
        let lines = self.lines.lock().expect("not poisoned");
        lines.iter().filter_map(|l| l.strip_prefix("ack ")?.parse().ok()).collect()
    }

    /// Waits for a line.
    pub fn wait_for(&self, wanted: &str) {
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while !self.lines.lock().expect("not poisoned").iter().any(|l| l == wanted) {
            assert!(std::time::Instant::now() < until, "no {wanted:?} in {:?}", self.lines.lock().map(|l| l.len()));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until so many transactions are committed.
    pub fn wait_acknowledged(&self, count: usize) {
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while self.acknowledged().len() < count {
            assert!(std::time::Instant::now() < until, "only {} transactions", self.acknowledged().len());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it as a power switch would end a process, and answers what was acknowledged.
    pub fn kill(mut self) -> Vec<i64> {
        self.child.kill().expect("killed");
        self.finish()
    }

    /// Waits for its own end.
    pub fn join(mut self) -> Vec<i64> {
        self.finish()
    }

    fn finish(&mut self) -> Vec<i64> {
        self.child.wait().expect("ended");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("read");
        }
        self.acknowledged()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: the application's process.
#[test]
#[ignore = "run by other tests, as another process"]
fn an_application() {
    let Ok(path) = std::env::var("CAUSEWAY_TEST_APP") else { return };
    let who: i64 = std::env::var("CAUSEWAY_TEST_WHO").expect("set").parse().expect("a number");
    let script = std::env::var("CAUSEWAY_TEST_SCRIPT").expect("set");
    work(Path::new(&path), who, &script);
    std::process::exit(0);
}

fn open(path: &Path, setup: &str) -> Connection {
    let db = Connection::open(path).expect("open");
    db.busy_timeout(Duration::from_secs(10)).expect("timeout");
    db.execute_batch(setup).expect("set up");
    db
}

/// Words: `write` forever until it is refused; with `reopen=N`, `truncate=N`, `restart=N`, `full=N`, `passive=N`,
/// `vacuum=N`, `rollback=N`, `spill=N` every N transactions, `pause=US` between them, `rows=N` in each, and `sql:` with
/// underscores for blanks, run first. Or `hold` a write transaction, `read` an old snapshot, `sql` only, each until killed.
fn work(path: &Path, who: i64, script: &str) {
    let words: Vec<&str> = script.split(' ').collect();
    let number = |key: &str| words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('=')?.parse::<i64>().ok());
    let setup: String =
        words.iter().filter_map(|w| w.strip_prefix("sql:")).map(|s| s.replace('+', " ") + ";").collect();
    let mut db = open(path, &setup);
    let say = |line: &str| {
        println!("{line}");
        std::io::stdout().flush().expect("written");
    };
    if words.contains(&"hold") || words.contains(&"read") {
        let begin = if words.contains(&"hold") {
            "BEGIN IMMEDIATE; INSERT INTO ledger(who, body) VALUES(-1, x'00')"
        } else {
            "BEGIN; SELECT count(*) FROM ledger"
        };
        db.execute_batch(begin).expect("begun");
        say("\nready");
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    say("\nready");
    let mut random = 88172645463325252u64.wrapping_mul(who as u64 * 2 + 1);
    for n in 1i64.. {
        let due = |key: &str| number(key).is_some_and(|every| n % every == 0);
        let pragma = |word: &str| format!("PRAGMA wal_checkpoint({word})");
        let mut other = None;
        if due("reopen") {
            db.close().expect("closed");
            db = open(path, &setup);
        }
        for word in ["truncate", "restart", "full", "passive"] {
            if due(word) {
                other = Some(pragma(word));
            }
        }
        if due("vacuum") {
            other = Some("DELETE FROM junk WHERE id % 3 <> 0; VACUUM".to_owned());
        }
        if let Some(sql) = other
            && let Err(e) = db.execute_batch(&sql)
            && is_readonly(&e)
        {
            break;
        }
        match transaction(&db, who, n, &mut random, number("rows").unwrap_or(3), due("rollback"), due("spill")) {
            Ok(Some(id)) => say(&format!("ack {id}")),
            Ok(None) => {}
            Err(e) if is_readonly(&e) => break,
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {}
            Err(e) => panic!("{e}"),
        }
        if let Some(pause) = number("pause") {
            std::thread::sleep(Duration::from_micros(pause as u64));
        }
    }
    say("fenced");
}

fn is_readonly(e: &rusqlite::Error) -> bool {
    e.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly)
}

fn transaction(
    db: &Connection,
    who: i64,
    n: i64,
    random: &mut u64,
    rows: i64,
    rollback: bool,
    spill: bool,
) -> rusqlite::Result<Option<i64>> {
    if spill {
        db.execute_batch("PRAGMA cache_size=5; PRAGMA cache_spill=1")?;
    }
    let done = (|| {
        db.execute_batch("BEGIN IMMEDIATE")?;
        db.execute("INSERT INTO ledger(who, body) VALUES(?1, ?2)", (who, n.to_le_bytes()))?;
        let id = db.last_insert_rowid();
        for _ in 0..if spill { rows * 100 } else { rows } {
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            let body = vec![*random as u8; (*random % 900) as usize];
            db.execute("INSERT OR REPLACE INTO junk(id, body) VALUES(?1, ?2)", ((*random % 2000) as i64, body))?;
        }
        if rollback {
            db.execute_batch("ROLLBACK")?;
            return Ok(None);
        }
        db.execute_batch("COMMIT")?;
        Ok(Some(id))
    })();
    if done.is_err() && !db.is_autocommit() {
        let _ = db.execute_batch("ROLLBACK");
    }
    done
}
