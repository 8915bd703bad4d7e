//! The rules one by one: what each command does in each phase.

use causeway_handover as handover;
use handover::{
    Attempt, CommandVersion, DatabaseName, Epoch, Finding, Incarnation, InstanceName, Kind, OperationId, Position,
    Side, Token,
    dest_role::{self, Answer, DestRole},
    operation::{
        self, Action, CancelStep, CompletionStep, Event, Illegal, Observation, Operation, Options, Outcome, Reason,
        State, Then, Times,
    },
    source_role::{self, DestAnswer, Refusal, SourceRole},
};

const V1: CommandVersion = CommandVersion(1);
const V9: CommandVersion = CommandVersion(9);
const A1: Attempt = Attempt(1);
const A2: Attempt = Attempt(2);

fn at(text: &str) -> Position {
    Position::parse(text).expect("printable")
}

fn source(kind: Kind, phase: source_role::Phase) -> SourceRole {
    SourceRole {
        operation: OperationId::parse("op-1").expect("an id"),
        kind,
        database: DatabaseName::parse("shop.db").expect("a name"),
        token: Token::parse("0123456789abcdef0123456789abcdef").expect("a token"),
        dest_address: "east:1".to_owned(),
        dest_identity: String::new(),
        log_budget_bytes: 0,
        incarnation: Incarnation::parse("one").expect("printable"),
        version: CommandVersion(5),
        floor: Attempt(0),
        phase,
    }
}

fn dest(phase: dest_role::Phase) -> DestRole {
    let source = source(Kind::Move, source_role::Phase::Replicating);
    DestRole {
        operation: source.operation,
        kind: source.kind,
        database: source.database,
        token: source.token,
        source_identity: String::new(),
        incarnation: None,
        source_epoch: Epoch(0),
        version: CommandVersion(5),
        floor: Attempt(0),
        hook: None,
        phase,
    }
}

fn fencing(attempt: Attempt) -> source_role::Phase {
    source_role::Phase::Fencing { attempt, saved: "old".to_owned() }
}

fn fenced(attempt: Attempt) -> source_role::Phase {
    source_role::Phase::Fenced { attempt, saved: "old".to_owned(), position: at("p") }
}

fn prepared(attempt: Attempt) -> dest_role::Phase {
    dest_role::Phase::Prepared { attempt, position: at("p") }
}

#[test]
fn a_source_obeys_no_older_version() {
    let role = source(Kind::Move, source_role::Phase::Replicating);
    let commands = [
        source_role::Event::Fence(V1, A1),
        source_role::Event::Unfence(V1, A1),
        source_role::Event::Release(V1, A1),
        source_role::Event::Cleanup(V1),
        source_role::Event::ForceUnfence(V1),
    ];
    for command in commands {
        let refused = source_role::step(&role, &command).expect_err("a stale command must be refused");
        assert_eq!(refused, Refusal::StaleVersion { given: V1, known: CommandVersion(5) }, "{command:?}");
    }
}

#[test]
fn fence_is_taken_once_and_answered_again() {
    let step =
        source_role::step(&source(Kind::Move, source_role::Phase::Replicating), &source_role::Event::Fence(V9, A1));
    let step = step.expect("a replicating source can be fenced");
    assert_eq!(step.actions, [source_role::Action::Close(A1)]);
    assert_eq!(step.next.version, V9);

    let again =
        source_role::step(&source(Kind::Move, fenced(A1)), &source_role::Event::Fence(V9, A1)).expect("repeated");
    assert_eq!(again.actions, [source_role::Action::AnnounceFenced(A1, at("p"))], "its one position is told again");

    let other = source_role::step(&source(Kind::Move, fenced(A1)), &source_role::Event::Fence(V9, A2));
    assert!(matches!(other, Err(Refusal::WrongPhase { .. })), "one attempt at a time");
    let copy =
        source_role::step(&source(Kind::Copy, source_role::Phase::Replicating), &source_role::Event::Fence(V9, A1));
    assert!(matches!(copy, Err(Refusal::WrongKind { .. })), "a copy is never fenced");
}

