//! Check `tables`: every original table exists, with the columns that it had before the migration.
//!
//! Columns are compared by name and type. Defaults, policies and the like are for other checks, and a column more
//! than before does no harm.

use rollbackd_core::baseline::{Baseline, Catalog, Object, ObjectId, TableName};
use rollbackd_core::words::counted;

use crate::config::model::Database;
use crate::postgres::catalog::{self, column_type};
use crate::postgres::pinned::Pinned;

/// Compares the original tables with the baseline's; without one, looks that they exist.
pub(crate) async fn check(pinned: &Pinned, database: &Database, baseline: Option<&Baseline>) -> Result<String, String> {
    let session = pinned.session().await.map_err(|error| error.to_string())?;
    let now = catalog::read(session.client()).await.map_err(|failure| failure.to_string())?;
    compare(&database.original_tables, baseline.map(|baseline| &baseline.catalog), &now)
}

fn compare(originals: &[TableName], before: Option<&Catalog>, now: &Catalog) -> Result<String, String> {
    if originals.is_empty() {
        return Err("no original table is configured, so nothing was checked".to_owned());
    }
    let (mut problems, mut columns) = (Vec::new(), 0);
    for table in originals {
        if !now.has_table(table) {
            problems.push(format!("{table} is missing"));
            continue;
        }
        let Some(before) = before else { continue };
        if !before.has_table(table) {
            problems.push(format!("{table} is not in the baseline"));
        }
        for column in before.columns(table) {
            columns += 1;
            problems.extend(difference(table, column, definition(now, &column.id)));
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    let tables = counted(originals.len(), "original table");
    Ok(match before {
        Some(_) => format!("{tables} with {} as before", counted(columns, "column")),
        None => format!("{tables} exist; columns were not compared, because no baseline was taken"),
    })
}

fn difference(table: &TableName, column: &Object, now: Option<&str>) -> Option<String> {
    let name = &column.id.name;
    let was = column_type(&column.definition);
    match now.map(column_type) {
        None => Some(format!("{table} has no column {name} any more ({was})")),
        Some(is) if is != was => Some(format!("column {name} of {table} is {is}, and was {was}")),
        Some(_) => None,
    }
}

fn definition<'a>(catalog: &'a Catalog, id: &ObjectId) -> Option<&'a str> {
    let at = catalog.objects.binary_search_by(|object| object.id.cmp(id)).ok()?;
    catalog.objects.get(at).map(|object| object.definition.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::testing::Fixture;

    #[tokio::test]
    async fn every_difference_is_reported() {
        let fixture = Fixture::new().await;
        fixture
            .sql("create table profiles (id int, name varchar(10)); create table posts (\"Body\" text); create table comments ()")
            .await;
        let baseline = fixture.baseline().await;
        let database = fixture.database();
        let pinned = Pinned::new(&database);
        let held = check(&pinned, &database, Some(&baseline)).await.expect("as before");
        assert_eq!(held, "3 original tables with 3 columns as before");
        fixture.sql("alter table profiles alter name set default 'x', add more int; create table pages ()").await;
        check(&pinned, &database, Some(&baseline)).await.expect("a default and a column more are for other checks");
        fixture
            .sql("alter table profiles alter name type varchar(20); alter table posts rename \"Body\" to body; drop table comments")
            .await;
        let failed = check(&pinned, &database, Some(&baseline)).await.expect_err("differences");
        for part in [
            "column name of public.profiles is character varying(20), and was character varying(10)",
            "public.posts has no column Body any more (text)",
            "public.comments is missing",
        ] {
            assert!(failed.contains(part), "{part}: {failed}");
        }
        let failed = check(&pinned, &database, None).await.expect_err("one is missing");
        assert_eq!(failed, "public.comments is missing");
        fixture.sql("create table comments ()").await;
        assert!(check(&pinned, &database, None).await.expect("they exist").contains("no baseline"));
        let mut empty = database.clone();
        empty.original_tables.clear();
        check(&pinned, &empty, Some(&baseline)).await.expect_err("nothing was checked");
    }
}
