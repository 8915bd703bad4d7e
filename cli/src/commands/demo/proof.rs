//! The proof: the writers' own ledger of what was acknowledged, held against the database.

use std::path::PathBuf;

use ledger::{CheckOptions, History, Report, Summary, check};

use super::{
    stage::{EAST, WEST},
    story::Story,
};
use crate::{args::DemoMode, commands::Context, exit::Exit, failure::Failure, render::Look, units, view::Operation};

/// What the proof is made from.
pub(super) struct Evidence {
    pub(super) mode: DemoMode,
    /// Its name.
    pub(super) database: &'static str,
    /// Where the application finds it at west and at east.
    pub(super) places: (PathBuf, PathBuf),
    /// What west's agent has to say of it after a move.
    pub(super) state_after_move: &'static str,
    pub(super) history: PathBuf,
    pub(super) summary: Summary,
    /// When the completion was asked for, in microseconds since 1970.
    pub(super) asked_us: u64,
    /// What west's agent says of the database now.
    pub(super) west_state: String,
    pub(super) completed: Operation,
}

/// Checks, prints, and judges.
pub(super) async fn prove(context: &Context<'_>, evidence: Evidence, story: &mut Story) -> Result<Exit, Failure> {
    story.begin("proof", "reading every row and every page");
    let (west, east) = &evidence.places;
    let east = CheckOptions::new(east, &evidence.history);
    let west = CheckOptions::new(west, &evidence.history);
    let proven = match evidence.mode {
        DemoMode::Move => {
            let report = run(context, east).await?;
            story.abandon();
            of_move(&evidence, &report, story)
        }
        DemoMode::Copy => {
            let copy = run(context, east.acknowledged_before(evidence.asked_us)).await?;
            let source = run(context, west).await?;
            let history = evidence.history.clone();
            let history = context.env.blocking(move || History::read(&[history])).await;
            let history = history.map_err(|error| Failure::local("read the ledger", &error))?;
            let known = history.writers.values().flatten();
            let before = known.filter(|k| k.acknowledged_us > 0 && k.acknowledged_us <= evidence.asked_us).count();
            story.abandon();
            of_copy(&evidence, before as u64, &copy, &source, story)
        }
    };
    match proven {
        true => story.end(true, "Proven: every acknowledged transaction is there, and nothing else."),
        false => story.end(false, "The proof does not hold."),
    }
    Ok(if proven { Exit::Ok } else { Exit::Failed })
}

async fn run(context: &Context<'_>, options: CheckOptions) -> Result<Report, Failure> {
    let checked = context.env.blocking(move || check(&options)).await;
    checked.map_err(|error| Failure::local("check the database", &error))
}

fn of_move(evidence: &Evidence, report: &Report, story: &Story) -> bool {
    let Evidence { summary, west_state, completed, database, state_after_move, .. } = evidence;
    story.title("What the application saw");
    let freeze = summary.freeze_ms;
    let shown = freeze.map_or_else(|| "none".to_owned(), |ms| format!("{ms:.1} ms"));
    let comment = format!("from its last commit at {WEST} to its first at {EAST}");
    story.figure("freeze", &shown, Some(Look::Accent), &comment);
    let measured = format!("{} ms", units::count(completed.freeze_ms));
    story.figure("by the coordinator", &measured, None, "from the fence to the destination online");
    latency(summary, story);

    story.title(&format!("The proof: the writers' own ledger against {EAST}/{database}"));
    story.figure("acknowledged", &units::count(report.acknowledged), None, "transactions, of which");
    story.figure(&format!("found at {EAST}"), &units::count(report.found), None, "");
    zeros(report, story);
    let dropped = west_state == state_after_move;
    let (word, look) = if dropped { ("dropped", Look::Good) } else { (west_state.as_str(), Look::Bad) };
    let comment = match (dropped, *state_after_move) {
        (true, "tombstone") => "a tombstone keeps the name: it refuses writes and says where to look".to_owned(),
        (true, _) => "nobody can write there any more".to_owned(),
        (false, due) => format!("should be {due}"),
    };
    story.figure(&format!("{WEST}/{database}"), word, Some(look), &comment);
    let saw_it_move = freeze.is_some_and(|ms| ms >= 0.0);
    told(report, story)
        && told_by_the_writers(summary, story)
        && dropped
        && saw_it_move
        && report.acknowledged == report.found
}

fn of_copy(evidence: &Evidence, before: u64, copy: &Report, source: &Report, story: &Story) -> bool {
    let Evidence { summary, west_state, database, .. } = evidence;
    story.title("What the application saw");
    story.figure("freeze", "none", Some(Look::Accent), &format!("it went on at {WEST} all the time"));
    latency(summary, story);

    story.title(&format!("The proof: the writers' own ledger against the copy, {EAST}/{database}"));
    story.figure("acknowledged", &units::count(copy.acknowledged), None, "transactions");
    story.figure("before the completion", &units::count(before), None, "all of these have to be in the copy");
    story.figure(&format!("found at {EAST}"), &units::count(copy.found), None, "one consistent moment of the source");
    story.figure("after that moment", &units::count(copy.behind), None, &format!("they are at {WEST} only"));
    zeros(copy, story);
    let untouched = west_state == "online" && source.is_ok() && source.acknowledged == source.found;
    let (word, look) = if untouched { ("untouched", Look::Good) } else { (west_state.as_str(), Look::Bad) };
    let comment = format!(
        "{} of {} found there, integrity {}",
        units::count(source.found),
        units::count(source.acknowledged),
        integrity(source)
    );
    story.figure(&format!("{WEST}/{database}"), word, Some(look), &comment);
    let consistent = copy.found + copy.behind == copy.acknowledged && copy.found >= before && before > 0;
    told(copy, story) & told(source, story) && told_by_the_writers(summary, story) && untouched && consistent
}