#[test]
fn an_unfence_closes_the_attempt_so_that_a_late_fence_is_refused() {
    let role = source(Kind::Move, source_role::Phase::Replicating);
    let step = source_role::step(&role, &source_role::Event::Unfence(V9, A1)).expect("raises the floor");
    assert_eq!(step.next.floor, A1);
    let late = source_role::step(&step.next, &source_role::Event::Fence(V9, A1));
    assert_eq!(late, Err(Refusal::StaleAttempt { given: A1, floor: A1 }));
    assert!(source_role::step(&step.next, &source_role::Event::Fence(V9, A2)).is_ok());
}

#[test]
fn only_the_answer_aborted_reopens_a_source_in_doubt() {
    for (answer, reopens) in [
        (DestAnswer::Aborted, true),
        (DestAnswer::Prepared, false),
        (DestAnswer::Promoted, false),
        (DestAnswer::Unknown, false),
    ] {
        for phase in [fencing(A1), fenced(A1)] {
            let role = source(Kind::Move, phase);
            let step = source_role::step(&role, &source_role::Event::DestAnswered(A1, answer)).expect("never refused");
            assert_eq!(step.actions.contains(&source_role::Action::Reopen(A1)), reopens, "{answer:?}");
            let late = source_role::step(&role, &source_role::Event::DestAnswered(A2, answer)).expect("never refused");
            assert!(late.actions.is_empty(), "an answer about another attempt reopens nothing");
        }
    }
}

#[test]
fn a_move_is_released_only_when_fenced_for_that_attempt() {
    let release = source_role::Event::Release(V9, A1);
    for phase in
        [source_role::Phase::Replicating, fencing(A1), fenced(A2), source_role::Phase::Releasing { attempt: A2 }]
    {
        assert!(source_role::step(&source(Kind::Move, phase.clone()), &release).is_err(), "{phase:?}");
    }
    let step = source_role::step(&source(Kind::Move, fenced(A1)), &release).expect("fenced for it");
    assert_eq!(step.next.phase, source_role::Phase::Releasing { attempt: A1 }, "durable before the drop");
    assert_eq!(step.actions, [source_role::Action::Release(A1)]);
    let done = source_role::step(&step.next, &source_role::Event::ReleaseDone).expect("after the drop");
    let again = source_role::step(&done.next, &release).expect("repeated");
    assert!(again.actions.is_empty(), "nothing is dropped twice");
}

#[test]
fn cleanup_keeps_what_a_fence_has_to_restore() {
    let step = source_role::step(&source(Kind::Move, fenced(A1)), &source_role::Event::Cleanup(V9)).expect("any time");
    assert_eq!(step.next.phase, source_role::Phase::CleaningUp { saved: "old".to_owned() });
    let role = source(Kind::Move, source_role::Phase::Releasing { attempt: A1 });
    assert!(source_role::step(&role, &source_role::Event::Cleanup(V9)).is_err(), "a drop under way is not undone");
}

#[test]
fn a_destination_promotes_only_what_it_is_prepared_for() {
    let promote = dest_role::Event::Promote(V9, A1);
    for phase in [dest_role::Phase::Seeding, dest_role::Phase::Replica, prepared(A2), dest_role::Phase::Discarding] {
        let refused = dest_role::step(&dest(phase.clone()), &promote);
        assert!(matches!(refused, Err(dest_role::Refusal::NotPrepared { .. })), "{phase:?}: {refused:?}");
    }
    let step = dest_role::step(&dest(prepared(A1)), &promote).expect("prepared for it");
    assert_eq!(step.next.phase, dest_role::Phase::Primary { attempt: A1 });
    assert_eq!(step.answer, Answer::Decided(DestAnswer::Promoted));
    let again = dest_role::step(&step.next, &dest_role::Event::Promote(V1, A1)).expect("a primary says so to anybody");
    assert_eq!(again.answer, Answer::Decided(DestAnswer::Promoted));
}

