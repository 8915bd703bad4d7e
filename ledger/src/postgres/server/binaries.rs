//! Where PostgreSQL's programs are.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{ServerError, io};

/// The programs of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Those in a directory.
    pub fn at(dir: impl Into<PathBuf>) -> Result<Self, ServerError> {
        // They are run from the root directory.
        let dir = std::path::absolute(dir.into()).map_err(io("find the server programs"))?;
        let has = |name: &str| dir.join(name).is_file();
        if has("initdb") && has("postgres") { Ok(Self { dir }) } else { Err(ServerError::NoBinaries) }
    }

    /// Those in PATH, or else the newest of Debian's. With `major` only that version's.
    pub fn find(major: Option<u32>) -> Result<Self, ServerError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
        let mut debian: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .collect();
        debian.sort_unstable();
        dirs.extend(debian.into_iter().rev().map(|(_, dir)| dir));
        let mut found: Vec<Self> = dirs.into_iter().filter_map(|dir| Self::at(dir).ok()).collect();
        found.retain(|found| major.is_none_or(|major| found.major() == Some(major)));
        // A directory of servers alone, such as one of links to some, is second best.
        let whole = found.iter().position(|found| found.program("pg_dump").is_file()).unwrap_or(0);
        if found.is_empty() { Err(ServerError::NoBinaries) } else { Ok(found.swap_remove(whole)) }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The major version, as `postgres --version` says it.
    pub fn major(&self) -> Option<u32> {
        let output = std::process::Command::new(self.program("postgres")).arg("--version").output().ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        // "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"
        said.split_whitespace().nth(2)?.split('.').next()?.parse().ok()
    }
}
