//! Each rule on its own, as a table.

use handover::Kind;

use super::*;

fn limits() -> Limits {
    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        limits: crate::config::LimitArgs,
    }
    Limits::from(&<Only as clap::Parser>::parse_from(["test"]).limits)
}

fn name(text: &str) -> InstanceName {
    InstanceName::parse(text).unwrap()
}

fn wish(source: &str, destination: &str) -> Wish {
    Wish { kind: Kind::Move, source: name(source), destination: name(destination), databases: Vec::new() }
}

/// An instance that fits every other.
fn instance(text: &str) -> InstanceRecord {
    InstanceRecord {
        name: name(text),
        engine: "sqlite".to_owned(),
        source_agent: "127.0.0.1:1".to_owned(),
        dest_agent: "127.0.0.1:2".to_owned(),
        transfer_address: String::new(),
        subscription: "s".to_owned(),
        resource_group: String::new(),
        region: "r".to_owned(),
        failover_group: String::new(),
        source_identity: String::new(),
        dest_identity: String::new(),
    }
}

fn codes(findings: &[Finding]) -> Vec<&str> {
    for finding in findings {
        assert!(!finding.message.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
    }
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

type Change = fn(&mut InstanceRecord, &mut InstanceRecord, &mut Limits);

#[test]
fn each_rule_has_its_finding() {
    let table: [(&str, Change, &[&str]); 12] = [
        ("all fits", |_, _, _| {}, &[]),
        ("engine", |a, _, _| a.engine = "postgres".into(), &["ENGINES_DIFFER"]),
        ("subscription", |a, _, _| a.subscription = "t".into(), &["SUBSCRIPTIONS_DIFFER"]),
        ("no subscription", |_, b, _| b.subscription = String::new(), &["SUBSCRIPTIONS_DIFFER"]),
        ("region", |_, b, _| b.region = "q".into(), &["REGIONS_DIFFER"]),
        (
            "relaxed",
            |a, b, limits| {
                a.subscription = "t".into();
                b.region = "q".into();
                limits.allow_cross_subscription = true;
                limits.allow_cross_region = true;
            },
            &[],
        ),
        (
            "one relaxed",
            |a, b, limits| {
                a.subscription = "t".into();
                b.region = "q".into();
                limits.allow_cross_region = true;
            },
            &["SUBSCRIPTIONS_DIFFER"],
        ),
        ("source in a failover group", |a, _, _| a.failover_group = "f".into(), &["IN_FAILOVER_GROUP"]),
        ("dest in a failover group", |_, b, _| b.failover_group = "f".into(), &["IN_FAILOVER_GROUP"]),
        ("no source agent", |a, _, _| a.source_agent = String::new(), &["NO_SOURCE_AGENT"]),
        ("no dest agent", |_, b, _| b.dest_agent = String::new(), &["NO_DEST_AGENT"]),
        (
            "all at once",
            |a, b, _| {
                *a = InstanceRecord { engine: "x".into(), region: "x".into(), subscription: "x".into(), ..a.clone() };
                (a.failover_group, b.failover_group) = ("f".into(), "g".into());
                (a.source_agent, b.dest_agent) = (String::new(), String::new());
            },
            &[
                "NO_SOURCE_AGENT",
                "NO_DEST_AGENT",
                "ENGINES_DIFFER",
                "SUBSCRIPTIONS_DIFFER",
                "REGIONS_DIFFER",
                "IN_FAILOVER_GROUP",
                "IN_FAILOVER_GROUP",
            ],
        ),
    ];
    for (case, change, expected) in table {
        let (mut west, mut east, mut limits) = (instance("west"), instance("east"), limits());
        change(&mut west, &mut east, &mut limits);
        let found = instances(&limits, &wish("west", "east"), Some(&west), Some(&east));
        assert_eq!(codes(&found), expected, "{case}");
    }
}

#[test]
fn unknown_and_equal_instances_are_told() {
    let (limits, west) = (limits(), instance("west"));
    let both = instances(&limits, &wish("west", "east"), None, None);
    assert_eq!(codes(&both), ["INSTANCE_UNKNOWN", "INSTANCE_UNKNOWN"]);
    let one = instances(&limits, &wish("west", "east"), Some(&west), None);
    assert_eq!(codes(&one), ["INSTANCE_UNKNOWN"]);
    assert!(one[0].message.contains("destination instance east"));
    let same = instances(&limits, &wish("west", "west"), Some(&west), Some(&west));
    assert_eq!(codes(&same), ["SAME_INSTANCE"]);
}

#[test]
fn a_busy_database_is_told_with_its_operation() {
    let [shop, crm] = ["shop", "crm"].map(|text| DatabaseName::parse(text).unwrap());
    let [one, two] = ["op-1", "op-2"].map(|text| OperationId::parse(text).unwrap());
    let wish = wish("west", "east");
    let told = |source: &[(DatabaseName, OperationId)], dest: &[(DatabaseName, OperationId)]| {
        let found = busy(&wish, &shop, source, dest);
        codes(&found);
        found.into_iter().map(|finding| finding.message).collect::<Vec<_>>()
    };
    let of = |name: &DatabaseName, id: &OperationId| vec![(name.clone(), id.clone())];
    assert!(told(&of(&crm, &one), &[]).is_empty());
    assert!(told(&of(&shop, &one), &[])[0].contains("at instance west takes part in operation op-1"));
    assert!(told(&[], &of(&shop, &two))[0].contains("at instance east takes part in operation op-2"));
    assert_eq!(told(&of(&shop, &one), &of(&shop, &two)).len(), 2);
    assert_eq!(told(&of(&shop, &one), &of(&shop, &one)).len(), 1);
}

#[test]
fn the_quota_counts_what_is_asked_for() {
    let limits = Limits { active_max: 10, ..limits() };
    assert_eq!(quota(&limits, 9, 1), None);
    assert_eq!(quota(&limits, 9, 2).unwrap().code, "TOO_MANY_OPERATIONS");
    assert!(quota(&limits, usize::MAX, 1).is_some());
}
