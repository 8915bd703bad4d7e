//! Where a store lies: a file on a disk, or what a simulation has for one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use redb::{DatabaseError, StorageBackend, StorageError, backends::FileBackend};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// A place for one store.
pub trait Medium: Send + Sync + 'static {
    /// What redb writes to.
    type File: StorageBackend;

    /// The store, or nothing if there is none yet.
    fn open(&self) -> Result<Option<Self::File>, DatabaseError>;

    /// A new, empty one beside its place. What an earlier try left there goes.
    fn make(&self) -> Result<Self::File, DatabaseError>;

    /// The new one takes its place, durably; fails if there is one by now.
    fn put_in_place(&self) -> io::Result<()>;
}

/// A file on a disk.
pub(super) struct OnDisk {
    path: PathBuf,
    new: PathBuf,
}

impl OnDisk {
    pub(super) fn new(path: &Path) -> Self {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        Self { path: path.to_owned(), new: new.into() }
    }

    fn directory(&self) -> &Path {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}

impl Medium for OnDisk {
    type File = FileBackend;

    fn open(&self) -> Result<Option<FileBackend>, DatabaseError> {
        match OpenOptions::new().read(true).write(true).open(&self.path) {
            Ok(file) => FileBackend::new(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn make(&self) -> Result<FileBackend, DatabaseError> {
        fs::create_dir_all(self.directory()).map_err(failed)?;
        // It holds the operations' tokens: for this user's eyes only. Not truncated before it is locked: another process may
        // be making it at this moment.
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.new);
        let file = file.map_err(failed)?;
        let handle = file.try_clone().map_err(failed)?;
        let backend = FileBackend::new(file)?;
        handle.set_len(0).map_err(failed)?;
        Ok(backend)
    }

    fn put_in_place(&self) -> io::Result<()> {
        renameat_with(CWD, &self.new, CWD, &self.path, RenameFlags::NOREPLACE)?;
        // A file's name is durable only once its directory is.
        File::open(self.directory())?.sync_all()
    }
}

fn failed(error: io::Error) -> DatabaseError {
    DatabaseError::Storage(StorageError::Io(error))
}
