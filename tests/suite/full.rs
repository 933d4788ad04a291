//! The server has no connection left when it is needed most.

use crate::endings::BREAKING;
use crate::stage::{Stage, runtime, until};

/// An application that takes every connection it can get, again and again.
struct Crowd {
    task: tokio::task::JoinHandle<()>,
    refused: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

impl Crowd {
    fn gather(stage: &Stage) -> Self {
        let refused = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let (url, counted) = (stage.database.url().to_owned(), std::sync::Arc::clone(&refused));
        let task = runtime().spawn(async move {
            let mut clients = Vec::new();
            let mut connections = tokio::task::JoinSet::new();
            loop {
                match tokio_postgres::connect(&url, tokio_postgres::NoTls).await {
                    Ok((client, connection)) => {
                        clients.push(client);
                        connections.spawn(connection);
                    }
                    Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::TOO_MANY_CONNECTIONS) => {
                        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        Self { task, refused }
    }

    /// Waits until it was refused so many more times.
    fn is_refused(&self, more: u32) {
        let refused = || self.refused.load(std::sync::atomic::Ordering::SeqCst);
        let wanted = refused() + more;
        until("the server is full", || refused() >= wanted);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The sessions of rollbackd that stay open.
fn kept(stage: &Stage) -> String {
    stage.database.value(
        "select count(*) from pg_stat_activity where application_name = 'rollbackd' and usename = current_user
         and backend_start < clock_timestamp() - interval '1 s'",
    )
}

#[test]
fn a_rollback_goes_through_on_a_server_that_is_full() {
    let mut stage = Stage::alone("full");
    let superuser = stage.database.superuser();
    superuser.sql("alter system set max_connections = 25");
    let owner = stage.database.value("select quote_ident(current_user)");
    superuser.sql(&format!(
        "create role full_web login; create role full_rest login; alter role {owner} createrole;
         do $$ begin execute format('grant create on database %I to {owner}', current_database()); end $$;
         grant set on parameter pgrst.db_pre_request to {owner}; grant pg_signal_backend to {owner}"
    ));
    // Gates in the database work through the kept sessions too.
    stage.plan.gates.push_str(
        "\n[[rollback.gate]]\nname = \"web\"\nrequired = true\n[rollback.gate.postgres_sessions]\nroles = [\"full_web\"]\n\
         [[rollback.gate]]\nname = \"rest\"\nrequired = true\n[rollback.gate.postgrest]\nrole = \"full_rest\"\n",
    );
    stage.restart_server();
    let daemon = stage.daemon();
    stage.cli(&["window", "open"]).expect(0);
    stage.wait_for_state("watching");
    until("two sessions are kept", || kept(&stage) == "2");

    // The next life opens them at once, and not only when it needs them.
    daemon.kill().expect(137);
    until("they are gone", || kept(&stage) == "0");
    let daemon = stage.daemon();
    until("two sessions are kept again", || kept(&stage) == "2");

    let crowd = Crowd::gather(&stage);
    crowd.is_refused(1);
    stage.database.sql(BREAKING);
    stage.wait_for_state("recovered");
    crowd.is_refused(1);
    let full = stage.cli(&["verify"]).expect(1);
    assert!(full.stdout.contains("SQLSTATE 53300"), "nobody else gets in: {}", full.stdout);
    drop(crowd);

    until("they are closed with the window", || kept(&stage) == "0");
    daemon.term().expect(0);
    let report = stage.report();
    assert_eq!(report["outcome"], "recovered", "{report:#}");
    let gates = report["gates"].as_array().unwrap();
    assert_eq!(gates.len(), 3, "{gates:#?}");
    assert!(gates.iter().all(|gate| gate["position"] == "reopened" && gate["failure"].is_null()), "{gates:#?}");
    assert_eq!(stage.database.value("select rolcanlogin from pg_roles where rolname = 'full_web'"), "t");
    assert!(stage.new_tables().iter().all(|table| table.starts_with("rollbackd_20")), "{:?}", stage.new_tables());
    stage.assert_originals_whole();
}
