//! `store copy`: done by the coordinator's own program, which knows the stores.

use std::process::Stdio;

use tokio::process::Command;

use super::Context;
use crate::{args::StoreCommand, exit::Exit, failure::Failure};

pub(super) async fn run(context: &Context<'_>, command: StoreCommand) -> Result<Exit, Failure> {
    let StoreCommand::Copy { from, to } = command;
    let doing = "copy the store";
    let here = std::env::current_exe().map_err(|error| Failure::local(doing, &error))?;
    let mut program = Command::new(here.with_file_name("causeway-coordinator"));
    program.args(["--log-level=warn", &format!("--store={from}"), &format!("--copy-store-to={to}")]);
    let tls = context.global.tls();
    for (flag, file) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key), ("crl", &tls.crl)] {
        program.args(file.iter().map(|file| format!("--{flag}={}", file.display())));
    }
    // Without certificates an etcd can only be one on this machine; a file needs none at all.
    if tls.insecure || tls.ca.is_none() {
        program.arg("--insecure");
    }
    // What stands there for this program's own configuration is none of that one's.
    let done = program.env_remove("CAUSEWAY_CONFIG").stdin(Stdio::null()).output().await;
    let done =
        done.map_err(|error| Failure::local("run causeway-coordinator, which lies beside this program", &error))?;
    let said = |text: &[u8]| String::from_utf8_lossy(text).trim().to_owned();
    if !done.status.success() {
        let why = said(&done.stderr);
        let why = why.lines().last().unwrap_or_default().trim_start_matches("causeway-coordinator: ").to_owned();
        return Err(Failure::new(Exit::Refused, doing, why));
    }
    context.output.print(&said(&done.stdout));
    Ok(Exit::Ok)
}
