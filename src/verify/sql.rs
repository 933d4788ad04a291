//! Check `sql`: the project's own query must return one row with one value, and that must be true.
//!
//! It runs read-only, with the role's own `search_path`, so that it means what it means in psql.

use futures_util::{StreamExt as _, pin_mut};
use tokio_postgres::types::Type;

use crate::postgres::Failure;
use crate::postgres::pinned::Pinned;
use crate::postgres::session::Manner;

/// Runs the query.
pub(crate) async fn check(pinned: &Pinned, query: &str) -> Result<String, String> {
    let mut session = pinned.session_for(Manner::Users).await.map_err(|error| error.to_string())?;
    let failed = |error: tokio_postgres::Error| Failure::new("the query", &error).to_string();
    let transaction = session.client_mut().build_transaction().read_only(true).start().await.map_err(failed)?;
    let statement = transaction.prepare(query).await.map_err(failed)?;
    match statement.columns() {
        [column] if *column.type_() == Type::BOOL => {}
        [column] => return Err(format!("the query returns {}, and must return one boolean", column.type_().name())),
        columns => return Err(format!("the query returns {} columns, and must return one boolean", columns.len())),
    }
    let parameters: [&str; 0] = [];
    let rows = transaction.query_raw(&statement, parameters).await.map_err(failed)?;
    pin_mut!(rows);
    let Some(first) = rows.next().await else { return Err("the query returned no row".to_owned()) };
    let value: Option<bool> = first.and_then(|row| row.try_get(0)).map_err(failed)?;
    // A second row is enough to know; the rest is not fetched.
    match rows.next().await {
        None => {}
        Some(Ok(_)) => return Err("the query returned more than one row".to_owned()),
        Some(Err(error)) => return Err(failed(error)),
    }
    match value {
        Some(true) => Ok("the query returned true".to_owned()),
        Some(false) => Err("the query returned false".to_owned()),
        None => Err("the query returned null".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::testing::Fixture;

    #[tokio::test]
    async fn only_one_true_is_true() {
        let fixture = Fixture::new().await;
        fixture.sql("create table posts (id int); insert into posts values (1)").await;
        let pinned = Pinned::new(&fixture.database());
        check(&pinned, "select count(*) = 1 from posts").await.expect("true");
        for (query, why) in [
            ("select count(*) = 2 from posts", "false"),
            ("select null::boolean", "null"),
            ("select true where false", "no row"),
            ("select true from generate_series(1, 1000000)", "more than one row"),
            ("select 1", "returns int4"),
            ("select true, true", "2 columns"),
            ("delete from posts", "0 columns"),
            ("with gone as (delete from posts returning id) select count(*) = 1 from gone", "25006"),
            ("select true from no_such_table", "42P01"),
            ("select id = 'secret-value'::int from posts", "22P02"),
        ] {
            let failed = check(&pinned, query).await.expect_err(query);
            assert!(failed.contains(why), "{why}: {failed}");
            assert!(!failed.contains("secret-value"), "{failed}");
        }
        assert_eq!(fixture.number("select count(*) from posts").await, 1);
    }
}
