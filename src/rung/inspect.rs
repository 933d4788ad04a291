//! Reads the catalog and compares it with the baseline. A script's exit code is a claim; this is the fact.

use std::time::Duration;

use rollbackd_core::baseline::{Baseline, Catalog, Difference, RowCount};
use rollbackd_core::reversal::{Act, Deed, Reach, reversal};
use rollbackd_core::run::step::{Finding, Moment, Outcome};
use tokio_postgres::GenericClient;

use super::Patience;
use crate::config::model::Config;
use crate::postgres::pinned::Pinned;
use crate::postgres::{Failure, catalog, count, restored};

/// How long counting the rows of new tables may take. What was not counted is said to be so.
const COUNTING: Duration = Duration::from_secs(5);

/// Compares now with the baseline; before a rung acts, the rows of the new tables are counted too. A database that is
/// down is tried again until `within` is nearly spent.
pub async fn run(config: &Config, pinned: &Pinned, baseline: &Baseline, moment: Moment, within: Duration) -> Outcome {
    if let Some(reason) = baseline.is_too_old() {
        return Outcome::failed(reason);
    }
    let mut patience = Patience::new(within);
    loop {
        let session = match patience.connect(pinned).await {
            Ok(session) => session,
            Err(error) => return Outcome::failed(format!("the catalog could not be read: {error}")),
        };
        let look = async {
            let known = restored::known(session.client(), baseline).await?;
            Ok::<_, Failure>((known, catalog::read(session.client()).await?))
        };
        let failure = match tokio::time::timeout(patience.left(), look).await {
            Ok(Ok((baseline, now))) => {
                let difference = baseline.catalog.difference(&now, &config.database.protected_schemas);
                let rows = match moment {
                    Moment::Before => rows(session.client(), &difference, patience.left().min(COUNTING)).await,
                    Moment::After => Vec::new(),
                };
                let way_back = way_back(config, &baseline, &now);
                let found = Finding::Difference { difference: difference.clone(), rows, way_back, restore: Vec::new() };
                return Outcome::succeeded(difference.summary(), found);
            }
            Ok(Err(failure)) => failure,
            Err(_elapsed) => {
                let seconds = within.as_secs_f64();
                return Outcome::timed_out(format!("the catalog could not be read within {seconds:.1} s"));
            }
        };
        if !may_pass(&failure) || !patience.pause().await {
            return Outcome::failed(failure.to_string());
        }
    }
}

fn may_pass(failure: &Failure) -> bool {
    failure.is_lost() || failure.is_lock_timeout() || failure.is_statement_timeout() || failure.is_moving_catalog()
}

/// The rows of the new tables, as far as they can be counted in time. A table that cannot be read is not counted.
async fn rows(client: &impl GenericClient, difference: &Difference, within: Duration) -> Vec<RowCount> {
    let mut counts = Vec::new();
    let counting = async {
        for table in difference.added_tables() {
            if let Ok(rows) = count::rows(client, &table).await {
                counts.push(RowCount { table, rows });
            }
        }
    };
    // Too many rows are no failure: those that were counted are known.
    drop(tokio::time::timeout(within, counting).await);
    counts
}

/// The statements with which a person puts back what was redefined. What was added by itself is moved away, not dropped:
/// it may be needed by what is moved.
fn way_back(config: &Config, baseline: &Baseline, now: &Catalog) -> Vec<String> {
    let found = reversal(&baseline.catalog, now, &config.database.protected_schemas, Reach::Everything);
    let by_itself = |act: &Act| act.deed == Deed::Remove && act.id.of.is_none();
    found.acts.into_iter().filter(|act| !by_itself(act)).flat_map(|act| act.sql).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cluster::{Cluster, Stop};
    use crate::postgres::testing::{self, Fixture};

    #[tokio::test]
    async fn what_the_migration_did_is_found() {
        let fixture = Fixture::new().await;
        fixture.sql("create table posts (id int); create schema auth").await;
        let baseline = fixture.baseline().await;
        fixture
            .sql("create table pages (id int primary key); create table auth.users (); alter table posts add x int")
            .await;
        let pinned = Pinned::new(&fixture.database());
        let outcome = run(&fixture.config(), &pinned, &baseline, Moment::Before, Duration::from_secs(20)).await;
        assert_eq!(outcome.detail, "1 table added, 1 column added");
        assert!(outcome.is_success());
    }

    #[tokio::test]
    async fn a_server_that_comes_back_is_waited_for_and_one_that_does_not_is_reported() {
        let directory = tempfile::Builder::new().prefix("rollbackd-").tempdir_in("/tmp").expect("a directory");
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("rights");
        let mut cluster = Cluster::start(&directory.path().join("c")).await.expect("a server");
        let config = testing::config(testing::database(&cluster.url("postgres")), directory.path().to_owned());
        let baseline = Baseline {
            format: Baseline::FORMAT,
            at: jiff::Timestamp::UNIX_EPOCH,
            server_version: String::new(),
            catalog: Catalog::default(),
            counts: Vec::new(),
            identities: Vec::new(),
            prints: Vec::new(),
        };
        let pinned = Pinned::new(&config.database);
        cluster.stop(Stop::Immediate).await.expect("stops");
        let outcome = run(&config, &pinned, &baseline, Moment::Before, Duration::from_secs(1)).await;
        assert!(!outcome.is_success());
        assert!(outcome.detail.contains("cannot be reached"), "{}", outcome.detail);
        let (outcome, started) = tokio::join!(
            run(&config, &pinned, &baseline, Moment::Before, Duration::from_secs(60)),
            cluster.start_again()
        );
        started.expect("starts");
        assert!(outcome.is_success(), "{}", outcome.detail);
    }
}
