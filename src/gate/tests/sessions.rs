//! Roles and sessions of a real server.

use rollbackd_core::baseline::quote_identifier;

use super::*;
use crate::postgres::session::{ConnectError, Session};
use crate::postgres::testing::Fixture;

const SECOND: Duration = Duration::from_secs(1);

fn sessions_gate(roles: &[&str]) -> Gate {
    let roles = roles.iter().map(|&role| role.to_owned()).collect();
    Gate { timeout: 10 * SECOND, ..gate(GateKind::PostgresSessions { roles }, None) }
}

async fn login(fixture: &Fixture, role: &str) -> Result<Session, ConnectError> {
    let database = testing::database(&fixture.cluster.url_as(role, "sesame", &fixture.name));
    Session::connect_to(&database.url, &database.tls, 10 * SECOND, 10 * SECOND).await
}

async fn make(fixture: &Fixture, role: &str, more: &str) {
    fixture.sql(&format!("create role {} password 'sesame' {more}", quote_identifier(role))).await;
}

async fn prior_of(gate: &Gate, fixture: &Fixture) -> String {
    let outcome = super::super::read(gate, &Pinned::new(&fixture.database()), LONG).await;
    assert_succeeded(&outcome);
    let Finding::Gate { prior } = outcome.finding else { panic!("{outcome:?}") };
    prior
}

async fn close(gate: &Gate, fixture: &Fixture, prior: &str) -> Outcome {
    super::super::close(gate, &Pinned::new(&fixture.database()), prior, LONG).await
}

async fn open(gate: &Gate, fixture: &Fixture, prior: &str) -> Outcome {
    super::super::open(gate, &Pinned::new(&fixture.database()), prior, LONG).await
}

async fn can_login(fixture: &Fixture, role: &str) -> bool {
    let name = crate::postgres::literal(role);
    fixture.number(&format!("select rolcanlogin::int::int8 from pg_roles where rolname = {name}")).await == 1
}

async fn sessions_of(fixture: &Fixture, role: &str) -> i64 {
    let name = crate::postgres::literal(role);
    fixture.number(&format!("select count(*) from pg_stat_activity where usename = {name}")).await
}

#[tokio::test]
async fn the_named_roles_are_out_and_come_back_however_often() {
    let fixture = Fixture::new().await;
    let names = ["gate \"app\" 🚀", "gate'user", "select", "gate\\back"];
    for name in names {
        make(&fixture, name, "login").await;
    }
    make(&fixture, "gate_other", "login").await;
    let gate = sessions_gate(&names);
    let held: Vec<Session> = futures_util::future::join_all(names.map(|name| login(&fixture, name)))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    // One is in the middle of a transaction, and one waits for a lock of a session that stays.
    held[0].client().batch_execute("begin; select pg_advisory_xact_lock(4710)").await.unwrap();
    let other = login(&fixture, "gate_other").await.unwrap();
    other.client().batch_execute("select pg_advisory_lock(4711)").await.unwrap();
    let waiting = held[1].client().query("select pg_advisory_lock(4711)", &[]);
    let said = rehearse(&gate, &Pinned::new(&fixture.database()), LONG).await.unwrap();
    assert!(said.contains("can be kept from it; 4 sessions now"), "{said}");

    let prior = prior_of(&gate, &fixture).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&prior).unwrap()["roles"][0]["role"], names[0]);
    let (closed, waited) = tokio::join!(close(&gate, &fixture, &prior), waiting);
    assert_succeeded(&closed);
    assert!(closed.detail.contains("4 sessions of theirs ended, none is left"), "{}", closed.detail);
    assert!(waited.is_err());
    assert_succeeded(&close(&gate, &fixture, &prior).await);
    for (name, session) in names.iter().zip(&held) {
        assert!(session.client().simple_query("select 1").await.is_err(), "{name} was ended");
        assert_eq!(sessions_of(&fixture, name).await, 0);
        let refused = login(&fixture, name).await.unwrap_err();
        assert!(refused.to_string().contains("28000"), "{refused}");
    }
    other.client().simple_query("select 1").await.expect("who is not named stays");
    login(&fixture, "gate_other").await.expect("and may come");

    for _ in 0..2 {
        assert_succeeded(&open(&gate, &fixture, &prior).await);
        for name in names {
            login(&fixture, name).await.expect("is back");
        }
    }
}

