//! `auth`: who one is, who may do what, and tokens.

use std::{fmt::Write as _, time::Duration};

use proto::v1::{CheckAccessRequest, WhoAmIRequest};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Context;
use crate::{
    args::{AuthCommand, CheckArgs, TokenArgs},
    exit::Exit,
    failure::Failure,
    render::Look,
    view::{Access, WhoAmI},
};

pub(super) async fn run(context: &Context<'_>, command: AuthCommand) -> Result<Exit, Failure> {
    match command {
        AuthCommand::Whoami => whoami(context).await,
        AuthCommand::Check(args) => check(context, args).await,
        AuthCommand::Token(args) => token(context, args),
    }
}

async fn whoami(context: &Context<'_>) -> Result<Exit, Failure> {
    let answer = context.client().await?.who_am_i("ask who you are", WhoAmIRequest {}).await?;
    let me = WhoAmI::from(&answer);
    context.output.answer(&me, || {
        let mut text = format!("{} (by {})\n", context.output.paint(Look::Strong, &me.principal), me.proof);
        if !me.groups.is_empty() {
            let _ = writeln!(text, "groups: {}", me.groups.join(", "));
        }
        if !me.policy {
            text.push_str("the coordinator has no policy: every user may do everything\n");
        }
        text
    });
    Ok(Exit::Ok)
}

async fn check(context: &Context<'_>, args: CheckArgs) -> Result<Exit, Failure> {
    let CheckArgs { principal, action, resource } = args;
    let request = CheckAccessRequest { principal, action, resource };
    let answer = context.client().await?.check_access("ask the policies", request).await?;
    let access = Access::from(&answer);
    context.output.answer(&access, || {
        let (word, look) = if access.allowed { ("allowed", Look::Good) } else { ("denied", Look::Bad) };
        let by = match access.policies.as_slice() {
            [] => "no policy permits it".to_owned(),
            policies => format!("by {}", policies.join(", ")),
        };
        let Access { principal, action, resource, .. } = &access;
        format!("{}: {principal} {action} {resource}, {by}", context.output.paint(look, word))
    });
    Ok(if access.allowed { Exit::Ok } else { Exit::Denied })
}

/// A token and its entry, for scripts.
#[derive(Debug, Serialize)]
struct Made {
    token: String,
    entry: String,
}

/// 256 random bits: what is hashed without salt must not be guessable.
fn token(context: &Context<'_>, args: TokenArgs) -> Result<Exit, Failure> {
    let token = format!("causeway_{}{}", context.env.token(), context.env.token());
    let hash: String = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut entry = format!("[[token]]\nuser = {}\nsha256 = \"{hash}\"\n", quoted(&args.user));
    if !args.group.is_empty() {
        let groups: Vec<String> = args.group.iter().map(|group| quoted(group)).collect();
        let _ = writeln!(entry, "groups = [{}]", groups.join(", "));
    }
    if args.days > 0 {
        let until = context.env.now().after(Duration::from_secs(u64::from(args.days) * 86_400));
        let _ = writeln!(entry, "expires = {until}");
    }
    let made = Made { token, entry };
    // For people the secret goes to standard output alone, so that it can go straight into a file.
    context.output.note(&format!(
        "Add this to the coordinator's --tokens file; it is taken up within seconds:\n\n{}\nThe token, for {}'s \
         --token-file; it is shown only now:\n",
        made.entry, args.user
    ));
    context.output.answer(&made, || made.token.clone());
    Ok(Exit::Ok)
}