#[test]
fn abort_closes_an_attempt_for_ever_even_one_never_heard_of() {
    for phase in [dest_role::Phase::Seeding, dest_role::Phase::Replica, prepared(A1), prepared(A2)] {
        let step = dest_role::step(&dest(phase.clone()), &dest_role::Event::Abort(None, A2)).expect("always answered");
        assert_eq!((step.answer, step.next.floor), (Answer::Decided(DestAnswer::Aborted), A2), "{phase:?}");
        let late = dest_role::step(&step.next, &dest_role::Event::Promote(V9, A2));
        assert!(matches!(late, Err(dest_role::Refusal::StaleAttempt { .. })), "{phase:?}");
        let marker = dest_role::step(&step.next, &dest_role::Event::Marker(A2, at("p"))).expect("skipped");
        assert_eq!(marker.answer, Answer::Skipped);
    }
    let newer = dest_role::step(&dest(prepared(A2)), &dest_role::Event::Abort(None, A1)).expect("always answered");
    assert_eq!(newer.next.phase, prepared(A2), "an older attempt's Abort leaves a newer one prepared");
    let primary = dest(dest_role::Phase::Primary { attempt: A1 });
    let step = dest_role::step(&primary, &dest_role::Event::Abort(Some(V1), A1)).expect("always answered");
    assert_eq!(step.answer, Answer::Decided(DestAnswer::Promoted));
    let stale = dest_role::step(&dest(prepared(A1)), &dest_role::Event::Abort(Some(V1), A1));
    assert!(matches!(stale, Err(dest_role::Refusal::StaleVersion { .. })), "a stale coordinator closes nothing");
}

#[test]
fn the_first_marker_of_an_attempt_is_its_only_one() {
    let first =
        dest_role::step(&dest(dest_role::Phase::Replica), &dest_role::Event::Marker(A1, at("p"))).expect("taken");
    let second = dest_role::step(&first.next, &dest_role::Event::Marker(A1, at("q"))).expect("skipped");
    assert_eq!((second.answer, second.next.phase), (Answer::Skipped, prepared(A1)));
    assert!(dest_role::step(&dest(dest_role::Phase::Seeding), &dest_role::Event::Marker(A1, at("p"))).is_err());
}

#[test]
fn discard_never_touches_a_primary_and_closes_every_attempt() {
    let primary = dest(dest_role::Phase::Primary { attempt: A1 });
    let step = dest_role::step(&primary, &dest_role::Event::Discard(V9)).expect("answered");
    assert_eq!((step.answer, step.actions.len()), (Answer::Decided(DestAnswer::Promoted), 0));
    let step = dest_role::step(&dest(prepared(A1)), &dest_role::Event::Discard(V9)).expect("answered");
    assert_eq!(step.actions, [dest_role::Action::RemoveAll]);
    assert!(dest_role::step(&step.next, &dest_role::Event::Promote(V9, A2)).is_err());
    assert!(dest_role::step(&dest(dest_role::Phase::Replica), &dest_role::Event::Discard(V1)).is_err(), "stale");
}

fn operation(state: State) -> Operation {
    let source = source(Kind::Move, source_role::Phase::Replicating);
    Operation {
        id: source.operation,
        batch: "b".to_owned(),
        kind: Kind::Move,
        source: InstanceName::parse("west").expect("a name"),
        destination: InstanceName::parse("east").expect("a name"),
        database: source.database,
        token: source.token,
        options: Options { log_budget_bytes: 0, window_ms: 1_000 },
        state,
        attempt: Attempt(0),
        findings: vec![],
        reason: None,
        times: Times::default(),
        hook: None,
        freeze_ms: None,
        overrides: vec![],
    }
}

fn seen(seeded: bool, ready: bool, behind: bool, now_ms: i64) -> Event {
    Event::Observed { observation: Observation { seeded, ready, behind }, now_ms }
}

fn go(operation: &Operation, event: &Event) -> Operation {
    operation::step(operation, event).unwrap_or_else(|illegal| panic!("{event:?}: {illegal}"))
}

fn reason() -> Reason {
    Reason::new("CODE", "why", "what")
}

#[test]
fn the_whole_road_of_a_move() {
    let op = go(&operation(State::Queued), &Event::Admitted { now_ms: 10 });
    assert_eq!((operation::actions(&op), op.times.started_ms), (vec![Action::Prepare], Some(10)));
    let warning = Finding::warning(Side::Source, "CODE", "a", "b");
    let op = go(&op, &Event::Begun { findings: vec![warning.clone()] });
    assert_eq!((&op.state, &op.findings), (&State::Seeding, &vec![warning]));
    let op = go(&op, &seen(true, false, false, 20));
    assert_eq!(op.state, State::CatchingUp);
    let op = go(&op, &seen(true, true, false, 30));
    assert_eq!((&op.state, op.times.deadline_ms), (&State::Ready, Some(1_030)));
    let op = go(&op, &Event::Complete { max_freeze_ms: 5, grace_ms: 1 });
    assert_eq!(operation::actions(&op), [Action::CutOver(A1)]);
    let op = go(&op, &Event::Promoted { attempt: A1, freeze_ms: 7 });
    assert_eq!(operation::actions(&op), [Action::Release(A1), Action::Finish]);
    let op = go(&op, &Event::Finished(None));
    let op = go(&op, &Event::Released);
    assert_eq!(operation::actions(&op), [Action::CleanSource]);
    let op = go(&op, &Event::SourceClean);
    assert_eq!(operation::actions(&op), [Action::ForgetDest]);
    let op = go(&op, &Event::Forgotten { now_ms: 40 });
    assert_eq!((&op.state, op.freeze_ms, op.times.ended_ms), (&State::Succeeded, Some(7), Some(40)));
    assert_eq!(operation::step(&op, &Event::Cancel { now_ms: 50 }), Err(Illegal::Ended { state: "succeeded" }));
}

