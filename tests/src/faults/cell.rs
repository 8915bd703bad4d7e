//! One cell: a cluster, an operation, a process that waits at a point, and a party that is hurt just then.

use super::{
    Engine, Fault, Point, Victim, What,
    user::{self, FENCE_DELAY, Seen, Wish},
};
use crate::{
    application::{Application, Plan},
    builder::{self, Builder},
    cluster::Cluster,
    content,
    place::Place,
};
use service::failpoint::VARIABLE;
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long an operation may take beside the time for which somebody is stopped: far above what it takes.
const PATIENCE: Duration = Duration::from_secs(240);

/// The cluster of a cell.
pub struct Stage {
    /// Its engine.
    pub engine: Engine,
    /// How long a stop lasts.
    pub stop: Duration,
    /// The processes, servers and links.
    pub cluster: Cluster,
    points: TempDir,
}

/// Why a cell is not green.
#[derive(Debug)]
pub enum Red {
    /// The operation never came to the point, so nothing was tested.
    NotReached(String),
    /// Something is wrong.
    Wrong(String),
}

impl Stage {
    /// Builds a cluster whose processes wait at these points, `process.step.side[=MS]`.
    pub fn build(
        engine: Engine,
        stop: Duration,
        points: &[String],
        particular: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let dir = tempfile::Builder::new().prefix("causeway-faults-").tempdir().expect("make a directory");
        // A third of the stop: who is stopped is away for longer than anybody waits.
        let third = (stop.as_secs() / 3).max(2);
        let mut builder = Cluster::builder()
            .links()
            .flag("source", format!("--fence-timeout={third}"))
            .flag("source", "--takeover-after=3")
            .flag("dest", "--takeover-after=3")
            // Beside other cells on a busy machine a second of lag says nothing.
            .flag("coordinator", "--ready-lag-ms=10000")
            .flag("coordinator", "--behind-lag-ms=60000");
        if engine == Engine::Postgres {
            builder = builder.engine(builder::POSTGRES);
        }
        for process in ["coordinator", "source", "dest"] {
            let its = |point: &&String| point.split('.').next() == Some(process);
            let armed: Vec<&str> = points.iter().filter(its).map(String::as_str).collect();
            if !armed.is_empty() {
                builder = builder.env(process, VARIABLE, format!("{}:{}", dir.path().display(), armed.join(",")));
            }
        }
        let cluster = particular(builder).start();
        let stage = Self { engine, stop, cluster, points: dir };
        match engine {
            Engine::Sqlite => content::filled(&stage.west().database(stage.database()), 1),
            Engine::Postgres => {
                stage.cluster.postgres("west").create(stage.database());
                let place = stage.cluster.database("west", stage.database());
                let filled = ledger::postgres::fill(&place.to_string_lossy(), 1);
                filled.unwrap_or_else(|error| panic!("fill the database: {error:?}"));
            }
        }
        stage
    }

    /// The database that is moved or copied.
    pub fn database(&self) -> &'static str {
        match self.engine {
            Engine::Sqlite => "shop.db",
            Engine::Postgres => "shop",
        }
    }

    /// The directory of a SQLite instance.
    pub fn west(&self) -> Place {
        self.cluster.west()
    }

    /// The application, with writers of these numbers.
    pub fn writers(&self, first: u32) -> Plan {
        // A few: what counts is that there are some at every moment.
        let plan = self.cluster.application(self.database());
        plan.with(|o| (o.processes, o.rate, o.first_writer, o.no_setup) = (false, 80.0, first, true))
    }

    /// The application as it begins.
    pub fn application(&self, what: What) -> Application {
        let plan = self.writers(0);
        // Of a copy and of an operation that is cancelled the application does not follow.
        if matches!(what, What::Copy | What::Cancel) { plan.staying().start() } else { plan.start() }
    }

    /// Waits until a process waits at a point; false if `over` says that it never will.
    pub fn until_reached(&self, point: &str, patience: Duration, over: impl Fn() -> bool) -> bool {
        let (reached, began) = (self.file(point, "reached"), Instant::now());
        while !reached.exists() {
            if over() || began.elapsed() > patience {
                return reached.exists();
            }
            thread::sleep(Duration::from_millis(3));
        }
        true
    }

    /// Lets a process that waits at a point go on.
    pub fn go(&self, point: &str) {
        fs::write(self.file(point, "go"), "").expect("write a file");
    }

    fn file(&self, point: &str, what: &str) -> PathBuf {
        self.points.path().join(format!("{point}.{what}"))
    }
}

