//! Files that may change while the process runs: a good change is taken up, a bad one is told and the old state stays.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use service::Env;

/// Largest file: a policy for thousands of teams is far below, and nobody fills our memory by a wrong path.
const BYTES_MAX: u64 = 16 << 20;

type Read<T> = Box<dyn Fn(&[String]) -> Result<T, String> + Send + Sync>;

/// What was read from some files.
pub(super) struct Watched<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    read: Option<Read<T>>,
    state: RwLock<State<T>>,
}

struct State<T> {
    current: Arc<T>,
    /// How many changes were taken up.
    version: u64,
    /// Of the contents that were last read, good or bad.
    judged: u64,
    /// Of other contents seen at the last look: they are judged once they stay the same for two looks, because editors
    /// write files piece by piece, and half a policy file may be a good one that lacks its prohibitions.
    settling: Option<u64>,
}

/// A file is missing or wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("read the {what} file {path:?}: {reason}; check the path and its permissions")]
    Read {
        /// What it is for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Its content is wrong.
    #[error("the {what} in {paths} cannot be used: {reason}")]
    Content {
        /// What it is for.
        what: &'static str,
        /// Where.
        paths: String,
        /// What is wrong and what to do.
        reason: String,
    },
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Read the files.
    pub(super) async fn open(env: &Env, what: &'static str, paths: Vec<PathBuf>, read: Read<T>) -> Result<Self, Error> {
        let texts = texts(env, what, &paths).await?;
        let current = Arc::new(read(&texts).map_err(|reason| content(what, &paths, reason))?);
        let state = State { current, version: 0, judged: fingerprint(&texts), settling: None };
        Ok(Self { what, paths, read: Some(read), state: RwLock::new(state) })
    }

    /// What never changes.
    pub(super) fn fixed(what: &'static str, value: T) -> Self {
        let state = State { current: Arc::new(value), version: 0, judged: 0, settling: None };
        Self { what, paths: Vec::new(), read: None, state: RwLock::new(state) }
    }

    /// What was read last and is good.
    pub(super) fn current(&self) -> Arc<T> {
        self.state.read().expect("no holder of this lock panics").current.clone()
    }

    /// How many changes were taken up.
    pub(super) fn version(&self) -> u64 {
        self.state.read().expect("no holder of this lock panics").version
    }

    /// Whether there is a file at all.
    pub(super) fn is_a_file(&self) -> bool {
        self.read.is_some()
    }

    /// Look at the files again.
    pub(super) async fn look(&self, env: &Env) {
        let Some(read) = &self.read else { return };
        let found = texts(env, self.what, &self.paths).await;
        // A file that is gone is a change like any other: it is told once.
        let seen = found.as_ref().map_or(0, |texts| fingerprint(texts));
        {
            let mut state = self.state.write().expect("no holder of this lock panics");
            if seen == state.judged {
                state.settling = None;
                return;
            }
            if state.settling.replace(seen) != Some(seen) {
                return;
            }
            (state.judged, state.settling) = (seen, None);
        }
        let fresh = found.and_then(|texts| read(&texts).map_err(|reason| content(self.what, &self.paths, reason)));
        match fresh {
            Ok(fresh) => {
                let mut state = self.state.write().expect("no holder of this lock panics");
                state.current = Arc::new(fresh);
                state.version += 1;
                tracing::info!("took up the changed {}", self.what);
            }
            Err(error) => tracing::error!(%error, "keep the {} in use", self.what),
        }
    }
}

async fn texts(env: &Env, what: &'static str, paths: &[PathBuf]) -> Result<Vec<String>, Error> {
    let paths = paths.to_vec();
    env.blocking(move || {
        paths
            .iter()
            .map(|path| {
                let wrong = |reason: String| Error::Read { what, path: path.clone(), reason };
                let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
                if size > BYTES_MAX {
                    return Err(wrong(format!("it has {size} bytes, at most {BYTES_MAX} are read")));
                }
                std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))
            })
            .collect()
    })
    .await
}

fn fingerprint(texts: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    // 0 means that they cannot be read.
    hasher.finish().max(1)
}

fn content(what: &'static str, paths: &[PathBuf], reason: String) -> Error {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    Error::Content { what, paths: paths.join(" and "), reason }
}