#[test]
fn passing_lag_and_aborted_attempts_do_not_restart_the_clock() {
    let op = go(&operation(State::Seeding), &seen(true, true, false, 30));
    let op = go(&op, &seen(true, false, false, 100));
    assert_eq!(op.state, State::Ready, "a little lag is borne");
    let op = go(&op, &seen(true, false, true, 200));
    assert_eq!(op.state, State::CatchingUp);
    let op = go(&op, &seen(true, true, false, 300));
    assert_eq!(op.times.deadline_ms, Some(1_030));
    let op = go(&op, &Event::Complete { max_freeze_ms: 5, grace_ms: 1 });
    let op = go(&op, &Event::CutoverFailed { attempt: A1, reason: reason(), again: false });
    assert_eq!(operation::actions(&op), [Action::AbortDest(A1)]);
    let op = go(&op, &Event::DestDecided(A1, DestAnswer::Aborted));
    assert_eq!(operation::actions(&op), [Action::Unfence(A1)]);
    let op = go(&op, &Event::Unfenced(A1));
    assert_eq!((&op.state, &op.reason, op.times.deadline_ms), (&State::Ready, &Some(reason()), Some(1_030)));
    let op = go(&op, &Event::Tick { now_ms: 1_030 });
    assert_eq!(op.reason.as_ref().map(|r| r.code.as_str()), Some("WINDOW_EXPIRED"));
}

#[test]
fn a_standing_complete_tries_again_but_not_for_ever() {
    let mut op = go(&operation(State::Ready), &Event::Complete { max_freeze_ms: 5, grace_ms: 1 });
    let mut attempts = 0;
    while let State::Completing(now) = op.state.clone() {
        attempts += 1;
        op = go(&op, &Event::CutoverFailed { attempt: now.attempt, reason: reason(), again: true });
        op = go(&op, &Event::DestDecided(now.attempt, DestAnswer::Aborted));
        op = go(&op, &Event::Unfenced(now.attempt));
    }
    assert_eq!((op.state, attempts, op.attempt), (State::Ready, 6, Attempt(6)));
}

#[test]
fn a_destination_that_turns_out_primary_rolls_forward() {
    let op = go(&operation(State::Ready), &Event::Complete { max_freeze_ms: 5, grace_ms: 1 });
    let op = go(&op, &Event::Cancel { now_ms: 1 });
    assert_eq!(operation::actions(&op), [Action::AbortDest(A1)], "a cancel asks the destination first");
    let late = operation::step(&op, &Event::DestDecided(A2, DestAnswer::Aborted));
    assert!(late.is_err(), "an answer about another attempt decides nothing");
    let unknown = go(&op, &Event::DestDecided(A1, DestAnswer::Unknown));
    assert_eq!(unknown, op, "nothing follows from Unknown: the source stays fenced");
    let op = go(&op, &Event::DestDecided(A1, DestAnswer::Promoted));
    assert_eq!(operation::actions(&op), [Action::Release(A1), Action::Finish]);
    assert_eq!(operation::step(&op, &Event::Cancel { now_ms: 2 }), Err(Illegal::TooLate));
}