/// Runs a cell that hurts somebody.
pub fn hurt(engine: Engine, point: Point, victim: Victim, fault: Fault, stop: Duration, keep: &str) -> Result<(), Red> {
    let mut armed = vec![point.name.to_owned()];
    if point.what == What::Retry {
        armed.push(format!("source.fenced.before={}", FENCE_DELAY.as_millis()));
    }
    let particular = |builder: Builder| match point.name {
        // Something always lags while clients write, so that it is not ready at once.
        "coordinator.catching-up.before" | "coordinator.catching-up.after" => {
            builder.flag("coordinator", "--ready-lag-bytes=0")
        }
        _ => builder,
    };
    let stage = caught(|| Stage::build(engine, stop, &armed, particular)).map_err(Red::Wrong)?;
    let result = play(&stage, point, victim, fault);
    stage.end(result, keep)
}

fn play(stage: &Stage, point: Point, victim: Victim, fault: Fault) -> Result<(), Red> {
    let mut application = Some(caught(|| stage.application(point.what)).map_err(Red::Wrong)?);
    let wish = Wish {
        what: point.what,
        database: stage.database(),
        // Less than a stop, so that an attempt is given up for it.
        max_freeze: (stage.stop * 2 / 3).max(Duration::from_secs(5)),
        deadline: Instant::now() + PATIENCE + stage.stop,
    };
    let seen: Seen = thread::scope(|scope| {
        let user = scope.spawn(|| caught(|| user::drive(&stage.cluster, &wish)).and_then(|seen| seen));
        let reached = stage.until_reached(point.name, PATIENCE / 2, || user.is_finished());
        let struck = match reached {
            true => {
                let go = || stage.go(point.name);
                caught(|| stage.strike(victim, fault, &mut application, go)).map_err(Red::Wrong)
            }
            false => Err(Red::NotReached(format!("nobody came to {}", point.name))),
        };
        // Whoever waits goes on, so that the user sees an end.
        stage.go(point.name);
        let seen = user.join().unwrap_or_else(|_| Err("the user's thread panicked".to_owned())).map_err(Red::Wrong);
        struck.and(seen)
    })?;
    let application = application.ok_or_else(|| Red::Wrong("the application is gone".to_owned()))?;
    caught(|| stage.judge(point.what, &seen, application)).map_err(Red::Wrong)
}

impl Stage {
    /// Clears away. What the processes said is kept if something is wrong.
    pub fn end(self, result: Result<(), Red>, keep: &str) -> Result<(), Red> {
        match &result {
            Ok(()) => drop(self),
            Err(_) => {
                let to = PathBuf::from(keep);
                let kept = fs::create_dir_all(&to).and_then(|()| copy_files(&self.cluster.dir().join("logs"), &to));
                if let Err(error) = kept {
                    eprintln!("keep the logs in {keep}: {error}");
                }
                if self.engine == Engine::Postgres {
                    for instance in ["west", "east"] {
                        let tail = self.cluster.server(instance).log_tail(400);
                        let _ = fs::write(to.join(format!("{instance}-server.log")), tail);
                    }
                }
                self.cluster.abandon();
            }
        }
        result
    }
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// What is said by a panic, as an error.
pub fn caught<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
    })
}
