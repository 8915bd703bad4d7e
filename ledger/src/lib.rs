//! An ordinary application that keeps a ledger of what was acknowledged to it, and the checker that holds a database
//! against that ledger: none lost, none invented, none reordered, none half-applied.
//!
//! Nothing here knows of Causeway: the writer is what a user's application is, a process with a plain connection.
//! Everything about one database engine is behind [`driver`]; [`sqlite`] and [`postgres`] are there.

pub mod check;
pub mod command;
pub mod driver;
pub mod history;
pub mod options;
pub mod postgres;
pub mod process;
pub mod sqlite;
pub mod summary;
pub mod tail;
pub mod transaction;
pub mod write;

mod random;
mod reader;
mod writer;

pub use check::{CheckOptions, Report, check};
pub use history::History;
pub use options::WriteOptions;
pub use process::{Process, Program};
pub use sqlite::fill::{FillOptions, fill};
pub use summary::Summary;
pub use write::write;
