//! The destination half on its own.
