//! A VFS that shows this process a fenced database as an ordinary one, so that the fence can be taken out again by an
//! ordinary transaction, whoever else has the database open.
//!
//! It is SQLite's own VFS with one method exchanged: a read of page 1, from the file or from the WAL, shows a write
//! version of 3 as the read version beside it. Nothing but [`super::fence::lift`] opens a database through it.

// Needed to wrap the C structures by which SQLite knows a VFS and its open files.
#![allow(unsafe_code)]

use super::wal::restore;
use crate::{Error, Result, sqlite::header};
use rusqlite::ffi;
use std::{
    collections::HashMap,
    ffi::{CStr, c_int, c_void},
    sync::{Mutex, OnceLock, PoisonError},
};

/// The name under which SQLite knows it.
pub const NAME: &CStr = c"causeway-unfence";

type Read = unsafe extern "C" fn(*mut ffi::sqlite3_file, *mut c_void, c_int, i64) -> c_int;

/// A method table with the read exchanged; `methods` is first, so that the pointer SQLite keeps is one to all of it.
#[repr(C)]
struct Shown {
    methods: ffi::sqlite3_io_methods,
    read: Read,
}

/// Registers it, once in a process.
pub fn register() -> Result<()> {
    static DONE: OnceLock<std::result::Result<(), i32>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        // SAFETY: the default VFS lives for ever; the copy is leaked, so it does too. Its methods get the copy's
        // address and find in it what they find in the original, all but the name.
        unsafe {
            let base = ffi::sqlite3_vfs_find(std::ptr::null());
            if base.is_null() || (*base).xOpen.is_none() {
                return Err(ffi::SQLITE_NOTFOUND);
            }
            let mut vfs = std::ptr::read(base);
            vfs.zName = NAME.as_ptr();
            vfs.pNext = std::ptr::null_mut();
            vfs.xOpen = Some(open);
            match ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 0) {
                ffi::SQLITE_OK => Ok(()),
                code => Err(code),
            }
        }
    });
    done.map_err(|code| Error::Internal(format!("SQLite does not register a VFS: code {code}")))
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this as it would call the default VFS's own; `file` has room for its structure, because the
    // copy kept szOsFile.
    unsafe {
        let base = ffi::sqlite3_vfs_find(std::ptr::null());
        let Some(base_open) = base.as_ref().and_then(|base| base.xOpen) else { return ffi::SQLITE_CANTOPEN };
        let code = base_open(vfs, name, file, flags, out_flags);
        let shown = flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL) != 0;
        if code == ffi::SQLITE_OK && shown && !(*file).pMethods.is_null() {
            match exchanged((*file).pMethods) {
                Some(methods) => (*file).pMethods = methods,
                None => return ffi::SQLITE_CANTOPEN,
            }
        }
        code
    }
}

/// The table with the read exchanged; each original is wrapped once and for ever, there are two or three of them.
unsafe fn exchanged(original: *const ffi::sqlite3_io_methods) -> Option<*const ffi::sqlite3_io_methods> {
    static TABLES: OnceLock<Mutex<HashMap<usize, usize>>> = OnceLock::new();
    let mut tables = TABLES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(table) = tables.get(&(original as usize)) {
        return Some(*table as *const ffi::sqlite3_io_methods);
    }
    // SAFETY: `original` is the table of a file that was just opened, and such tables are static.
    unsafe {
        let mut methods = std::ptr::read(original);
        let read = methods.xRead?;
        methods.xRead = Some(show);
        // Version 3 adds memory-mapped reads, which would go past xRead.
        methods.iVersion = methods.iVersion.min(2);
        let table: *const Shown = Box::into_raw(Box::new(Shown { methods, read }));
        tables.insert(original as usize, table as usize);
        Some(table.cast())
    }
}

unsafe extern "C" fn show(file: *mut ffi::sqlite3_file, into: *mut c_void, len: c_int, offset: i64) -> c_int {
    // SAFETY: only files whose table is a `Shown` get here; SQLite gives `len` writable bytes.
    unsafe {
        let table = (*file).pMethods.cast::<Shown>();
        let code = ((*table).read)(file, into, len, offset);
        if code == ffi::SQLITE_OK
            && let Ok(len) = usize::try_from(len)
            && len >= header::LEN
        {
            let bytes = std::slice::from_raw_parts_mut(into.cast::<u8>(), len);
            if bytes.starts_with(header::MAGIC) {
                restore(bytes);
            }
        }
        code
    }
}
