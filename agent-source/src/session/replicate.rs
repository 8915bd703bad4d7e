//! The task of an operation: connect, plan, send the seed, send the log; again after every interruption.

use super::{
    Error, Halt, Session,
    lane::{self, Frames, Lane, send},
    window::Window,
};
use engines::source::Backlog;
use handover::source_role::Phase;
use proto::v1::{self, dest_frame, source_frame};
use service::Backoff;
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

/// How often the lag is measured.
const MEASURE: Duration = Duration::from_millis(100);

/// Waits between connections: the first retry is quick, because a restarted agent is back within a second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_millis(500);

/// A connection that held this long was a good one, though nothing happened on it.
const STEADY: Duration = Duration::from_secs(5);

/// Why a connection ended without an error.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The destination is primary or discarded: nothing is to be sent until a command comes.
    Decided,
    /// The destination is prepared; a command decides what follows.
    Woken,
}

impl Session {
    /// Replicates until the session is stopped.
    pub(super) async fn replicate(self: Arc<Self>) {
        self.settle_doubt_of_restart().await;
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        let mut halt = self.halt.subscribe();
        loop {
            let phase = self.role().await.phase;
            if matches!(phase, Phase::Releasing { .. } | Phase::Released { .. } | Phase::CleaningUp { .. }) {
                return;
            }
            halt.mark_unchanged();
            let (began, advances) = (self.shared.env.monotonic(), self.meter.advances());
            let outcome = self.connection().await;
            let lasted = self.shared.env.monotonic().saturating_sub(began);
            if lasted >= STEADY || self.meter.advances() != advances {
                backoff.reset();
            }
            self.meter.disconnected();
            self.sender.send_replace(super::Sender::default());
            self.lane.lock().expect("no code panics while it holds this lock").take();
            match outcome {
                Ok(End::Woken) => {}
                Ok(End::Decided) => {
                    // The coordinator will say Release, Unfence or Cleanup. Look again now and then all the same.
                    let _ = self.shared.env.timeout(RETRY_MOST, halt.changed()).await;
                }
                Err(error) => {
                    // What ended the stream matters more than a destination that is away.
                    let error = self.health().await.err().map_or(error, Error::Engine);
                    let why = service::status::chain(&error);
                    if let Error::Engine(engines::Error::PointLost(_)) = error {
                        self.forget_mark().await;
                    }
                    match error {
                        // The usual end: of the operation, or of the other agent.
                        Error::Closed => tracing::info!(operation = %self.operation, "{why}"),
                        // Once a series: the retries that follow would say the same.
                        _ if backoff.tries() == 0 => {
                            tracing::warn!(operation = %self.operation, error = why, "replicate")
                        }
                        _ => tracing::debug!(operation = %self.operation, error = why, "replicate"),
                    }
                    self.meter.trouble(&error);
                    self.measure_retained().await;
                    backoff.wait(&self.shared.env).await;
                }
            }
        }
    }

    /// What ended the stream, if something did.
    async fn health(&self) -> engines::Result<()> {
        let stream = self.stream.lock().await.clone();
        match stream {
            Some(stream) => stream.health().await,
            None => Ok(()),
        }
    }

    async fn connection(self: &Arc<Self>) -> Result<End, Error> {
        let stream = self.stream().await?;
        let mut lane = Lane::open(self, 0, 0).await?;
        match lane.welcome.phase.as_str() {
            "primary" | "discarding" | "discarded" => return Ok(End::Decided),
            "prepared" => {
                self.meter.connected();
                return self.await_command(&mut lane).await;
            }
            _ => {}
        }
        let held = lane::held(&lane.welcome)?;
        let plan = stream.plan(&held).await?;
        if held.generation != plan.generation {
            self.forget_mark().await;
        }
        tracing::info!(operation = %self.operation, generation = plan.generation, verify = plan.verify,
            held = held.generation, seeded = held.seeded, "connected to the destination");
        let parts = plan.parts.iter().map(|p| v1::Part { part: p.part, object: p.object.clone(), bytes: p.bytes });
        let wire = v1::Plan {
            generation: plan.generation,
            parts: parts.collect(),
            verify: plan.verify,
            log_start: plan.log_start.to_string(),
            log_resume: plan.log_resume.to_string(),
            header: plan.header.clone(),
        };
        send(&lane.tx, source_frame::Frame::Plan(wire)).await?;
        match lane::next(&mut lane.rx).await? {
            dest_frame::Frame::PlanTaken(taken) if taken.generation == plan.generation => {}
            _ => return Err(Error::Protocol("the plan was not answered by PlanTaken".to_owned())),
        }
        self.meter.planned(&plan, &held);
        self.meter.connected();
        *self.lane.lock().expect("no code panics while it holds this lock") = Some(lane.tx.clone());

        let window = Window::default();
        let seeded = held.seeded && held.generation == plan.generation;
        let seed = async {
            if !seeded {
                self.send_seed(&stream, &plan, &held).await?;
                stream.seed_done().await?;
                send(&lane.tx, source_frame::Frame::SeedEnd(v1::SeedEnd { generation: plan.generation })).await?;
            }
            std::future::pending::<Result<std::convert::Infallible, Error>>().await
        };
        let receive = self.receive(&mut lane.rx, &stream, &window);
        let log = self.send_log(&stream, &lane.tx, &window, plan.log_resume.clone());
        let measure = self.measure(&stream);
        // Whichever ends first ends the connection; what was under way is sent again after the next Welcome.
        let Err(error) = tokio::select! {
            ended = receive => ended,
            ended = seed => ended,
            ended = log => ended,
            ended = measure => ended,
        };
        Err(error)
    }

