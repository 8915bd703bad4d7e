//! What is missing or does not fit is named, with what to do about it.

use super::*;
use clap::Parser as _;
use std::{fs, path::Path};

#[derive(Debug, clap::Parser)]
struct Args {
    #[command(flatten)]
    agent: AgentArgs,
}

fn args(flags: &[&str]) -> Result<AgentArgs, String> {
    let line = ["agent", "--instance=west"].into_iter().chain(flags.iter().copied());
    Args::try_parse_from(line).map(|args| args.agent).map_err(|error| error.to_string())
}

/// The error's message and remedy.
#[track_caller]
fn unusable_because(made: engines::Result<impl Sized>) -> String {
    let error = made.err().expect("it cannot be used");
    assert_eq!(error.code(), "CONFIGURATION");
    format!("{error}; {}", error.remedy())
}

#[test]
fn numbers_out_of_range_and_empty_names_are_refused() {
    for (flag, part) in [
        ("--takeover-after=1", "2..=3600"),
        ("--takeover-after=soon", "soon"),
        ("--coordinator-identity=", "--coordinator-identity"),
        ("--engine=postgresql", "postgres"),
    ] {
        let said = args(&[flag]).expect_err(flag);
        assert!(said.contains(part), "{flag}: {said}");
    }
    assert!(args(&["--takeover-after=2", "--coordinator-identity=a", "--coordinator-identity=b"]).is_ok());
}

#[test]
fn an_engine_says_what_it_needs() {
    let good = |flags: &[&str]| args(flags).expect("good flags");
    let said = unusable_because(good(&[]).sqlite());
    assert!(said.contains("--dir") && said.contains("--engine postgres"), "{said}");
    let said = unusable_because(good(&["--postgres=host=h user=u"]).sqlite());
    assert!(said.contains("add --engine postgres"), "{said}");
    let said = unusable_because(good(&["--engine=postgres"]).postgres());
    assert!(said.contains("--postgres 'host="), "{said}");
    assert!(good(&["--engine=postgres", "--postgres=host=h user=u"]).postgres().is_ok());
}

#[test]
fn a_password_file_is_read_or_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let read = |file: &Path| {
        let file = format!("--postgres-password-file={}", file.display());
        args(&["--engine=postgres", "--postgres=host=h user=u", &file]).expect("good flags").postgres()
    };
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("write the file");
        path
    };
    let password = |bytes: &[u8]| read(&write("good", bytes)).expect("a password").password;
    assert_eq!(password(b"sesame\n").as_deref(), Some("sesame"));
    assert_eq!(password(b" se same \r\nmore").as_deref(), Some(" se same "));
    for (path, part) in [
        (dir.path().join("nowhere"), "No such file"),
        (dir.path().to_owned(), "directory"),
        (write("empty", b""), "first line is empty"),
        (write("blank", b"\nsesame"), "first line is empty"),
        (write("bytes", b"se\xffsame"), "UTF-8"),
    ] {
        let said = unusable_because(read(&path));
        assert!(said.contains(&path.display().to_string()) && said.contains(part), "{said}");
        assert!(!said.contains("same"), "no part of the file is shown: {said}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let args = args(&["--postgres=host=h user=u password=hunter2"]).expect("good flags");
    assert!(!format!("{args:?}").contains("hunter2"));
}
