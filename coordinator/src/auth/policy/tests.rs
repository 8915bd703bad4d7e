//! What the policies allow, what they deny, and which files are not taken.

use std::collections::BTreeSet;

use handover::{DatabaseName, InstanceName};

use super::super::names::{Name, Principal, Proof};
use super::super::resource::Within;
use super::*;

fn policy(text: &str, groups: &str) -> Policy {
    Policy::parse(text, Some(groups)).unwrap_or_else(|error| panic!("{error}"))
}

fn place(name: &str, subscription: &str, group: &str) -> Place {
    Place {
        name: InstanceName::parse(name).expect("a name"),
        engine: "sqlite".to_owned(),
        region: "north".to_owned(),
        within: Some(Within { subscription: subscription.to_owned(), resource_group: group.to_owned() }),
    }
}

fn database(place: Place, name: &str) -> Resource {
    Resource::Database(place, DatabaseName::parse(name).expect("a name"))
}

fn somebody(name: &str) -> Principal {
    Principal::new(Name::parse(name).expect("a name"), Proof::None)
}

/// Who may, by which policies.
#[track_caller]
fn allowed(policy: &Policy, who: &str, action: Action, about: &Resource) -> Vec<String> {
    let verdict = policy.judge(&somebody(who), action, about);
    assert!(verdict.allowed, "{who} may not {action} {about}");
    verdict.policies
}

#[track_caller]
fn denied(policy: &Policy, who: &str, action: Action, about: &Resource) -> Vec<String> {
    let verdict = policy.judge(&somebody(who), action, about);
    assert!(!verdict.allowed, "{who} may {action} {about} by {:?}", verdict.policies);
    verdict.policies
}

#[test]
fn nothing_is_allowed_that_no_policy_permits() {
    let nothing = policy("", "");
    for about in [Resource::Coordinator, database(place("west", "", "shop"), "a.db")] {
        assert_eq!(denied(&nothing, "ann", Action::Admin, &about), Vec::<String>::new());
    }
}

#[test]
fn rights_on_a_group_hold_for_what_stands_in_it() {
    let text = r#"
        @id("shop team")
        permit (principal in Group::"shop", action in [Action::"read", Action::"write"], resource in ResourceGroup::"prod/shop");
        @id("nobody touches the ledger")
        forbid (principal, action == Action::"write", resource) when { resource.name == "ledger.db" };
        @id("ops")
        permit (principal == User::"olga", action, resource);
    "#;
    let policy = policy(
        text,
        r#"shop = ["ann", "group:interns", "service:spiffe://example/ci"]
interns = ["bob"]"#,
    );
    let (west, elsewhere) = (place("west", "prod", "shop"), place("west", "test", "shop"));
    let shop = database(west.clone(), "a.db");
    for who in ["ann", "user:bob", "service:spiffe://example/ci"] {
        assert_eq!(allowed(&policy, who, Action::Write, &shop), ["shop team"]);
        allowed(&policy, who, Action::Read, &west.group());
        allowed(&policy, who, Action::Read, &Resource::Instance(west.clone()));
        denied(&policy, who, Action::Admin, &shop);
        // A group of the same name in another subscription is another group.
        denied(&policy, who, Action::Read, &database(elsewhere.clone(), "a.db"));
        denied(&policy, who, Action::Read, &elsewhere.group());
    }
    // The same name, but another kind of caller.
    denied(&policy, "service:ann", Action::Read, &shop);
    denied(&policy, "anonymous", Action::Read, &shop);
    denied(&policy, "carl", Action::Read, &shop);
    assert_eq!(denied(&policy, "olga", Action::Write, &database(west, "ledger.db")), ["nobody touches the ledger"]);
    allowed(&policy, "olga", Action::Admin, &Resource::Coordinator);
    assert_eq!(policy.groups_of(&somebody("bob")), ["interns", "shop"]);
}

/// Cedar leaves out a policy that fails, and what others permit would be allowed.
#[test]
fn a_prohibition_that_fails_denies() {
    let text = |sum: &str| {
        format!("permit (principal, action, resource);\nforbid (principal, action, resource) when {{ {sum} == 0 }};")
    };
    let about = database(place("west", "", ""), "a.db");
    allowed(&policy(&text("1 + 1"), ""), "ann", Action::Write, &about);
    denied(&policy(&text("9223372036854775807 + 1"), ""), "ann", Action::Write, &about);
}

