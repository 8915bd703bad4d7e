//! Where the programs under test are: beside the test executable, built once if need be.
//!
//! Cargo builds only a package's own programs for its tests. `make test` builds the whole workspace first and sets
//! `CAUSEWAY_TEST_BUILD=0`; without that, the first test of each test program runs `cargo build --workspace --bins`.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// The path of a program of this workspace, such as `causeway-coordinator`.
pub fn path(program: &str) -> PathBuf {
    let path = DIRECTORY.get_or_init(built).join(program);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace --bins`", path.display());
    path
}

/// Takes the programs as they lie there, whatever the environment says: for benches, which `make` builds for.
pub fn take_as_built() {
    DIRECTORY.get_or_init(directory);
}

/// The directory of the profile this program was built with, its programs up to date.
fn built() -> PathBuf {
    let directory = directory();
    if env::var("CAUSEWAY_TEST_BUILD").as_deref() != Ok("0") {
        // Test programs may run side by side: one of them builds, the others find it done.
        let lock = File::create(directory.join(".causeway-tests-build")).expect("create the lock of the build");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock the build");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(workspace());
        if directory.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.status().expect("run cargo");
        assert!(status.success(), "cargo build --workspace --bins: {status}");
    }
    directory
}

/// `target/<profile>`: where this program lies, or for a test one above.
fn directory() -> PathBuf {
    let here = env::current_exe().expect("know the running program");
    let beside = here.parent().expect("a program lies in a directory");
    let above = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
    above.to_owned()
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace")
}