fn latency(summary: &Summary, story: &Story) {
    let latency = &summary.latency;
    let comment = format!("half of the transactions took at most {:.1} ms", latency.median_ms);
    story.figure("slowest transaction", &format!("{:.1} ms", latency.max_ms), None, &comment);
    let look = (summary.errors > 0).then_some(Look::Bad);
    story.figure("errors", &units::count(summary.errors), look, "");
}

fn zeros(report: &Report, story: &Story) {
    let look = |count: u64| Some(if count == 0 { Look::Good } else { Look::Bad });
    story.figure("lost", &units::count(report.lost), look(report.lost), "");
    story.figure("invented", &units::count(report.invented), look(report.invented), "");
    let integrity = integrity(report);
    let sound = if integrity == "ok" { Look::Good } else { Look::Bad };
    story.figure("integrity check", &integrity, Some(sound), "order, content, balances and the file itself");
}

fn integrity(report: &Report) -> String {
    match (&report.integrity, report.is_ok()) {
        (Some(found), true) if found == "ok" => "ok".to_owned(),
        (Some(found), _) if found != "ok" => "corrupt".to_owned(),
        _ => "not ok".to_owned(),
    }
}

/// Whether the check found nothing wrong; what it found is told.
fn told(report: &Report, story: &Story) -> bool {
    report.problems.iter().for_each(|problem| story.line(&format!("✗ {problem}")));
    report.is_ok() && report.acknowledged > 0 && report.lost == 0 && report.invented == 0
}

/// Whether the writers noticed no loss by themselves, and had no errors.
fn told_by_the_writers(summary: &Summary, story: &Story) -> bool {
    summary.first_errors.iter().for_each(|error| story.line(&format!("✗ {error}")));
    summary.losses_noticed == 0 && summary.torn == 0 && summary.errors == 0
}

#[cfg(test)]
mod tests {
    use service::Env;

    use super::*;
    use crate::{args::Format, render::Output, view::tests::operation};

    fn evidence(mode: DemoMode) -> Evidence {
        let west_state = if mode == DemoMode::Move { "tombstone" } else { "online" };
        let mut summary = Summary::default();
        (summary.committed, summary.freeze_ms) = (100, Some(20.0));
        Evidence {
            mode,
            database: "shop.db",
            places: (PathBuf::new(), PathBuf::new()),
            state_after_move: "tombstone",
            history: PathBuf::new(),
            summary,
            asked_us: 1,
            west_state: west_state.to_owned(),
            completed: operation(),
        }
    }

    fn report(found: u64, behind: u64) -> Report {
        let integrity = Some("ok".to_owned());
        Report { transactions: found, acknowledged: found + behind, found, behind, integrity, ..Report::default() }
    }

    fn with_problem(mut report: Report) -> Report {
        report.problem_counts.insert("reordered".to_owned(), 1);
        report
    }

    fn moved(evidence: &Evidence, report: &Report) -> bool {
        of_move(evidence, report, &Story::new(Output::plain(Format::Table), &Env::real()))
    }

    fn copied(evidence: &Evidence, before: u64, copy: &Report, source: &Report) -> bool {
        of_copy(evidence, before, copy, source, &Story::new(Output::plain(Format::Table), &Env::real()))
    }

    #[test]
    fn a_move_is_proven_only_if_nothing_is_amiss() {
        let good = evidence(DemoMode::Move);
        assert!(moved(&good, &report(100, 0)));
        for bad in [
            Report { lost: 1, ..report(100, 0) },
            Report { invented: 1, ..report(100, 0) },
            Report { acknowledged: 101, ..report(100, 0) },
            with_problem(report(100, 0)),
            report(0, 0),
        ] {
            assert!(!moved(&good, &bad), "{bad:?}");
        }
        let summary = |change: fn(&mut Summary)| {
            let mut evidence = evidence(DemoMode::Move);
            change(&mut evidence.summary);
            evidence
        };
        for bad in [
            Evidence { west_state: "online".to_owned(), ..evidence(DemoMode::Move) },
            Evidence { state_after_move: "gone", ..evidence(DemoMode::Move) },
            summary(|s| s.freeze_ms = None),
            summary(|s| s.freeze_ms = Some(-3.0)),
            summary(|s| s.losses_noticed = 1),
            summary(|s| s.errors = 1),
        ] {
            assert!(!moved(&bad, &report(100, 0)), "{:?} at {}", bad.summary, bad.west_state);
        }
    }

    #[test]
    fn a_copy_is_proven_only_if_it_is_a_prefix_and_the_source_is_untouched() {
        let good = evidence(DemoMode::Copy);
        assert!(copied(&good, 80, &report(90, 10), &report(100, 0)));
        assert!(!copied(&good, 91, &report(90, 10), &report(100, 0)), "one from before the completion is missing");
        assert!(!copied(&good, 0, &report(90, 10), &report(100, 0)), "nothing was written before");
        assert!(!copied(&good, 80, &with_problem(report(90, 10)), &report(100, 0)), "the copy is not sound");
        assert!(!copied(&good, 80, &report(90, 10), &with_problem(report(100, 0))), "the source is not sound");
        assert!(!copied(&good, 80, &report(90, 10), &Report { found: 99, ..report(100, 0) }), "the source lost one");
        let fenced = Evidence { west_state: "fenced".to_owned(), ..evidence(DemoMode::Copy) };
        assert!(!copied(&fenced, 80, &report(90, 10), &report(100, 0)), "the source is fenced");
    }
}