#[tokio::test]
async fn clients_that_connect_all_the_while_do_not_get_through() {
    let fixture = Fixture::new().await;
    make(&fixture, "gate_busy", "login").await;
    let url = fixture.cluster.url_as("gate_busy", "sesame", &fixture.name);
    let mut clients = JoinSet::new();
    for _ in 0..3 {
        let database = testing::database(&url);
        clients.spawn(async move {
            loop {
                let come = Session::connect_bare(&database.url, &database.tls, 10 * SECOND).await;
                if let Ok(session) = come {
                    drop(session.client().simple_query("select pg_sleep(0.05)").await);
                }
            }
        });
    }
    let watcher = fixture.session().await;
    let there = async || -> i64 {
        let sql = "select count(*) from pg_stat_activity where usename = 'gate_busy'";
        watcher.client().query_one(sql, &[]).await.unwrap().get(0)
    };
    let busy = async {
        while there().await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, busy).await.expect("they are at work");
    let gate = sessions_gate(&["gate_busy"]);
    let prior = prior_of(&gate, &fixture).await;
    assert_succeeded(&close(&gate, &fixture, &prior).await);
    for _ in 0..50 {
        assert_eq!(there().await, 0);
    }
    assert_succeeded(&open(&gate, &fixture, &prior).await);
    let back = async {
        while there().await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, back).await.expect("they are back at work");
}

#[tokio::test]
async fn what_was_found_is_put_back_and_not_a_default() {
    let fixture = Fixture::new().await;
    make(&fixture, "gate_shut", "nologin").await;
    make(&fixture, "gate_open", "login connection limit 7").await;
    let gate = sessions_gate(&["gate_shut", "gate_open"]);
    let prior = prior_of(&gate, &fixture).await;
    // A crash may come before, in the middle of, or after any of it: opening alone must do.
    assert_succeeded(&open(&gate, &fixture, &prior).await);
    fixture.sql("alter role gate_open nologin").await;
    assert_succeeded(&open(&gate, &fixture, &prior).await);
    assert_succeeded(&close(&gate, &fixture, &prior).await);
    assert!(!can_login(&fixture, "gate_open").await);
    assert_succeeded(&open(&gate, &fixture, &prior).await);
    assert!(can_login(&fixture, "gate_open").await && !can_login(&fixture, "gate_shut").await);
    let limit = "select rolconnlimit::int8 from pg_roles where rolname = 'gate_open'";
    assert_eq!(fixture.number(limit).await, 7);
    assert!(!is_left_closed(&gate, &prior));

    // Somebody else had it closed: it stays so, and the canary is not asked to answer.
    let shut = sessions_gate(&["gate_shut"]);
    let shut = Gate { canary: Some(address(&format!("http://{}/", closed_port().await))), ..shut };
    let prior = prior_of(&shut, &fixture).await;
    assert_succeeded(&close(&shut, &fixture, &prior).await);
    assert_succeeded(&open(&shut, &fixture, &prior).await);
    assert!(!can_login(&fixture, "gate_shut").await);
    let refused = rehearse(&shut, &Pinned::new(&fixture.database()), LONG).await.unwrap_err();
    assert!(refused.contains("role \"gate_shut\" may not log in, so stopping it stops nothing"), "{refused}");
}

#[tokio::test]
async fn roles_that_must_not_be_stopped_are_refused_before_anything_changes() {
    let fixture = Fixture::new().await;
    make(&fixture, "gate_fine", "login").await;
    make(&fixture, "gate_super", "login superuser").await;
    let gate = sessions_gate(&["gate_fine", "postgres", "gate_super", "gate_nobody"]);
    let prior = r#"{"roles":[{"role":"gate_fine","login":true}]}"#;
    let read = super::super::read(&gate, &Pinned::new(&fixture.database()), LONG).await;
    let closed = close(&gate, &fixture, prior).await;
    let tried = rehearse(&gate, &Pinned::new(&fixture.database()), LONG).await.unwrap_err();
    for said in [&read.detail, &closed.detail, &tried] {
        for part in [
            "role \"postgres\" is the one with which rollbackd itself connects",
            "role \"gate_super\" is a superuser",
            "role \"gate_nobody\" does not exist",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("gate_fine"), "{said}");
    }
    assert!(!read.is_success() && !closed.is_success());
    assert!(can_login(&fixture, "gate_fine").await);
    let odd = close(&sessions_gate(&["gate_fine"]), &fixture, "absent").await;
    assert!(!odd.is_success() && odd.detail.contains("cannot be understood"), "{odd:?}");
    assert!(can_login(&fixture, "gate_fine").await, "nothing is changed that cannot be put back");
}

