//! `certs`: a development CA and a certificate for everybody.

use std::{fmt::Write as _, fs, io, path::Path, time::Duration};

use serde::Serialize;
use service::{
    Timestamp,
    certs::{Spec, issue_dev, revoke_dev},
};

use super::Context;
use crate::{args::CertsArgs, exit::Exit, failure::Failure, render::Look};

/// What was written, for scripts.
#[derive(Debug, Serialize)]
struct Written {
    ca: String,
    certificates: Vec<Certificate>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    identity: String,
    cert: String,
    key: String,
    not_after: String,
}

/// What was revoked, for scripts.
#[derive(Debug, Serialize)]
struct Revoked {
    crl: String,
    revoked: Vec<String>,
}

pub(super) async fn run(context: &Context<'_>, args: CertsArgs) -> Result<Exit, Failure> {
    let now = context.env.now();
    if !args.revoke.is_empty() {
        return revoke(context, args).await;
    }
    let mut specs = specs(&args.instance, &args.user, now);
    let not_after = now.after(Duration::from_secs(u64::from(args.days) * 86_400));
    for spec in &mut specs {
        spec.hosts = args.san.clone();
        spec.not_after = not_after;
    }
    let written = described(&args.dir, &specs);
    let (dir, users) = (args.dir.clone(), args.user.clone());
    context
        .env
        .blocking(move || issue_dev(&dir, &specs, now))
        .await
        .map_err(|error| Failure::local("make certificates", &error))?;
    let dir = args.dir.clone();
    let fresh_policy = context
        .env
        .blocking(move || write_policy(&dir, &users))
        .await
        .map_err(|error| Failure::local("write a policy", &error))?;
    let output = context.output;
    output.answer(&written, || {
        let mut text = format!("Wrote to {}\n", output.paint(Look::Strong, args.dir.display()));
        let _ = writeln!(
            text,
            "  {:<34} {}",
            "ca.pem, ca-key.pem",
            output.paint(Look::Faint, "the authority; keep ca-key.pem to yourself")
        );
        for Certificate { identity, cert, .. } in &written.certificates {
            let name = Path::new(cert).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let _ = writeln!(text, "  {:<34} {}", format!("{name}.pem, -key.pem"), output.paint(Look::Faint, identity));
        }
        let _ = writeln!(
            text,
            "  {:<34} {}",
            POLICY,
            output.paint(
                Look::Faint,
                match fresh_policy {
                    true => "who may do what; yours to change",
                    false => "was there and stays as it is: new users have only the rights it gives them",
                }
            )
        );
        text.push_str(&next(&args, &written));
        text
    });
    Ok(Exit::Ok)
}

async fn revoke(context: &Context<'_>, args: CertsArgs) -> Result<Exit, Failure> {
    let (dir, stems, now) = (args.dir.clone(), args.revoke.clone(), context.env.now());
    context
        .env
        .blocking(move || revoke_dev(&dir, &stems, now))
        .await
        .map_err(|error| Failure::local("revoke certificates", &error))?;
    let done = Revoked { crl: args.dir.join("crl.pem").display().to_string(), revoked: args.revoke };
    context.output.answer(&done, || {
        format!(
            "Revoked {} in {}\nGive it to every process as --crl; those that have it already take it up within seconds.",
            done.revoked.join(", "),
            done.crl
        )
    });
    Ok(Exit::Ok)
}

/// The policies that the certificates come with.
pub(super) const POLICY: &str = "policy.cedar";

/// Policies to begin with, unless there are some: the users of these certificates may do everything.
/// Whether it wrote them.
pub(super) fn write_policy(dir: &Path, users: &[String]) -> io::Result<bool> {
    let mut text = String::from(
        "// Who may do what at the coordinator (--policy). Nothing is allowed that no policy permits; changes are taken up\n\
         // within seconds. deploy/policies/ has more to begin with, docs/security.md tells what policies may be about.\n",
    );
    for user in users {
        let _ = write!(
            text,
            "\n@id(\"{user} may do everything\")\npermit (principal == User::\"{user}\", action, resource);\n"
        );
    }
    match fs::OpenOptions::new().write(true).create_new(true).open(dir.join(POLICY)) {
        Ok(mut file) => io::Write::write_all(&mut file, text.as_bytes()).map(|()| true),
        // Somebody may have written their own into it by now.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Who gets a certificate: the coordinator, both agents of each instance, users.
pub(super) fn specs(instances: &[String], users: &[String], now: Timestamp) -> Vec<Spec> {
    let mut specs = vec![Spec::new("coordinator", "spiffe://causeway/coordinator", now)];
    for name in instances {
        for half in ["agent-source", "agent-dest"] {
            specs.push(Spec::new(format!("{half}-{name}"), format!("spiffe://causeway/{half}/{name}"), now));
        }
    }
    for name in users {
        specs.push(Spec::new(format!("user-{name}"), format!("spiffe://causeway/user/{name}"), now));
    }
    specs
}

fn described(dir: &Path, specs: &[Spec]) -> Written {
    let path = |name: String| dir.join(name).display().to_string();
    let certificates = specs.iter().map(|spec| Certificate {
        identity: spec.identity.clone(),
        cert: path(format!("{}.pem", spec.stem)),
        key: path(format!("{}-key.pem", spec.stem)),
        not_after: spec.not_after.to_string(),
    });
    Written { ca: path("ca.pem".to_owned()), certificates: certificates.collect() }
}

fn next(args: &CertsArgs, written: &Written) -> String {
    let dir = args.dir.display();
    let user = args.user.first().map_or("operator", String::as_str);
    let mut text = String::from("\nNext: start the coordinator, and give the others their own pair\n");
    let _ = writeln!(
        text,
        "  causeway-coordinator --listen 127.0.0.1:7440 --ca {dir}/ca.pem --cert {dir}/coordinator.pem --key {dir}/coordinator-key.pem \\\n      --policy {dir}/{POLICY}"
    );
    let _ = writeln!(
        text,
        "  export CAUSEWAY_CA={dir}/ca.pem CAUSEWAY_CERT={dir}/user-{user}.pem CAUSEWAY_KEY={dir}/user-{user}-key.pem"
    );
    let _ = writeln!(text, "  causeway instance list");
    if args.instance.is_empty() {
        let _ = writeln!(text, "\nFor agents too:  causeway certs --dir {dir} --instance west --instance east");
    }
    if let Some(first) = written.certificates.first() {
        let _ = writeln!(
            text,
            "\nGood until {}. For development: bring an authority of your own for production.",
            first.not_after
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_an_identity_of_their_own() {
        let specs = specs(&["west".to_owned()], &["ann".to_owned()], Timestamp::from_millis(0));
        let named: Vec<(&str, &str)> = specs.iter().map(|spec| (spec.stem.as_str(), spec.identity.as_str())).collect();
        assert_eq!(
            named,
            [
                ("coordinator", "spiffe://causeway/coordinator"),
                ("agent-source-west", "spiffe://causeway/agent-source/west"),
                ("agent-dest-west", "spiffe://causeway/agent-dest/west"),
                ("user-ann", "spiffe://causeway/user/ann"),
            ]
        );
    }
}
