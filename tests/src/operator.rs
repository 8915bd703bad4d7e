//! An operator at the command line: `causeway`, the overrides, and what it explains.

use crate::{
    binaries,
    builder::{Party, USER},
    cluster::Cluster,
    operation::Op,
};
use std::process::{Command, Output};

/// `causeway` as a script runs it: nobody can be asked.
pub fn causeway(cluster: &Cluster, args: &[&str]) -> Output {
    causeway_at(cluster, &cluster.address(Party::Coordinator), args)
}

/// The same with another coordinator.
pub fn causeway_at(cluster: &Cluster, coordinator: &str, args: &[&str]) -> Output {
    let certs = cluster.certs();
    Command::new(binaries::path("causeway"))
        .args(args)
        .args(["--coordinator", coordinator])
        .arg("--ca")
        .arg(certs.join("ca.pem"))
        .arg("--cert")
        .arg(certs.join(format!("{USER}.pem")))
        .arg("--key")
        .arg(certs.join(format!("{USER}-key.pem")))
        .stdin(std::process::Stdio::null())
        .output()
        .expect("run causeway")
}

/// The override, confirmed; its exit code and what it says on standard error.
pub fn confirmed(cluster: &Cluster, op: &Op<'_>, args: &[&str]) -> (i32, String) {
    let id = op.id.as_str();
    let output = causeway(cluster, &[&["operation"], args, &[id, "--yes-i-know", id]].concat());
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// An override that is obeyed.
#[track_caller]
pub fn done(cluster: &Cluster, op: &Op<'_>, args: &[&str]) {
    let (code, error) = confirmed(cluster, op, args);
    assert_eq!(code, 0, "{args:?}: {error}");
}

/// What `causeway operation explain` says, as one line: paragraphs are broken where the terminal ends.
#[track_caller]
pub fn explained(cluster: &Cluster, op: &Op<'_>) -> String {
    let output = causeway(cluster, &["operation", "explain", &op.id]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}