#[tokio::test]
async fn a_role_that_has_gone_is_said_and_the_others_come_back() {
    let fixture = Fixture::new().await;
    make(&fixture, "gate_stays", "login").await;
    make(&fixture, "gate_goes", "login").await;
    let gate = sessions_gate(&["gate_goes", "gate_stays"]);
    let prior = prior_of(&gate, &fixture).await;
    assert_succeeded(&close(&gate, &fixture, &prior).await);
    fixture.sql("drop role gate_goes").await;
    let opened = open(&gate, &fixture, &prior).await;
    assert!(opened.detail.contains("role \"gate_goes\" does not exist any more"), "{opened:?}");
    assert!(!opened.is_success() && can_login(&fixture, "gate_stays").await);
}

#[tokio::test]
async fn the_rights_that_are_missing_are_named() {
    let fixture = Fixture::new().await;
    make(&fixture, "gate_app", "login").await;
    make(&fixture, "gate_weak", "login").await;
    let weak = testing::database(&fixture.cluster.url_as("gate_weak", "sesame", &fixture.name));
    let gate = sessions_gate(&["gate_app"]);
    let prior = prior_of(&gate, &fixture).await;
    let refused = rehearse(&gate, &Pinned::new(&weak), LONG).await.unwrap_err();
    assert!(refused.contains("needs CREATEROLE"), "{refused}");
    let refused = super::super::close(&gate, &Pinned::new(&weak), &prior, LONG).await;
    assert!(!refused.is_success() && refused.detail.contains("needs CREATEROLE"), "{refused:?}");

    fixture.sql("alter role gate_weak createrole").await;
    if fixture.number("select current_setting('server_version_num')::int8").await >= 160_000 {
        fixture.sql("grant gate_app to gate_weak with admin option, inherit false").await;
    }
    let refused = rehearse(&gate, &Pinned::new(&weak), LONG).await.unwrap_err();
    assert!(refused.contains("may not end sessions: GRANT pg_signal_backend"), "{refused}");
    let _held = login(&fixture, "gate_app").await.unwrap();
    let half = super::super::close(&gate, &Pinned::new(&weak), &prior, LONG).await;
    assert!(!half.is_success() && half.detail.contains("ending the application's sessions failed"), "{half:?}");
    assert!(!can_login(&fixture, "gate_app").await, "half of it is done");
    assert_succeeded(&super::super::open(&gate, &Pinned::new(&weak), &prior, LONG).await);
    assert!(can_login(&fixture, "gate_app").await, "and that is undone");

    fixture.sql("grant pg_signal_backend to gate_weak").await;
    rehearse(&gate, &Pinned::new(&weak), LONG).await.expect("it has what it needs");
    assert!(can_login(&fixture, "gate_app").await, "trying changes nothing");
    assert_succeeded(&super::super::close(&gate, &Pinned::new(&weak), &prior, LONG).await);
    assert_eq!(sessions_of(&fixture, "gate_app").await, 0);
    assert_succeeded(&super::super::open(&gate, &Pinned::new(&weak), &prior, LONG).await);
}

#[tokio::test]
async fn sessions_in_other_databases_stay() {
    let (fixture, elsewhere) = (Fixture::new().await, Fixture::new().await);
    make(&fixture, "gate_both", "login").await;
    let kept = login(&elsewhere, "gate_both").await.unwrap();
    let gate = sessions_gate(&["gate_both"]);
    let said = rehearse(&gate, &Pinned::new(&fixture.database()), LONG).await.unwrap();
    assert!(said.contains("0 sessions now; in other databases of the server it has 1 session, which stay"), "{said}");
    let prior = prior_of(&gate, &fixture).await;
    assert_succeeded(&close(&gate, &fixture, &prior).await);
    kept.client().simple_query("select 1").await.expect("another database's session");
    assert_succeeded(&open(&gate, &fixture, &prior).await);
}
