//! What is said before anything is made; and that nothing is left of the saying.

use super::fixture::rig;
use crate::{
    Error,
    dest::DestEngine as _,
    postgres::payload::{self, Extension, FORMAT, Locale, Requirements, Role},
};
use bytes::Bytes;
use handover::{DatabaseName, Severity};

fn role(name: &str) -> Role {
    Role {
        name: name.to_owned(),
        login: true,
        superuser: true,
        inherit: true,
        createdb: false,
        createrole: false,
        replication: false,
        bypassrls: false,
        member_of: vec!["app_owner".to_owned()],
    }
}

fn requirements() -> Requirements {
    Requirements {
        format: FORMAT,
        server_version: 150_001,
        database: "crm".to_owned(),
        owner: "app_owner".to_owned(),
        locale: Locale {
            encoding: "UTF8".to_owned(),
            collate: "C.UTF-8".to_owned(),
            ctype: "C".to_owned(),
            provider: "c".to_owned(),
            icu_locale: None,
        },
        size_bytes: 1 << 20,
        tablespaces: vec![],
        extensions: vec![Extension { name: "hstore".to_owned(), version: "1.8".to_owned() }],
        roles: vec![role("app_owner"), role("app_reader")],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_findings_come_at_once() {
    let rig = rig("SELECT 1").await;
    let name = DatabaseName::parse("crm").expect("a name");
    let judge = async |wanted: &Requirements| {
        let bytes = payload::encode(wanted).expect("encode");
        let findings = rig.engine.preflight(&name, &bytes, None).await.expect("judge");
        findings.into_iter().map(|finding| (finding.code, finding.severity)).collect::<Vec<_>>()
    };
    assert_eq!(judge(&requirements()).await, []);
    let located = |change: fn(&mut Locale)| {
        let mut requirements = requirements();
        change(&mut requirements.locale);
        requirements
    };
    let icu = located(|locale| (locale.provider, locale.icu_locale) = ("i".to_owned(), Some("de-DE".to_owned())));
    assert_eq!(judge(&icu).await, []);
    let bad = Requirements {
        server_version: 160_000,
        size_bytes: 1 << 60,
        tablespaces: vec!["fast".to_owned(), "pg_default".to_owned()],
        extensions: vec![
            Extension { name: "hstore".to_owned(), version: "99.1".to_owned() },
            Extension { name: "postgis".to_owned(), version: "3.4".to_owned() },
            Extension { name: "citext".to_owned(), version: "what".to_owned() },
        ],
        roles: vec![role("app_owner"), role("missing")],
        ..located(|locale| locale.collate = "xx_XX.UTF-8".to_owned())
    };
    let mut found = judge(&bad).await;
    found.sort();
    let error = |code: &str| (code.to_owned(), Severity::Error);
    let mut expected = vec![
        error("EXTENSION_MISSING"),
        error("EXTENSION_OLDER"),
        error("LOCALE_MISSING"),
        error("NO_SPACE"),
        error("ROLE_MISSING"),
        error("SERVER_OLDER"),
        error("TABLESPACE_MISSING"),
        ("EXTENSION_DIFFERS".to_owned(), Severity::Warning),
    ];
    expected.sort();
    assert_eq!(found, expected);
    let encoding = located(|locale| locale.encoding = "KLINGON".to_owned());
    assert_eq!(judge(&encoding).await, [error("ENCODING_UNKNOWN")]);
    let format = Requirements { format: FORMAT + 1, ..requirements() };
    assert_eq!(judge(&format).await, [error("FORMAT_DIFFERS")]);
    let garbage = Bytes::from_static(b"\xff\x00garbage");
    assert!(matches!(rig.engine.preflight(&name, &garbage, None).await, Err(Error::Corrupt(_))));
    let left = "SELECT count(*) FROM pg_collation WHERE collname = 'causeway_try'";
    assert_eq!(rig.dest.value("postgres", left).await, "0");
    let long = DatabaseName::parse(&"x".repeat(64)).expect("a name");
    let findings = rig.engine.preflight(&long, &Bytes::new(), None).await.expect("judge");
    assert_eq!(findings[0].code, "NAME_TOO_LONG");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_and_names_are_judged() {
    let rig = rig("SELECT 1").await;
    rig.dest.run("postgres", "CREATE DATABASE crm").await;
    rig.dest
        .run(
            "postgres",
            "CREATE ROLE weak LOGIN; GRANT USAGE ON SCHEMA causeway TO weak;
        GRANT ALL ON ALL TABLES IN SCHEMA causeway TO weak",
        )
        .await;
    let name = DatabaseName::parse("crm").expect("a name");
    let codes = |findings: Vec<handover::Finding>| findings.into_iter().map(|finding| finding.code).collect::<Vec<_>>();
    let found = rig.engine.preflight(&name, &Bytes::new(), None).await.expect("judge");
    assert_eq!(codes(found), ["NAME_TAKEN"]);
    let found =
        rig.engine.preflight(&rig.role.database, &Bytes::new(), Some(&rig.role.operation)).await.expect("judge");
    assert_eq!(codes(found), Vec::<String>::new(), "an operation's own name is free for it");
    let mut setup = rig.dest.setup();
    setup.dsn = setup.dsn.replace("user=postgres", "user=weak dbname=postgres");
    let config = crate::postgres::PostgresConfig::new(setup).expect("good settings");
    let weak = crate::postgres::PostgresDest::new(config, std::sync::Arc::new(crate::host::RealHost));
    drop(rig.engine);
    weak.take_over().await.expect("take over");
    let wanted = payload::encode(&requirements()).expect("encode");
    let found = weak.preflight(&name, &wanted, None).await.expect("judge");
    assert_eq!(codes(found), ["NOT_SUPERUSER", "NAME_TAKEN"]);
}

/// Missing roles are created with the plan, and go again with a discard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_roles_are_created_where_that_is_allowed() {
    let mut rig = rig("SELECT 1").await;
    let mut seed = super::fixture::seed(&rig.source, 1).await;
    let mut header: payload::PlanHeader = payload::decode(&seed.plan.header).expect("decode");
    header.roles = vec![role("app_owner"), role("new \"role\"")];
    seed.plan.header = payload::encode(&header).expect("encode");
    let replica = rig.open().await;
    let refused = replica.plan(&seed.plan).await;
    assert!(matches!(refused, Err(Error::Unsupported { code: "ROLE_MISSING", .. })), "{refused:?}");
    let mut setup = rig.dest.setup();
    setup.create_missing_roles = true;
    let config = crate::postgres::PostgresConfig::new(setup).expect("good settings");
    rig.engine =
        std::sync::Arc::new(crate::postgres::PostgresDest::new(config, std::sync::Arc::new(crate::host::RealHost)));
    rig.engine.take_over().await.expect("take over");
    let wanted = payload::encode(&Requirements { roles: header.roles, ..requirements() }).expect("encode");
    let findings = rig.engine.preflight(&rig.role.database, &wanted, Some(&rig.role.operation)).await.expect("judge");
    assert_eq!(findings.iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["ROLE_CREATED", "ROLE_NOT_SUPERUSER"]);
    rig.open().await.plan(&seed.plan).await.expect("plan");
    let made = "SELECT rolcanlogin AND NOT rolsuper AND rolpassword IS NULL AND pg_has_role('new \"role\"', 'app_owner', 'member')
         FROM pg_authid WHERE rolname = 'new \"role\"'";
    assert_eq!(rig.dest.value("postgres", made).await, "t");
    rig.role.phase = handover::dest_role::Phase::Discarding;
    rig.engine.put_role(&rig.role).await.expect("record");
    rig.engine.discard(&rig.role).await.expect("discard");
    assert_eq!(rig.dest.value("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'new%'").await, "0");
}
