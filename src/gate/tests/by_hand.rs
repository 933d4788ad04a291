//! What a person is told to type does what the gate does.

use super::*;
use crate::postgres::testing::Fixture;

/// The two texts for a gate of this kind, without what says where they are typed.
fn told(fixture: &Fixture, kind: GateKind) -> (Gate, String, String) {
    let mut config = fixture.config();
    config.rollback.gates = vec![Gate { timeout: Duration::from_secs(10), ..gate(kind, None) }];
    let plan = config.plan("guard-1").rollback.gates.remove(0);
    let sql = |text: &str| text.strip_prefix("in psql: ").unwrap().to_owned();
    (config.rollback.gates.remove(0), sql(&plan.manual_stop), sql(&plan.manual_start))
}

async fn prior(gate: &Gate, fixture: &Fixture) -> String {
    let outcome = super::super::read(gate, &Pinned::new(&fixture.database()), LONG).await;
    let Finding::Gate { prior } = outcome.finding else { panic!("{outcome:?}") };
    prior
}

#[tokio::test]
async fn the_statements_stop_and_start() {
    let fixture = Fixture::new().await;
    fixture.sql(r#"create role "by hand: it's \ 🚀" login password 'sesame'; create role by_hand_rest login"#).await;
    let sessions = GateKind::PostgresSessions { roles: vec![r"by hand: it's \ 🚀".to_owned()] };
    for kind in [sessions, GateKind::Postgrest { role: "by_hand_rest".to_owned() }] {
        let (gate, stop, start) = told(&fixture, kind);
        let found = prior(&gate, &fixture).await;
        assert!(!is_left_closed(&gate, &found));
        fixture.sql(&stop).await;
        assert!(is_left_closed(&gate, &prior(&gate, &fixture).await), "{stop}");
        fixture.sql(&start).await;
        assert_eq!(prior(&gate, &fixture).await, found, "{start}");
    }
    assert_eq!(fixture.number("select count(*) from pg_namespace where nspname = 'rollbackd_gate'").await, 0);
}