#[test]
fn groups_of_a_token_count_as_those_of_the_file_do() {
    let policy = policy(r#"permit (principal in Group::"all", action, resource);"#, r#"all = ["group:idp:dba"]"#);
    let about = database(place("west", "", ""), "a.db");
    let who = Principal { groups: BTreeSet::from(["idp:dba".to_owned()]), ..somebody("ann") };
    assert!(policy.judge(&who, Action::Write, &about).allowed);
    let who = Principal { groups: BTreeSet::from(["dba".to_owned()]), ..who };
    assert!(!policy.judge(&who, Action::Write, &about).allowed);
}

#[test]
fn an_instance_that_is_not_known_is_in_no_group() {
    let policy = policy(
        r#"permit (principal, action, resource in ResourceGroup::"");
        permit (principal, action, resource in Subscription::"");"#,
        "",
    );
    let unknown = Place::unknown(InstanceName::parse("west").expect("a name"));
    denied(&policy, "ann", Action::Read, &unknown.group());
    denied(&policy, "ann", Action::Write, &database(unknown, "a.db"));
    allowed(&policy, "ann", Action::Write, &database(place("west", "", ""), "a.db"));
}

#[test]
fn a_slash_in_a_group_does_not_make_it_another_one() {
    let within = |subscription: &str, group: &str| Within {
        subscription: subscription.to_owned(),
        resource_group: group.to_owned(),
    };
    assert_ne!(within("", "prod/shop").group(), within("prod", "shop").group());
    assert_ne!(within("a/b", "c").group(), within("a", "b/c").group());
    for (subscription, group) in [("", "shop"), ("prod", "shop"), ("a/b", "c%2Fd"), ("", "%25")] {
        assert_eq!(Within::parse(&within(subscription, group).group()), within(subscription, group));
    }
}

#[test]
fn without_a_file_users_may_do_everything_and_machines_nothing() {
    let policy = Policy::everybody();
    let about = database(place("west", "", ""), "a.db");
    for action in [Action::Read, Action::Write, Action::Admin] {
        allowed(&policy, "ann", action, &about);
        allowed(&policy, "anonymous", action, &about);
        denied(&policy, "service:spiffe://causeway/agent-source/west", action, &about);
    }
    assert!(!policy.judge(&Principal::nobody(), Action::Read, &about).allowed);
}

/// The files that people begin with are good, and mean what they say.
#[test]
fn the_examples_are_good() {
    let read = |name: &str| {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/policies");
        std::fs::read_to_string(format!("{dir}/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let example = |name: &str| policy(&read(&format!("{name}.cedar")), &read(&format!("{name}.groups.toml")));
    let west = || place("west", "prod", "shop");

    let team = example("small-team");
    allowed(&team, "ann", Action::Admin, &database(west(), "shop"));
    allowed(&team, "carl", Action::Read, &database(west(), "shop"));
    denied(&team, "carl", Action::Write, &database(west(), "shop"));
    allowed(&team, "service:spiffe://example/deploy", Action::Write, &database(west(), "test_shop"));
    allowed(&team, "service:spiffe://example/deploy", Action::Read, &west().group());
    denied(&team, "service:spiffe://example/deploy", Action::Write, &database(west(), "shop"));
    denied(&team, "service:spiffe://causeway/agent-source/west", Action::Read, &Resource::Instance(west()));

    let fleet = example("fleet");
    let by_jwt = |group: &str, action: Action, about: &Resource| {
        let who = Principal { groups: BTreeSet::from([format!("idp:{group}")]), ..somebody("user:idp:4711") };
        fleet.judge(&who, action, about).allowed
    };
    assert!(by_jwt("team-shop", Action::Write, &database(west(), "shop")));
    assert!(by_jwt("team-shop", Action::Write, &database(place("east", "prod", "shared"), "shop")));
    assert!(!by_jwt("team-shop", Action::Write, &database(place("south", "prod", "crm"), "shop")));
    assert!(!by_jwt("team-shop", Action::Write, &database(west(), "ledger")));
    assert!(!by_jwt("team-shop", Action::Admin, &database(west(), "shop")));
    assert!(by_jwt("on-call", Action::Admin, &database(west(), "shop")));
    assert!(by_jwt("on-call", Action::Write, &database(west(), "ledger")));
    assert!(!by_jwt("on-call", Action::Admin, &database(place("x", "test", "shop"), "shop")));
    assert!(by_jwt("platform", Action::Admin, &Resource::Instance(west())));
    assert!(!by_jwt("platform", Action::Admin, &database(west(), "shop")));
    assert!(by_jwt("audit", Action::Admin, &Resource::Coordinator));
    // Whom the provider calls as we call a group of ours has none of its rights.
    assert!(!fleet.judge(&somebody("shop"), Action::Read, &database(west(), "shop")).allowed);
}

#[test]
fn wrong_files_are_told_with_what_is_wrong() {
    let refused = |text: &str, groups: &str, part: &str| {
        let error = Policy::parse(text, Some(groups)).err().unwrap_or_else(|| panic!("{text} {groups}"));
        assert!(error.contains(part), "{part} in {error}");
    };
    refused("\n\npermit (principal, action, resource)", "", "line 3");
    refused(r#"permit (principal == Usr::"ann", action, resource);"#, "", "Usr");
    refused(r#"permit (principal, action == Action::"wirte", resource);"#, "", "wirte");
    refused(r#"permit (principal, action, resource) when { resource.nmae == "x" };"#, "", "nmae");
    refused(
        r#"@id("a") permit (principal, action, resource); @id("a") forbid (principal, action, resource);"#,
        "",
        "\"a\"",
    );
    refused("permit (principal == ?principal, action, resource);", "", "template");
    refused("", "a = \"ann\"", "sequence");
    refused("", "a = [\"robot:x\"]", "robot");
    refused("", "a = [\"\"]", "empty");
    refused("", "a = [\"group:b\"]\nb = [\"group:a\"]", "circle");
}
