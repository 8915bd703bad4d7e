//! Named points at which a process waits for somebody who wants to hurt it just there; for tests of faults, and off unless
//! `CAUSEWAY_FAILPOINTS` names some.
//!
//! A point is a step of the protocol and a side: `source.fence.before`, `source.fence.after`. A process that comes to an
//! armed point for the first time makes the file `DIR/POINT.reached` and waits until there is `DIR/POINT.go`, or for the
//! time given with the point. Later times, and processes started later, pass: a fault is one event.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::env::Env;

/// The variable: `DIR:POINT[=MS],POINT[=MS]...`.
pub const VARIABLE: &str = "CAUSEWAY_FAILPOINTS";

/// How often a waiting process looks for the file that lets it go.
const LOOK: Duration = Duration::from_millis(2);

/// The side of a step's durable write on which a point lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Nothing of the step is durable yet.
    Before,
    /// It is durable, and nobody was told.
    After,
}

/// Why failpoints cannot be armed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not in the form of the variable.
    #[error("{VARIABLE}={given:?} is not DIR:POINT[=MILLISECONDS],...; unset it unless this is a test")]
    Form {
        /// What was given.
        given: String,
    },
    /// No step of this process has the name.
    #[error(
        "{VARIABLE} names {point:?}, which is no point of this process; its steps are {steps}, each with .before and .after"
    )]
    Point {
        /// What was given.
        point: String,
        /// What there is.
        steps: String,
    },
}

/// The points of a process that are armed. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Failpoints {
    env: Env,
    dir: Arc<PathBuf>,
    armed: Arc<Vec<(String, Option<Duration>)>>,
}

impl Failpoints {
    /// What the environment arms among these steps; nothing, as ever outside of tests, if the variable is not set.
    pub fn from_environment(env: &Env, steps: &[&str]) -> Result<Option<Self>, Error> {
        match std::env::var(VARIABLE) {
            Ok(given) => Self::parse(env, &given, steps).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn parse(env: &Env, given: &str, steps: &[&str]) -> Result<Self, Error> {
        let form = || Error::Form { given: given.to_owned() };
        let (dir, points) = given.split_once(':').filter(|(dir, _)| !dir.is_empty()).ok_or_else(form)?;
        let mut armed = Vec::new();
        for point in points.split(',') {
            let (point, wait) = match point.split_once('=') {
                Some((point, ms)) => (point, Some(Duration::from_millis(ms.parse().map_err(|_| form())?))),
                None => (point, None),
            };
            let step = point.strip_suffix(".before").or_else(|| point.strip_suffix(".after"));
            if !step.is_some_and(|step| steps.contains(&step)) {
                return Err(Error::Point { point: point.to_owned(), steps: steps.join(", ") });
            }
            armed.push((point.to_owned(), wait));
        }
        tracing::warn!(points, "failpoints are armed: this process will wait at them; for tests only");
        Ok(Self { env: env.clone(), dir: Arc::new(dir.into()), armed: Arc::new(armed) })
    }

    /// The process comes to a point. Returns at once unless the point is armed and nobody was there before.
    pub async fn reach(&self, step: &str, side: Side) {
        let suffix = match side {
            Side::Before => ".before",
            Side::After => ".after",
        };
        let is_here = |point: &str| point.strip_suffix(suffix) == Some(step);
        let Some((point, wait)) = self.armed.iter().find(|(point, _)| is_here(point)) else { return };
        let (reached, go) = (self.file(point, "reached"), self.file(point, "go"));
        let first = self.env.blocking(move || is_first(&reached)).await;
        if !first {
            return;
        }
        tracing::warn!(point, "wait at a failpoint");
        if let Some(wait) = wait {
            return self.env.sleep(*wait).await;
        }
        while !self
            .env
            .blocking({
                let go = go.clone();
                move || go.exists()
            })
            .await
        {
            self.env.sleep(LOOK).await;
        }
    }

    fn file(&self, point: &str, what: &str) -> PathBuf {
        self.dir.join(format!("{point}.{what}"))
    }
}

fn is_first(reached: &Path) -> bool {
    match std::fs::File::create_new(reached) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => {
            tracing::error!(file = %reached.display(), %error, "note that a failpoint is reached");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [&str; 2] = ["source.fence", "source.fenced"];

    #[tokio::test]
    async fn a_process_waits_once_until_it_may_go() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let given = format!("{}:source.fence.after", dir.path().display());
        let points = Failpoints::parse(&Env::real(), &given, &STEPS).expect("a good value");
        // Neither the other side of the step nor the step whose name begins the same.
        points.reach("source.fence", Side::Before).await;
        points.reach("source.fenced", Side::After).await;
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0);

        let waiting = tokio::spawn({
            let points = points.clone();
            async move { points.reach("source.fence", Side::After).await }
        });
        while !dir.path().join("source.fence.after.reached").exists() {
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(LOOK * 10).await;
        assert!(!waiting.is_finished(), "nobody let it go");
        points.reach("source.fence", Side::After).await;
        std::fs::write(dir.path().join("source.fence.after.go"), "").expect("write a file");
        waiting.await.expect("it goes on");
    }

    #[test]
    fn what_is_no_point_is_refused() {
        let error = |given: &str| Failpoints::parse(&Env::real(), given, &STEPS).unwrap_err().to_string();
        assert!(error("/tmp").contains("is not DIR:POINT"), "{}", error("/tmp"));
        assert!(error("/tmp:source.fence.after=x").contains("is not DIR:POINT"));
        for wrong in ["source.fence", "source.fnece.after", "", "source.fence.after,dest.prepare.before"] {
            let error = error(&format!("/tmp:{wrong}"));
            assert!(
                error.contains("is no point of this process; its steps are source.fence, source.fenced"),
                "{error}"
            );
        }
    }
}
