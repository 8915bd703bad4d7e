//! What is accepted on the command line, and what is not.

use std::time::Duration;

use clap::{CommandFactory, Parser, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn a_start_is_read_with_units() {
    let line = "causeway move start --source west --dest east --database shop --database crm --window 2h --log-budget 10GiB --watch -o json";
    let cli = parse(line).unwrap();
    assert_eq!((cli.global.output, cli.global.coordinator.as_str()), (Format::Json, "127.0.0.1:7440"));
    let Command::Move { command: KindCommand::Start(start) } = cli.command else { panic!("not a start of a move") };
    assert_eq!((start.source.as_str(), start.dest.as_str()), ("west", "east"));
    assert_eq!(start.database, ["shop", "crm"]);
    assert_eq!((start.window, start.log_budget), (Some(Duration::from_secs(7200)), Some(10 << 30)));
    assert!(start.watch && !start.validate_only);
}

#[test]
fn operations_are_named_by_id_or_by_database() {
    let by_id = parse("causeway copy complete 0197-a 0197-b --max-freeze 2s --coordinator db1:7440").unwrap();
    assert_eq!(by_id.global.coordinator, "db1:7440");
    let Command::Copy { command: KindCommand::Complete(complete) } = by_id.command else { panic!("not a completion") };
    assert_eq!(complete.selection.id, ["0197-a", "0197-b"]);
    assert_eq!(complete.max_freeze, Some(Duration::from_secs(2)));
    assert!(parse("causeway move cancel --source west --dest east --database shop").is_ok());
    for (line, kind) in [
        ("causeway move cancel", ErrorKind::MissingRequiredArgument),
        ("causeway move complete --source west --dest east", ErrorKind::MissingRequiredArgument),
        ("causeway move complete 0197-a --source west", ErrorKind::ArgumentConflict),
        ("causeway operation watch", ErrorKind::MissingRequiredArgument),
        ("causeway operation watch 0197-a --batch 0197-b", ErrorKind::ArgumentConflict),
        (
            "causeway move start --source west --dest east --database shop --watch --validate-only",
            ErrorKind::ArgumentConflict,
        ),
        ("causeway move start --source West --dest east --database shop", ErrorKind::ValueValidation),
        ("causeway move start --source west --dest east --database a/b", ErrorKind::ValueValidation),
        ("causeway move complete 0197_a", ErrorKind::ValueValidation),
        ("causeway move complete 0197-a --max-freeze 2", ErrorKind::ValueValidation),
        ("causeway operation forget 0197-a", ErrorKind::MissingRequiredArgument),
        ("causeway instance register west", ErrorKind::MissingRequiredArgument),
        ("causeway demo --mode teleport", ErrorKind::InvalidValue),
        ("causeway certs", ErrorKind::MissingRequiredArgument),
        ("causeway mvoe list", ErrorKind::InvalidSubcommand),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line}: {error}");
    }
}

#[test]
fn every_command_of_the_manual_parses() {
    for line in [
        "causeway move list --only-latest-per-database -o yaml",
        "causeway copy list --source west --active --limit 0",
        "causeway operation show 0197-a",
        "causeway operation explain 0197-a",
        "causeway operation watch 0197-a --until ready",
        "causeway operation list --batch 0197-b",
        "causeway operation forget 0197-a --side dest --yes-i-know 0197-a",
        "causeway operation force-unfence 0197-a",
        "causeway operation force-promote 0197-a",
        "causeway database list west",
        "causeway database purge west shop",
        "causeway instance register west --source-agent a:1 --dest-agent a:2 --region eu --subscription s",
        "causeway instance register east --dest-agent a:2",
        "causeway instance list",
        "causeway instance remove west",
        "causeway certs --dir c --instance west --instance east --user ann --san db1 --days 30",
        "causeway demo --engine postgres --mode copy --size-mb 8 --seconds 1 --rate 100 --keep",
        "causeway completions bash",
        "causeway version",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn help_tells_the_exit_codes() {
    let help = Cli::command().render_long_help().to_string();
    for code in ["0    done", "3    the coordinator", "6    permission denied", "130  ended"] {
        assert!(help.contains(code), "{code} is not in\n{help}");
    }
}
