//! Flags over environment over file over defaults, and every mistake named.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use clap::Parser;
use serde::Deserialize;
use tempfile::TempDir;

use super::{CommonArgs, Error, Loaded, parse_from};
use crate::telemetry::LogFormat;

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// A required one
    #[arg(long, env = "CAUSEWAY_TEST_ROOT")]
    root: PathBuf,
    /// A number
    #[arg(long, env = "CAUSEWAY_TEST_LANES", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    lanes: u32,
    /// Several
    #[arg(long)]
    label: Vec<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Instance {
    name: String,
}

fn with_file(text: &str, flags: &[&str]) -> (TempDir, Result<Loaded<Args>, Error>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("causeway.toml");
    fs::write(&file, text).unwrap();
    let config = format!("--config={}", file.display());
    let args = ["test", &config].into_iter().chain(flags.iter().copied());
    let loaded = parse_from::<Args, _>(args, &["instance"]);
    (dir, loaded)
}

fn error_of(text: &str) -> String {
    with_file(text, &["--root=/r"]).1.expect_err("this file is no good").to_string()
}

#[test]
fn the_file_fills_in_and_flags_win() {
    let text = "listen = '127.0.0.1:1'\nroot = '/file'\nlanes = 7\nlog-format = 'json'\ninsecure = true\nlabel = ['a', 'b']\n\
                [[instance]]\nname = 'west'\n[[instance]]\nname = 'east'\n";
    let (_dir, loaded) = with_file(text, &["--lanes", "9"]);
    let loaded = loaded.unwrap();
    assert_eq!(loaded.args.common.listen, "127.0.0.1:1");
    assert_eq!((loaded.args.root.as_path(), loaded.args.lanes), (std::path::Path::new("/file"), 9));
    assert_eq!(loaded.args.common.log.log_format, LogFormat::Json);
    assert_eq!(loaded.args.common.log.log_level, "info");
    assert!(loaded.args.common.tls.insecure && loaded.args.common.tls.files().unwrap().is_none());
    assert_eq!(loaded.args.label, ["a", "b"]);
    let instances: Vec<Instance> = loaded.section("instance").unwrap().unwrap();
    assert_eq!(instances, [Instance { name: "west".into() }, Instance { name: "east".into() }]);
    assert_eq!(loaded.section::<u8>("absent").unwrap(), None);
    let text = loaded.section::<Vec<u8>>("instance").unwrap_err().to_string();
    assert!(text.contains("instance") && text.contains("causeway.toml"), "{text}");
}

#[test]
fn without_a_file_there_are_defaults_and_requirements() {
    let loaded = parse_from::<Args, _>(["test", "--root", "/r"], &[]).unwrap();
    assert_eq!((loaded.args.lanes, loaded.args.label.len(), loaded.file), (4, 0, None));
    let Err(Error::Usage(error)) = parse_from::<Args, _>(["test"], &[]) else { panic!("a root is required") };
    assert_eq!(error.kind(), clap::error::ErrorKind::MissingRequiredArgument);
    // After `--` nothing is an option.
    assert!(matches!(parse_from::<Args, _>(["test", "--root=/r", "--", "--config=/no"], &[]), Err(Error::Usage(_))));
}

#[test]
fn mistakes_in_the_file_are_named() {
    for (text, parts) in [
        ("lanse = 3", vec!["\"lanse\"", "causeway.toml", "did you mean \"lanes\"?"]),
        ("instances = []", vec!["did you mean \"instance\"?"]),
        ("zzz = 1", vec!["known are", "log_level"]),
        ("config = 'x'", vec!["\"config\""]),
        ("help = true", vec!["\"help\""]),
        ("lanes = 'many'", vec!["\"lanes\"", "causeway.toml", "invalid value 'many'"]),
        ("lanes = 99", vec!["99 is not in 1..=16"]),
        ("lanes = [1, 2]", vec!["single value, not a list"]),
        ("lanes = true", vec!["invalid value 'true'"]),
        ("insecure = 'yes'", vec!["true or false"]),
        ("log_format = 'xml'", vec!["invalid value 'xml'", "text, json"]),
        ("[lanes]\na = 1", vec!["not a section"]),
        ("lanes = ", vec!["not TOML", "line 1"]),
        ("lanes = 1\nlanes = 2", vec!["not TOML", "duplicate key"]),
    ] {
        let told = error_of(text);
        assert!(parts.iter().all(|part| told.contains(part)), "{text}: {told}");
    }
    let told = parse_from::<Args, _>(["test", "--config", "/no/such/file"], &[]).unwrap_err().to_string();
    assert!(told.contains("/no/such/file") && told.contains("check --config"), "{told}");
}

#[test]
fn half_of_the_certificates_is_an_error() {
    for (flags, part) in [
        (vec![], "give --ca, --cert and --key"),
        (vec!["--ca=a", "--cert=b"], "incomplete"),
        (vec!["--insecure", "--ca=a", "--cert=b", "--key=c"], "exclude each other"),
    ] {
        let args = ["test", "--root=/r"].into_iter().chain(flags);
        let told = parse_from::<Args, _>(args, &[]).unwrap().args.common.tls.files().unwrap_err().to_string();
        assert!(told.contains(part), "{told}");
    }
}

/// The environment belongs to the whole process, so this one runs `child` in a process with another environment.
#[test]
fn the_environment_stands_between_file_and_flags() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("causeway.toml");
    fs::write(&file, "root = '/file'\nlanes = 2\nlisten = '127.0.0.1:2'\ninsecure = true\n").unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "config::tests::child", "--ignored", "--nocapture"])
        .env("CAUSEWAY_CONFIG", &file)
        .env("CAUSEWAY_TEST_LANES", "3")
        .env("CAUSEWAY_LISTEN", "127.0.0.1:3")
        .env("CAUSEWAY_INSECURE", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("root=/file lanes=3 listen=127.0.0.1:4 insecure=false"), "{text}");
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn child() {
    let args = parse_from::<Args, _>(["test", "--listen", "127.0.0.1:4"], &[]).unwrap().args;
    let (listen, insecure) = (&args.common.listen, args.common.tls.insecure);
    println!("root={} lanes={} listen={listen} insecure={insecure}", args.root.display(), args.lanes);
}

/// Whatever stands in a configuration file, it is read or refused with a sentence.
#[test]
fn fuzz_files() {
    let samples =
        ["lanes = 7\nlabel = [\"a\", \"b\"]\nlog_level = \"debug\"\n", "root = '/x'\n[[instance]]\nname = \"west\"\n"];
    let samples: Vec<Vec<u8>> = samples.iter().map(|text| text.as_bytes().to_vec()).collect();
    fuzz::fuzz("configuration files", &samples, |input| {
        let text = String::from_utf8_lossy(input);
        match with_file(&text, &["--root=/x", "--insecure"]).1 {
            Ok(_) => true,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                false
            }
        }
    });
}
