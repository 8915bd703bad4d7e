//! Those who use the service: applications that write all the time, and people who move and copy databases, change their
//! minds, and look at how it goes.

use crate::{
    check, hosts,
    trace::now,
    world::{COORDINATOR, Subject, World},
};
use handover::Kind;
use proto::v1::{self, State, coordinator_client::CoordinatorClient};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use service::status::{describe, reason_of};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Cleans up after a coordinator that lost its store: what was on its way to an agent then may have come later, and nobody
/// knows of it.
pub async fn clean_up(world: Arc<World>) {
    let channel = hosts::dialer(&world).channel(&hosts::address(COORDINATOR)).expect("a good address");
    let client = CoordinatorClient::new(channel);
    let user = User { world: &world, subject: &world.subjects[0], kind: Kind::Move, number: 0, round: 0 };
    while !(world.west.is_clean() && world.east.is_clean()) {
        user.adopt(&client).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an operation may be the same without saying for whom it waits.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// How long the start of an operation may be refused once nothing goes wrong any more.
const START_MAX: Duration = Duration::from_secs(90);

macro_rules! ask {
    ($call:expr) => {
        tokio::time::timeout(PATIENCE, $call).await.map_or_else(|_| Err(None), |answer| answer.map_err(Some))
    };
}

/// Everybody who uses one database, until they are through with it.
pub async fn use_database(world: Arc<World>, number: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let writer = tokio::spawn(write(world.clone(), number, rng.random()));
    let subject = &world.subjects[number];
    let mut round = 0;
    loop {
        round += 1;
        let kind = if rng.random_bool(0.7) { Kind::Move } else { Kind::Copy };
        // With the store, an operation may be forgotten that goes on all the same.
        let completed_at = subject.standing().completed_at.filter(|_| world.lost_a_store());
        *subject.standing() = crate::world::Standing { kind: Some(kind), completed_at, ..Default::default() };
        let user = User { world: &world, subject, kind, number, round };
        let Some(ended) = user.operate(&mut rng).await else { break };
        let kind = subject.standing().kind.unwrap_or(kind);
        check::ended(&world, subject, kind, ended);
        // What is moved is moved, and a copy's name is taken.
        if ended == State::Succeeded || world.calm() {
            break;
        }
        pause(&mut rng, 100..3000).await;
    }
    writer.abort();
    subject.standing().through = true;
}

async fn pause(rng: &mut StdRng, millis: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(millis))).await;
}

/// An application.
async fn write(world: Arc<World>, number: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let subject = &world.subjects[number];
    let most_ms = rng.random_range(5..80);
    loop {
        let follows = subject.standing().kind == Some(Kind::Move);
        subject.ledger.write(&world.west, &world.east, follows, &mut rng);
        pause(&mut rng, 0..most_ms).await;
    }
}

struct User<'a> {
    world: &'a World,
    subject: &'a Subject,
    kind: Kind,
    number: usize,
    round: usize,
}

type Client = CoordinatorClient<tonic::transport::Channel>;

