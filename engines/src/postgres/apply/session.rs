//! A worker's session: scripts in, answers out, and what it means when they are not as expected.

use super::script::{Expected, Prepared, Script};
use crate::{
    Error, Result,
    postgres::{
        config::PostgresConfig,
        position::Point,
        wire::{Channel, ServerError, Wire, command_count},
    },
};
use handover::Epoch;

const WHAT: &str = "apply the log";

/// Plans as the recipe found them best: a few thousand keys meet an index, whatever the statistics say, and triggers and foreign
/// keys were obeyed at the source. The log is there again after a crash, so a commit need not wait for the disk.
const SETTINGS: &str = "SET session_replication_role = replica; SET synchronous_commit = off; SET jit = off; \
    SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; \
    SET enable_mergejoin = off; SET row_security = off; SET xmloption = content; SET client_min_messages = error";

const BEGIN: &str = "BEGIN";
const COMMIT: &str = "COMMIT";
const CHECKPOINT: &str = "UPDATE causeway.checkpoint SET lsn = $1, index = $2 WHERE worker = $3 AND epoch = $4";
const CHECKPOINT_ALL: &str = "UPDATE causeway.checkpoint SET lsn = $1, index = $2 WHERE $3 >= 0 AND epoch = $4";

/// A session that applies.
pub(super) struct Session {
    channel: Channel,
    pub(super) prepared: Prepared,
    epoch: Epoch,
}

/// What became of a script.
pub(super) enum Outcome {
    /// Everything was as expected.
    Done,
    /// Rows got into each other's way in the order in which they were applied; the transaction is rolled back.
    Conflict,
}

impl Session {
    pub(super) async fn connect(config: &PostgresConfig, database: &str, worker: usize, epoch: Epoch) -> Result<Self> {
        let mut wire = Wire::connect(config, database, &format!("dest apply {worker}"), false).await?;
        wire.query(WHAT, SETTINGS).await?;
        Ok(Self { channel: wire.into_channel(), prepared: Prepared::default(), epoch })
    }

    /// The beginning of a transaction that moves a worker's checkpoint, or everybody's. Whoever has taken over since has
    /// changed the epoch in that row, and then nothing is applied.
    pub(super) fn begin(&mut self, script: &mut Script, worker: Option<usize>, to: Point, rows: u64) {
        script.run(&mut self.prepared, BEGIN, &[], Expected::Done);
        self.checkpoint(script, worker, to, rows);
    }

    /// The checkpoint alone.
    pub(super) fn checkpoint(&mut self, script: &mut Script, worker: Option<usize>, to: Point, rows: u64) {
        let (lsn, index) = (to.lsn.0.to_be_bytes(), to.index.to_be_bytes());
        let (number, epoch) = (worker.unwrap_or(0) as i32, self.epoch.0 as i64);
        let sql = if worker.is_some() { CHECKPOINT } else { CHECKPOINT_ALL };
        let params: [(u32, &[u8]); 4] =
            [(3220, &lsn), (20, &index), (23, &number.to_be_bytes()), (20, &epoch.to_be_bytes())];
        script.run(&mut self.prepared, sql, &params, Expected::Checkpoint(rows));
    }

    /// The end of it.
    pub(super) fn commit(&mut self, script: &mut Script) {
        script.run(&mut self.prepared, COMMIT, &[], Expected::Commit);
    }

    /// Sends a script. The server works on it while the caller does something else, until [`Session::answers`].
    pub(super) async fn send(&mut self, script: &mut Script) -> Result<()> {
        script.sync();
        let mut rope = std::mem::take(&mut script.rope).finish();
        self.channel.write(WHAT, &mut rope).await
    }

    /// Reads what the server answers to the script that was sent last.
    pub(super) async fn answers(&mut self, expected: &[Expected]) -> Result<Outcome> {
        let (mut failed, mut unexpected): (Option<ServerError>, Option<Error>) = (None, None);
        let mut rest = expected.iter();
        loop {
            let frame = self.channel.frame(WHAT).await?;
            match frame.tag {
                b'C' => {
                    let answer = rest.next().map_or(Ok(()), |expected| check(expected, &frame.body));
                    unexpected = unexpected.or(answer.err());
                }
                b'E' => failed = Some(ServerError::read(&frame.body)),
                b'Z' => break,
                _ => {}
            }
        }
        match (failed, unexpected) {
            (None, None) => Ok(Outcome::Done),
            (Some(error), _) if matches!(error.code.as_str(), "23505" | "23P01") && !committing(expected, &rest) => {
                self.roll_back().await?;
                Ok(Outcome::Conflict)
            }
            (Some(error), _) => Err(error.into_error(WHAT)),
            (None, Some(Error::Superseded { .. })) => Err(self.superseded().await),
            (None, Some(error)) => Err(error),
        }
    }

    async fn roll_back(&mut self) -> Result<()> {
        self.prepared.clear();
        let mut script = Script::default();
        script.query("ROLLBACK");
        script.query("DEALLOCATE ALL");
        self.send(&mut script).await?;
        // One for each of the two, and one for the Sync.
        for _ in 0..3 {
            loop {
                let frame = self.channel.frame(WHAT).await?;
                match frame.tag {
                    b'E' => return Err(ServerError::read(&frame.body).into_error(WHAT)),
                    b'Z' => break,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Somebody else's epoch is in the checkpoint, or the checkpoint is gone.
    async fn superseded(&mut self) -> Error {
        let mut script = Script::default();
        script.query("ROLLBACK");
        script.query("SELECT coalesce(max(epoch), 0) FROM causeway.checkpoint");
        let mut newer = 0;
        if self.send(&mut script).await.is_ok() {
            let mut ready = 0;
            while ready < 3 {
                let Ok(frame) = self.channel.frame(WHAT).await else { break };
                match frame.tag {
                    b'D' => {
                        newer = std::str::from_utf8(frame.body.get(6..).unwrap_or_default())
                            .ok()
                            .and_then(|n| n.parse().ok())
                            .unwrap_or(0)
                    }
                    b'Z' => ready += 1,
                    _ => {}
                }
            }
        }
        match newer == self.epoch.0 {
            true => Error::Corrupt("a checkpoint of the apply is gone".to_owned()),
            false => Error::Superseded { ours: self.epoch.0, newer },
        }
    }
}

/// Whether the commit of the transaction before failed: the first thing in a script.
fn committing(expected: &[Expected], rest: &std::slice::Iter<'_, Expected>) -> bool {
    rest.len() == expected.len() && matches!(expected.first(), Some(Expected::Commit))
}

fn check(expected: &Expected, tag: &[u8]) -> Result<()> {
    match expected {
        Expected::Done => Ok(()),
        Expected::Commit if tag.starts_with(b"COMMIT") => Ok(()),
        Expected::Commit => Err(Error::Internal("a transaction of the apply did not commit".to_owned())),
        Expected::Checkpoint(rows) if command_count(tag) == *rows => Ok(()),
        // The caller finds out whose epoch it is.
        Expected::Checkpoint(_) => Err(Error::Superseded { ours: 0, newer: 0 }),
        Expected::Rows { table, verb, count } => match command_count(tag) {
            found if found == *count || found < *count && table.may_lack_rows() => Ok(()),
            found => Err(Error::Corrupt(format!(
                "the destination does not have the rows that the log changes: of {}.{} {found} rows were {verb}, not {count}",
                table.schema, table.name
            ))),
        },
    }
}