    /// Waits for the outcome of an attempt for which the destination is prepared.
    async fn await_command(&self, lane: &mut Lane) -> Result<End, Error> {
        let mut halt = self.halt.subscribe();
        tokio::select! {
            _ = halt.changed() => Ok(End::Woken),
            ended = lane::next(&mut lane.rx) => ended.map(|_| End::Woken),
        }
    }

    async fn receive(
        &self,
        rx: &mut Frames,
        stream: &Arc<dyn engines::source::SourceStream>,
        window: &Window,
    ) -> Result<std::convert::Infallible, Error> {
        loop {
            match lane::next(rx).await? {
                dest_frame::Frame::LogAck(ack) => {
                    if !ack.received.is_empty() {
                        let received = lane::position(&ack.received)?;
                        window.received(&received);
                        self.meter.received(received, ack.transactions, ack.bytes);
                    }
                    if !ack.durable.is_empty() {
                        let durable = lane::position(&ack.durable)?;
                        stream.confirm(&durable).await?;
                        self.meter.log_durable(durable);
                    }
                }
                dest_frame::Frame::Seeded(_) => {
                    tracing::info!(operation = %self.operation, "the destination is seeded");
                    self.meter.seeded();
                }
                dest_frame::Frame::MarkerTaken(taken) => {
                    tracing::info!(operation = %self.operation, attempt = taken.attempt, skipped = taken.skipped, "marker taken");
                }
                dest_frame::Frame::Settled(_) => self.settled.send_modify(|n| *n += 1),
                dest_frame::Frame::Welcome(_)
                | dest_frame::Frame::PlanTaken(_)
                | dest_frame::Frame::SeedAck(_)
                | dest_frame::Frame::Digest(_) => {
                    return Err(Error::Protocol("a frame that does not belong on the log lane".to_owned()));
                }
            }
        }
    }

    async fn measure(
        &self,
        stream: &Arc<dyn engines::source::SourceStream>,
    ) -> Result<std::convert::Infallible, Error> {
        let mut interval = self.shared.env.interval(MEASURE);
        loop {
            interval.tick().await;
            if let Some(received) = self.meter.received_position() {
                self.note_backlog(stream.backlog(&received).await?);
            }
        }
    }

    /// While the destination is away the log it lacks grows: that is when its figures matter most.
    async fn measure_retained(&self) {
        let (stream, received) = (self.stream.lock().await.clone(), self.meter.received_position());
        if let (Some(stream), Some(received)) = (stream, received)
            && let Ok(backlog) = stream.backlog(&received).await
        {
            self.note_backlog(backlog);
        }
    }

    fn note_backlog(&self, backlog: Backlog) {
        let before = self.meter.progress().near_cap();
        self.meter.backlog(backlog);
        if !before && self.meter.progress().near_cap() {
            tracing::warn!(operation = %self.operation, retained_bytes = backlog.retained_bytes,
                budget_bytes = backlog.budget_bytes, "the retained log comes near its cap, at which the operation ends");
        }
    }

    /// Asks both sides to sync what a fence would have to sync; best effort within the time given.
    pub(super) async fn settle(&self, within: Duration) -> Result<(), Error> {
        let stream = self.stream().await?;
        stream.settle().await?;
        let tx: Option<mpsc::Sender<v1::SourceFrame>> =
            self.lane.lock().expect("no code panics while it holds this lock").clone();
        let Some(tx) = tx else { return Ok(()) };
        let mut settled: watch::Receiver<u64> = self.settled.subscribe();
        settled.mark_unchanged();
        let both = async {
            if send(&tx, source_frame::Frame::Settle(v1::Settle {})).await.is_ok() {
                let _ = settled.changed().await;
            }
        };
        let _ = self.shared.env.timeout(within, both).await;
        Ok(())
    }

    /// Wakes whoever waits for a halt to change.
    pub(super) fn set_halt(&self, halt: Halt) {
        self.halt.send_replace(halt);
    }
}