#[test]
fn a_forced_promotion_is_recorded_once_and_undoes_nothing() {
    let forced = Event::ForcedPromote { attempt: A1, now_ms: 7 };
    let op = go(&operation(State::Ready), &forced);
    assert_eq!(operation::actions(&op), [Action::Release(A1), Action::Finish]);
    assert_eq!(op.overrides, [("force-promote".to_owned(), 7)]);
    let op = go(&op, &Event::ForgetSource { now_ms: 8 });
    let op = go(&op, &Event::Finished(None));
    assert_eq!(go(&op, &forced), op, "asked again, nothing begins anew");

    // The driver heard of the promotion before it was recorded.
    let op = go(&operation(State::Ready), &Event::Complete { max_freeze_ms: 5, grace_ms: 1 });
    let op = go(&op, &Event::Promoted { attempt: A1, freeze_ms: 3 });
    let op = go(&op, &Event::Released);
    let noted = go(&op, &forced);
    assert_eq!((noted.state, noted.overrides.len()), (op.state, 1));
}

#[test]
fn a_cancel_cleans_the_destination_first_and_forgets_last() {
    for state in [State::Preparing, State::Seeding, State::CatchingUp, State::Ready] {
        let op = go(&operation(state), &Event::Cancel { now_ms: 1 });
        assert_eq!(operation::actions(&op), [Action::Discard]);
        let op = go(&op, &Event::Discarded(DestAnswer::Unknown));
        assert_eq!(operation::actions(&op), [Action::CleanSource]);
        let op = go(&op, &Event::SourceClean);
        assert_eq!(operation::actions(&op), [Action::ForgetDest]);
        let op = go(&op, &Event::Forgotten { now_ms: 9 });
        assert_eq!((&op.state, op.times.ended_ms), (&State::Cancelled, Some(9)));
    }
    let queued = go(&operation(State::Queued), &Event::Cancel { now_ms: 3 });
    assert_eq!((queued.state, queued.times.ended_ms), (State::Cancelled, Some(3)), "no agent has heard of it");
    let failed = go(&operation(State::Seeding), &Event::Fail { reason: reason(), now_ms: 3 });
    assert!(
        matches!(failed.state, State::Cancelling(c) if c.outcome == Outcome::Failed && c.step == CancelStep::Discarding)
    );
}

#[test]
fn overrides_are_recorded_and_bounded() {
    let op = go(&operation(State::Ready), &Event::Complete { max_freeze_ms: 5, grace_ms: 1 });
    assert!(operation::step(&op, &Event::ForgetDest { now_ms: 1 }).is_err(), "not while it may still be promoted");
    let op = go(&op, &Event::CutoverFailed { attempt: A1, reason: reason(), again: false });
    let op = go(&op, &Event::ForgetDest { now_ms: 7 });
    assert_eq!(op.overrides, [("forget dest".to_owned(), 7)]);
    assert!(
        matches!(&op.state, State::Completing(c) if matches!(c.step, CompletionStep::Unfencing { then: Then::Cancel(_), .. }))
    );
    let early = operation::step(&operation(State::Seeding), &Event::Complete { max_freeze_ms: 1, grace_ms: 1 });
    assert_eq!(early, Err(Illegal::NotReady { state: "seeding" }));
}

/// A move whose destination is lost for ever between flip and drop: what the source still has must not go with it.
#[test]
fn the_last_copy_is_reopened_and_never_dropped_by_forgetting_the_other() {
    let flipped = |kind| {
        let mut op = operation(State::Ready);
        op.kind = kind;
        let op = go(&op, &Event::Complete { max_freeze_ms: 5, grace_ms: 1 });
        go(&op, &Event::Promoted { attempt: A1, freeze_ms: 3 })
    };
    let forget = Event::ForgetDest { now_ms: 7 };
    let unfence = Event::ForcedUnfence { now_ms: 8 };
    let op = flipped(Kind::Move);
    assert_eq!(operation::step(&op, &forget), Err(Illegal::LastCopy));
    assert_eq!(operation::step(&go(&op, &Event::Finished(None)), &forget), Err(Illegal::LastCopy));
    let reopened = go(&op, &unfence);
    assert_eq!((operation::actions(&reopened), reopened.freeze_ms), (vec![Action::Discard], None));
    let cleaning = go(&reopened, &forget);
    assert_eq!(operation::actions(&cleaning), [Action::CleanSource], "which removes no database");

    // Once the source is dropped there is nothing to save, and a copy's source is not dropped at all.
    let released = go(&op, &Event::Released);
    assert_eq!(operation::step(&released, &unfence), Err(Illegal::TooLate));
    assert_eq!(operation::actions(&go(&released, &forget)), [Action::CleanSource]);
    let copy = go(&flipped(Kind::Copy), &forget);
    assert_eq!(operation::actions(&copy), [Action::Release(A1)]);
}
