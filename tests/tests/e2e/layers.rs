//! The import table of DESIGN.md section 7, held against what cargo knows and what the sources name.

use causeway_tests::binaries::workspace;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

/// Which crates of the workspace each crate may import. `tests` may import all.
const TABLE: [(&str, &[&str]); 13] = [
    ("handover", &[]),
    ("proto", &["handover"]),
    ("engines", &["handover"]),
    ("service", &["proto"]),
    ("agent", &["handover", "engines", "service"]),
    ("agent-source", &["handover", "proto", "engines", "service", "agent"]),
    ("agent-dest", &["handover", "proto", "engines", "service", "agent"]),
    ("coordinator", &["handover", "proto", "service"]),
    ("ledger", &[]),
    ("model", &["handover"]),
    ("cli", &["handover", "proto", "service", "ledger"]),
    ("fuzz", &[]),
    ("simulation", &["handover", "proto", "engines", "service", "agent", "agent-source", "agent-dest", "coordinator"]),
];

/// The dependencies that only some crates may name.
const THEIRS: [(&str, &[&str]); 12] = [
    (
        "tonic",
        &["proto", "service", "agent", "agent-source", "agent-dest", "coordinator", "cli", "simulation", "tests"],
    ),
    ("prost", &["proto"]),
    ("rusqlite", &["engines", "ledger", "tests"]),
    ("postgres", &["ledger", "tests"]),
    ("tokio-postgres", &["engines"]),
    ("postgres-protocol", &["engines"]),
    // The same stack as service's, under connections to databases, which are no business of service's.
    ("tokio-rustls", &["service", "engines"]),
    ("redb", &["coordinator", "simulation"]),
    ("rustls", &["service"]),
    ("rcgen", &["service"]),
    ("stateright", &["model"]),
    ("turmoil", &["simulation"]),
];

/// Crates by their names in the workspace, with what they import.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let short = |name: &str| name.strip_prefix("causeway-").unwrap_or(name).to_owned();
    let mut imports = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        let name = if name == "causeway" { "cli".to_owned() } else { short(name) };
        let normal = package["dependencies"].as_array().expect("dependencies").iter().filter(|d| d["kind"].is_null());
        imports.insert(name, normal.filter_map(|d| d["name"].as_str()).map(short).collect());
    }
    imports
}

#[test]
fn crates_import_downwards_only() {
    let imports = imports();
    let crates: BTreeSet<&str> = imports.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = TABLE.iter().map(|(name, _)| *name).chain(["tests"]).collect();
    assert_eq!(crates, known, "a new crate needs a line in the table");
    for (name, allowed) in TABLE {
        for import in imports[name].iter().filter(|import| crates.contains(import.as_str())) {
            assert!(allowed.contains(&import.as_str()), "{name} imports {import}, which the table does not allow");
        }
        for (theirs, users) in THEIRS {
            let imports = imports[name].contains(theirs);
            assert!(!imports || users.contains(&name), "{name} imports {theirs}, which is for {users:?}");
        }
    }
}

/// The two files beyond modules named `rpc` that name tonic: a lane is a stream of the wire by nature, and what the
/// destination answers on one is an error of the session.
const WIRE_OF_A_LANE: [&str; 2] = ["agent-source/src/session/lane.rs", "agent-source/src/session/error.rs"];

/// Only `proto`, `service` and modules named `rpc` name tonic.
#[test]
fn the_wire_stops_at_the_edge() {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for name in ["handover", "engines", "ledger", "agent", "agent-source", "agent-dest", "coordinator", "cli"] {
        visit(&workspace().join(name).join("src"), &mut |file, text| {
            let names_tonic = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains("tonic::") || code.contains("use tonic")
            });
            let is_rpc = |part: std::path::Component<'_>| part.as_os_str() == "rpc" || part.as_os_str() == "rpc.rs";
            let file = file.strip_prefix(workspace()).expect("a file of the workspace");
            if !names_tonic || file.components().any(is_rpc) {
                return;
            }
            let excepted = WIRE_OF_A_LANE.iter().find(|path| file == Path::new(path));
            assert!(excepted.is_some(), "{} names tonic", file.display());
            used.extend(excepted);
        });
    }
    assert_eq!(used.len(), WIRE_OF_A_LANE.len(), "an exception that nobody needs any more: {used:?} are needed");
}

#[test]
fn every_file_opens_with_a_sentence_and_stays_short() {
    for name in TABLE.iter().map(|(name, _)| *name).chain(["tests"]) {
        for part in ["src", "tests", "benches"] {
            visit(&workspace().join(name).join(part), &mut |file, text| {
                assert!(text.starts_with("//!"), "{} does not open with a //! sentence", file.display());
                let lines = text.lines().count();
                assert!(lines <= 600, "{} has {lines} lines", file.display());
            });
        }
    }
}

fn visit(dir: &Path, look: &mut dyn FnMut(&Path, &str)) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            visit(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path).expect("read a source file"));
        }
    }
}
