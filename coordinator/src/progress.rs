//! How far an operation is, as told by its two agents.

use serde::{Deserialize, Serialize};

/// The figures of an operation, all of the present generation of its seed. They are shown and stored, nothing is decided
/// by them but readiness.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Bytes of seed durable at the destination.
    pub seed_bytes_done: u64,
    /// Bytes of seed in all, an estimate until the seed is done.
    pub seed_bytes_total: u64,
    /// Parts of files or tables durable at the destination.
    pub seed_objects_done: u32,
    /// Parts in all.
    pub seed_objects_total: u32,
    /// Rows durable at the destination; 0 where the engine knows no rows.
    pub rows_done: u64,
    /// Bytes a second over the last few seconds, of the seed, and then of the log.
    pub bytes_per_second: u64,
    /// Seconds until the seed is done, if that can be told.
    pub eta_seconds: Option<u64>,
    /// Bytes of log applied.
    pub log_bytes_applied: u64,
    /// Transactions applied.
    pub transactions_applied: u64,
    /// Bytes of log that the destination has not received.
    pub lag_bytes: u64,
    /// Age of the oldest such log, in milliseconds.
    pub lag_ms: u64,
    /// Bytes of log retained at the source.
    pub retained_bytes: u64,
    /// The cap of that.
    pub retained_budget_bytes: u64,
    /// Times a lane was dialled again.
    pub reconnects: u32,
    /// Bytes of seed sent by the present source agent.
    pub seed_bytes_sent: u64,
    /// What is being seeded; may be empty.
    pub object: String,
    /// 1, and more each time the seed had to be verified again.
    pub generation: u64,
    /// When both agents were last asked, in milliseconds since 1970; nothing if never.
    pub observed_ms: Option<i64>,
}

impl Progress {
    /// The same with what the source alone knows of its log, when the destination cannot be asked.
    pub fn with_log_of(self, source: &Progress) -> Progress {
        Progress {
            lag_bytes: source.lag_bytes,
            lag_ms: source.lag_ms,
            retained_bytes: source.retained_bytes,
            retained_budget_bytes: source.retained_budget_bytes,
            reconnects: source.reconnects,
            ..self
        }
    }

    /// One view of what the two agents know: the destination's word counts for what is durable there, the source's for
    /// all that is still on its side.
    pub fn merged(source: &Progress, dest: &Progress) -> Progress {
        let first = |a: u64, b: u64| if a > 0 { a } else { b };
        let first_small = |a: u32, b: u32| if a > 0 { a } else { b };
        Progress {
            seed_bytes_done: first(dest.seed_bytes_done, source.seed_bytes_done),
            seed_bytes_total: first(source.seed_bytes_total, dest.seed_bytes_total),
            seed_objects_done: first_small(dest.seed_objects_done, source.seed_objects_done),
            seed_objects_total: first_small(source.seed_objects_total, dest.seed_objects_total),
            rows_done: first(dest.rows_done, source.rows_done),
            bytes_per_second: 0,
            eta_seconds: None,
            log_bytes_applied: first(dest.log_bytes_applied, source.log_bytes_applied),
            transactions_applied: first(dest.transactions_applied, source.transactions_applied),
            lag_bytes: source.lag_bytes,
            lag_ms: source.lag_ms,
            retained_bytes: source.retained_bytes,
            retained_budget_bytes: source.retained_budget_bytes,
            reconnects: source.reconnects,
            seed_bytes_sent: source.seed_bytes_sent,
            object: if source.object.is_empty() { dest.object.clone() } else { source.object.clone() },
            generation: source.generation.max(dest.generation),
            observed_ms: None,
        }
    }
}