impl User<'_> {
    /// Starts an operation and follows it to its end; nothing if it cannot even be started.
    async fn operate(&self, rng: &mut StdRng) -> Option<State> {
        let channel = hosts::dialer(self.world).channel(&hosts::address(COORDINATOR)).expect("a good address");
        let client = CoordinatorClient::new(channel);
        let id = self.start(&client, rng).await?;
        self.say(format_args!("{} started as {id}", self.kind));
        self.world.operations.fetch_add(1, Ordering::SeqCst);
        Some(self.follow(&client, &id, rng).await)
    }

    async fn start(&self, client: &Client, rng: &mut StdRng) -> Option<String> {
        let kind = match self.kind {
            Kind::Move => v1::Kind::Move,
            Kind::Copy => v1::Kind::Copy,
        };
        let request = v1::StartOperationRequest {
            kind: kind.into(),
            source: "west".to_owned(),
            destination: "east".to_owned(),
            databases: vec![self.subject.ledger.name.to_string()],
            request_id: format!("{}-{}", self.number, self.round),
            ..Default::default()
        };
        let mut calm_since = None;
        loop {
            let why = match ask!(client.clone().start_operation(request.clone())) {
                Ok(answer) => return answer.into_inner().operations.pop().map(|operation| operation.id),
                Err(Some(status)) => describe(&status),
                Err(None) => "no answer".to_owned(),
            };
            // An earlier try may have started it, at a coordinator that has forgotten it.
            if self.world.lost_a_store()
                && self.adopt(client).await
                && let Some(operation) = self.running(client).await
            {
                self.subject.standing().kind = Some(match operation.kind() {
                    v1::Kind::Copy => Kind::Copy,
                    _ => Kind::Move,
                });
                return Some(operation.id);
            }
            if self.world.calm() && now() - *calm_since.get_or_insert(now()) > START_MAX {
                self.world.violated(format!("{} cannot be started: {why}", self.subject.ledger.name));
                return None;
            }
            pause(rng, 200..1500).await;
        }
    }

    async fn follow(&self, client: &Client, id: &str, rng: &mut StdRng) -> State {
        let cancel_at = rng.random_bool(0.25).then(|| now() + Duration::from_millis(rng.random_range(0..20_000)));
        // Some are never completed, and end by the clock.
        let forgets = rng.random_bool(0.1);
        let mut seen = Seen::default();
        loop {
            pause(rng, 50..600).await;
            let request = v1::GetOperationRequest { id: id.to_owned() };
            let operation = match ask!(client.clone().get_operation(request)) {
                Ok(answer) => answer.into_inner().operation.unwrap_or_default(),
                Err(Some(status)) if reason_of(&status).as_deref() == Some("OPERATION_NOT_FOUND") => {
                    if !self.world.lost_a_store() {
                        self.world.violated(format!("{id} was started, and is not known any more"));
                        return State::Unspecified;
                    }
                    seen = Seen { changed: now(), ..Seen::default() };
                    let request = v1::GetOperationRequest { id: id.to_owned() };
                    // What no agent remembers has ended, or had not begun.
                    let known = !self.adopt(client).await || !not_found(ask!(client.clone().get_operation(request)));
                    match known {
                        true => continue,
                        false => return check::forgotten(self.world, self.subject),
                    }
                }
                Err(_) => {
                    seen.changed = now();
                    continue;
                }
            };
            self.look(&operation, &mut seen);
            if operation.ended.is_some() {
                return operation.state();
            }
            if rng.random_bool(0.05) {
                self.explain(client, id).await;
            }
            let completes = self.world.calm() || (!forgets && rng.random_bool(0.5));
            if cancel_at.is_some_and(|at| at <= now()) && rng.random_bool(0.5) {
                let request = v1::CancelOperationRequest { operations: Some(selector(id)) };
                let _ = ask!(client.clone().cancel_operation(request));
            } else if operation.state() == State::ReadyForCompletion && completes {
                self.complete(client, id, rng).await;
            }
        }
    }

    /// Has the coordinator take up what the agents remember; whether it did.
    async fn adopt(&self, client: &Client) -> bool {
        match ask!(client.clone().adopt_operations(v1::AdoptOperationsRequest { validate_only: false })) {
            Ok(answer) => {
                let answer = answer.into_inner();
                for operation in &answer.operations {
                    self.say(format_args!("adopted {} as {} {}", operation.id, operation.status, operation.step));
                }
                for left in answer.not_adopted {
                    self.world.violated(format!("{} is not adopted: {}", left.found, left.message));
                }
                true
            }
            Err(_) => false,
        }
    }

    /// The operation of this database that has not ended.
    async fn running(&self, client: &Client) -> Option<v1::Operation> {
        let databases = vec![self.subject.ledger.name.to_string()];
        let request = v1::ListOperationsRequest { databases, only_active: true, ..Default::default() };
        ask!(client.clone().list_operations(request)).ok()?.into_inner().operations.pop()
    }

    async fn complete(&self, client: &Client, id: &str, rng: &mut StdRng) {
        let max_freeze_ms = match self.world.calm() {
            true => 30_000,
            false => [100, 500, 3000, 10_000, 30_000][rng.random_range(0..5)],
        };
        self.subject.standing().completed_at.get_or_insert(self.subject.ledger.acknowledged());
        self.say(format_args!("complete within {max_freeze_ms} ms"));
        self.world.completes();
        let operations = Some(selector(id));
        let request = v1::CompleteOperationRequest { operations, max_freeze_ms, grace_ms: 0 };
        if let Err(why) = ask!(client.clone().complete_operation(request)) {
            self.say(format_args!("not completed: {}", why.as_ref().map_or("no answer".to_owned(), describe)));
        }
    }

    async fn explain(&self, client: &Client, id: &str) {
        let request = v1::ExplainOperationRequest { id: id.to_owned() };
        match ask!(client.clone().explain_operation(request)) {
            Ok(answer) if answer.get_ref().summary.is_empty() => {
                self.world.violated(format!("{id} is explained by nothing"));
            }
            _ => {}
        }
    }

    /// Looks at an operation: its version never falls, and it never stands still without a word.
    fn look(&self, operation: &v1::Operation, seen: &mut Seen) {
        if seen.stores_lost != self.world.stores_lost() {
            // A new store counts on from what the agents know, which may be less than what the one before had come to.
            (seen.stores_lost, seen.version) = (self.world.stores_lost(), 0);
        }
        if operation.version < seen.version {
            let (version, id) = (operation.version, &operation.id);
            self.world.violated(format!("the version of {id} fell from {} to {version}", seen.version));
        }
        seen.version = operation.version;
        let reason = operation.reason.as_ref().map_or("", |reason| &reason.code);
        let stage = format!("{} {} attempt {} {reason}", operation.status, operation.step, operation.attempt);
        if seen.stage != stage {
            self.say(format_args!("{stage}"));
        }
        let figures = operation.progress.as_ref().map_or((0, 0), |p| (p.seed_bytes_done, p.log_bytes_applied));
        let works =
            !matches!(operation.state(), State::Queued | State::ReadyForCompletion) && operation.ended.is_none();
        if seen.stage != stage || seen.figures != figures || !works || !operation.waiting_for.is_empty() {
            seen.changed = now();
        } else if now() - seen.changed > SILENCE_MAX {
            self.world.violated(format!("{} stands still and waits for nobody: {stage}", operation.id));
            seen.changed = now();
        }
        (seen.stage, seen.figures) = (stage, figures);
        self.subject.standing().seen = format!("{}, waiting for {:?}", seen.stage, operation.waiting_for);
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        self.world.trace.say("users", format_args!("{}: {what}", self.subject.ledger.name));
    }
}

fn not_found<T>(answer: Result<T, Option<tonic::Status>>) -> bool {
    let status = answer.err().flatten();
    status.is_some_and(|status| reason_of(&status).as_deref() == Some("OPERATION_NOT_FOUND"))
}

#[derive(Default)]
struct Seen {
    stage: String,
    figures: (u64, u64),
    version: u64,
    stores_lost: usize,
    changed: Duration,
}

fn selector(id: &str) -> v1::OperationSelector {
    v1::OperationSelector { ids: vec![id.to_owned()], ..Default::default() }
}
