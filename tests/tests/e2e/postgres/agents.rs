//! What an agent says when it cannot work with what it was given, before anything has happened.

use super::{cluster, filled};
use causeway_tests::{Cluster, Kind, POSTGRES, binaries, operation::request, v1::Severity};
use ledger::postgres::{Binaries, Options};
use std::process::{Command, Stdio};

/// Runs an agent that should end by itself; its exit code and its last words.
fn ends(program: &str, args: &[&str], secrets: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(binaries::path(program));
    command.args(["--insecure", "--instance=west"]).args(args);
    command.env_remove("PGPASSWORD").envs(secrets.iter().copied());
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start an agent");
    let output = child.wait_with_output().expect("wait for the agent");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_is_missing_is_named() {
    for program in ["causeway-agent-source", "causeway-agent-dest"] {
        let (code, said) = ends(program, &["--engine=sqlite"], &[]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("--dir"), "{said}");
        let (code, said) = ends(program, &["--engine=postgres"], &[]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("--postgres"), "{said}");
        let (code, said) = ends(program, &["--engine=postgres", "--postgres=user=x password=hunter2"], &[]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("no host") && !said.contains("hunter2"), "{said}");
        for (mode, part) in [("require", "/nowhere"), ("prefer", "sslmode=prefer")] {
            let dsn = format!("--postgres=host=h user=u sslmode={mode}");
            let (code, said) = ends(program, &["--engine=postgres", &dsn, "--postgres-ca=/nowhere"], &[]);
            assert_eq!(code, 2, "{said}");
            assert!(said.contains(part) && said.contains("(POSTGRES_CONFIG); "), "{said}");
        }
    }
}

#[test]
fn a_wrong_password_is_told_without_the_password() {
    let binaries = Binaries::find(Some(15)).expect("PostgreSQL 15 is installed");
    let options = Options { password: Some("right".to_owned()), ..Options::new(binaries) };
    let server = ledger::postgres::Server::start(options).expect("a server");
    let dsn = format!("--postgres={}", server.dsn("postgres"));
    for program in ["causeway-agent-source", "causeway-agent-dest"] {
        let (code, said) = ends(program, &["--engine=postgres", &dsn], &[("PGPASSWORD", "hunter2")]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("28P01") && !said.contains("hunter2"), "{said}");
        assert!(said.contains("POSTGRES_LOGIN") && said.contains("--postgres-password-file"), "{said}");
    }
}

/// The findings of a validation, as (code, severity).
#[track_caller]
fn findings(cluster: &Cluster, database: &str) -> Vec<(String, Severity)> {
    let validate =
        causeway_tests::v1::StartOperationRequest { validate_only: true, ..request(Kind::Move, &[database]) };
    let answer = cluster.try_start(validate).unwrap_or_else(|s| panic!("validate: {}", service::status::describe(&s)));
    let findings = answer.findings.into_iter().flat_map(|of| of.findings);
    findings
        .map(|finding| {
            assert!(!finding.remedy.is_empty() && !finding.message.is_empty(), "{finding:?}");
            (finding.code.clone(), finding.severity())
        })
        .collect()
}

#[test]
fn a_missing_pg_dump_is_a_finding() {
    let cluster = Cluster::builder().engine(POSTGRES).flag("source", "--pg-dump=/nowhere/pg_dump").start();
    filled(&cluster, "shop", 1);
    let found = findings(&cluster, "shop");
    assert!(found.contains(&("PG_DUMP".to_owned(), Severity::Error)), "{found:?}");
}

#[test]
fn a_good_database_has_no_errors() {
    let cluster = cluster();
    filled(&cluster, "shop", 1);
    let found = findings(&cluster, "shop");
    assert!(found.iter().all(|(_, severity)| *severity != Severity::Error), "{found:?}");
}
