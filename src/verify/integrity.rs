//! Check `integrity`: the original tables hold the rows that they held before the migration, by each table's policy.
//!
//! An error while counting is a failure, and so is having nothing to count.

use std::collections::{BTreeMap, BTreeSet};

use rollbackd_core::baseline::{Baseline, TableName, counted};

use crate::config::model::{Database, IntegrityPolicy};
use crate::postgres::count;
use crate::postgres::pinned::Pinned;

/// Counts the original tables, and those that have a policy of their own, against the baseline.
pub(crate) async fn check(
    pinned: &Pinned,
    database: &Database,
    baseline: Option<&Baseline>,
    default: IntegrityPolicy,
    policies: &BTreeMap<TableName, IntegrityPolicy>,
) -> Result<String, String> {
    let baseline = baseline.ok_or("no baseline was taken, so there is nothing to compare with")?;
    let tables: BTreeSet<&TableName> = database.original_tables.iter().chain(policies.keys()).collect();
    let session = pinned.session().await.map_err(|error| error.to_string())?;
    let (mut held, mut problems) = (Vec::new(), Vec::new());
    for table in tables {
        let policy = policies.get(table).copied().unwrap_or(default);
        if policy == IntegrityPolicy::Ignore {
            continue;
        }
        let Some(before) = baseline.counts.iter().find(|count| count.table == *table).map(|count| count.rows) else {
            problems.push(format!("{table} was not counted for the baseline"));
            continue;
        };
        match count::rows(session.client(), table).await {
            Ok(now) => match judge(policy, before, now) {
                None => held.push(format!("{table} {now}")),
                Some(wanted) => problems.push(format!("{table} has {now} rows, {wanted} {before}")),
            },
            Err(failure) => problems.push(failure.to_string()),
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    if held.is_empty() {
        return Err("every table is ignored, so nothing was checked".to_owned());
    }
    Ok(format!("{} counted: {}", counted(held.len(), "table"), held.join(", ")))
}

/// What was wanted, when it does not hold.
const fn judge(policy: IntegrityPolicy, before: u64, now: u64) -> Option<&'static str> {
    match policy {
        IntegrityPolicy::GrowOnly if now < before => Some("and must have at least"),
        IntegrityPolicy::Exact if now != before => Some("and must have exactly"),
        IntegrityPolicy::GrowOnly | IntegrityPolicy::Exact | IntegrityPolicy::Ignore => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::testing::Fixture;

    #[test]
    fn policies() {
        for (policy, now, holds) in [
            (IntegrityPolicy::GrowOnly, 9, false),
            (IntegrityPolicy::GrowOnly, 10, true),
            (IntegrityPolicy::GrowOnly, 11, true),
            (IntegrityPolicy::Exact, 9, false),
            (IntegrityPolicy::Exact, 10, true),
            (IntegrityPolicy::Exact, 11, false),
            (IntegrityPolicy::Ignore, 0, true),
        ] {
            assert_eq!(judge(policy, 10, now).is_none(), holds, "{policy:?} {now}");
        }
    }

    #[tokio::test]
    async fn counts_are_exact_and_errors_are_failures() {
        let fixture = Fixture::new().await;
        fixture
            .sql(
                "create table profiles (id int); create table posts (id int); create table comments (id int);
                  insert into posts values (1), (2); insert into comments values (1)",
            )
            .await;
        let baseline = fixture.baseline().await;
        let database = fixture.database();
        let pinned = Pinned::new(&database);
        let none = BTreeMap::new();
        let grow = IntegrityPolicy::GrowOnly;
        let held = check(&pinned, &database, Some(&baseline), grow, &none).await.expect("as before");
        assert_eq!(held, "3 tables counted: public.comments 1, public.posts 2, public.profiles 0");
        fixture.sql("insert into comments values (2); delete from posts where id = 1; drop table profiles").await;
        let exact = BTreeMap::from([(TableName::new("public", "comments"), IntegrityPolicy::Exact)]);
        let failed = check(&pinned, &database, Some(&baseline), grow, &exact).await.expect_err("differences");
        for part in [
            "public.comments has 2 rows, and must have exactly 1",
            "public.posts has 1 rows, and must have at least 2",
            "counting the rows of public.profiles failed",
        ] {
            assert!(failed.contains(part), "{part}: {failed}");
        }
        let unknown = BTreeMap::from([(TableName::new("public", "pages"), grow)]);
        let failed =
            check(&pinned, &database, Some(&baseline), IntegrityPolicy::Ignore, &unknown).await.expect_err("unknown");
        assert_eq!(failed, "public.pages was not counted for the baseline");
        let failed =
            check(&pinned, &database, Some(&baseline), IntegrityPolicy::Ignore, &none).await.expect_err("nothing");
        assert!(failed.contains("nothing was checked"), "{failed}");
        let failed = check(&pinned, &database, None, grow, &none).await.expect_err("no baseline");
        assert!(failed.contains("no baseline"), "{failed}");
    }
}
