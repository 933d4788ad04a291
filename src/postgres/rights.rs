//! What a rollback will need of the database, asked before there is anything to roll back.
//!
//! Whether the new tables will be ours cannot be known: they are not there yet. What is said about it is taken from who
//! owns the original tables.

use rollbackd_core::baseline::TableName;
use rollbackd_core::plan::{Dispose, OnBlocked};
use tokio_postgres::GenericClient;

use super::{Failure, during, literal};
use crate::config::model::{Config, Method, SignalSource};

const DOING: &str = "asking for the role's rights";
/// How many statements must see one and the same session.
const LOOKS: u32 = 4;

/// Checks everything, and names all that is missing at once.
pub async fn check(client: &impl GenericClient, config: &Config) -> Result<String, String> {
    let mut problems = Vec::new();
    let asked = ask(client, config, &mut problems).await;
    match asked {
        Ok(note) if problems.is_empty() => Ok(note),
        Ok(_) => Err(problems.join("; ")),
        Err(failure) => {
            problems.push(failure.to_string());
            Err(problems.join("; "))
        }
    }
}

async fn ask(client: &impl GenericClient, config: &Config, problems: &mut Vec<String>) -> Result<String, Failure> {
    pooler(client, problems).await?;
    let database = &config.database;
    let (mut quarantines, mut terminates) = (false, false);
    for rung in &config.rollback.rungs {
        match &rung.method {
            // What a script of the project's own needs, only the project knows.
            Method::Script { .. } | Method::Sql { .. } => {}
            Method::Tables { dispose, on_blocked, .. } => {
                quarantines |= *dispose == Dispose::Quarantine;
                terminates |= *on_blocked == OnBlocked::Terminate;
            }
        }
    }
    let schema = literal(&database.schema);
    let questions = [
        (true, "not pg_is_in_recovery()".to_owned(), "the server is a standby; connect to the primary".to_owned()),
        (
            true,
            "coalesce((select reset_val <> 'on' from pg_settings where name = 'default_transaction_read_only'), true)"
                .to_owned(),
            "transactions are read-only by default (default_transaction_read_only)".to_owned(),
        ),
        (
            quarantines,
            "has_database_privilege(current_database(), 'create')".to_owned(),
            "the role may not create a schema, which `dispose = \"quarantine\"` needs; GRANT CREATE ON DATABASE to it"
                .to_owned(),
        ),
        (
            true,
            format!(
                "coalesce((select has_schema_privilege(oid, 'usage') and has_schema_privilege(oid, 'create') from pg_namespace where nspname = {schema}), false)"
            ),
            format!("schema {} is missing, or the role lacks USAGE and CREATE on it", database.schema),
        ),
        (
            terminates,
            "(select rolsuper from pg_roles where rolname = current_user) or pg_has_role('pg_signal_backend', 'usage')"
                .to_owned(),
            "the role may not end sessions, which `on_blocked = \"terminate\"` needs; GRANT pg_signal_backend to it"
                .to_owned(),
        ),
    ];
    for (_, question, problem) in questions.into_iter().filter(|(asked, _, _)| *asked) {
        if !holds(client, &question).await? {
            problems.push(problem);
        }
    }
    let mut owned = true;
    for table in &database.original_tables {
        owned &= original(client, table, problems).await?;
    }
    let tie = if owned { "a member of" } else { "not a member of" };
    let count = database.original_tables.len();
    Ok(format!("the role may do what the ladder needs; it reads all {count} original tables and is {tie} their owner"))
}

async fn holds(client: &impl GenericClient, question: &str) -> Result<bool, Failure> {
    let row = client.query_one(&format!("select {question}"), &[]).await.map_err(during(DOING))?;
    row.try_get(0).map_err(during(DOING))
}

/// Whether an original table can be read in full. Gives back whether the role is its owner or a member of it.
async fn original(client: &impl GenericClient, table: &TableName, problems: &mut Vec<String>) -> Result<bool, Failure> {
    let sql = "select has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select'), \
                 c.relrowsecurity and pg_has_role(c.relowner, 'usage') and not c.relforcerowsecurity or not c.relrowsecurity \
                   or (select rolsuper or rolbypassrls from pg_roles where rolname = current_user), \
                 pg_has_role(c.relowner, 'usage') \
               from pg_class c join pg_namespace n on n.oid = c.relnamespace \
               where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p', 'f')";
    let Some(row) = client.query_opt(sql, &[&table.schema, &table.name]).await.map_err(during(DOING))? else {
        problems.push(format!("original table {table} does not exist"));
        return Ok(true);
    };
    let (reads, whole, owned): (bool, bool, bool) = (
        row.try_get(0).map_err(during(DOING))?,
        row.try_get(1).map_err(during(DOING))?,
        row.try_get(2).map_err(during(DOING))?,
    );
    if !reads {
        problems.push(format!("the role may not read {table}"));
    }
    if !whole {
        problems
            .push(format!("row security hides rows of {table} from the role; use its owner, or a role with BYPASSRLS"));
    }
    Ok(owned)
}

/// What a session needs is that one statement sees what another has set. A pooler that shows itself was refused when we
/// connected; this is for one that passes the server's own key on.
async fn pooler(client: &impl GenericClient, problems: &mut Vec<String>) -> Result<(), Failure> {
    let token = format!("{:016x}", rand::random::<u64>());
    let set = format!("set rollbackd.probe = {}", literal(&token));
    client.batch_execute(&set).await.map_err(during(DOING))?;
    let mut first = None;
    for _ in 0..LOOKS {
        let sql = "select pg_backend_pid(), coalesce(current_setting('rollbackd.probe', true), '')";
        let row = client.query_one(sql, &[]).await.map_err(during(DOING))?;
        let pid: i32 = row.try_get(0).map_err(during(DOING))?;
        let seen: String = row.try_get(1).map_err(during(DOING))?;
        if seen != token || *first.get_or_insert(pid) != pid {
            problems.push(super::pooler::REFUSED.to_owned());
            break;
        }
    }
    client.batch_execute("reset rollbackd.probe").await.map_err(during(DOING))
}

/// What will be missing when the server has no connection left, or the role may not have as many as it takes. `None`:
/// nothing.
pub async fn room(client: &impl GenericClient, config: &Config) -> Result<Option<String>, Failure> {
    let sql = "select r.rolsuper, r.rolconnlimit, \
                 coalesce(current_setting('reserved_connections', true)::int4, 0) > 0 and coalesce( \
                   (select pg_has_role(session_user, oid, 'usage') from pg_roles where rolname = 'pg_use_reserved_connections'), false), \
                 current_setting('server_version_num')::int4 >= 160000 \
               from pg_roles r where r.rolname = session_user";
    let doing = "asking for the role's connections";
    let row = client.query_one(sql, &[]).await.map_err(during(doing))?;
    let (superuser, limit): (bool, i32) =
        (row.try_get(0).map_err(during(doing))?, row.try_get(1).map_err(during(doing))?);
    let (reserved, can_reserve): (bool, bool) =
        (row.try_get(2).map_err(during(doing))?, row.try_get(3).map_err(during(doing))?);
    let needed = connections(config);
    let mut missing = Vec::new();
    if !superuser && usize::try_from(limit).is_ok_and(|limit| limit < needed) {
        missing.push(format!("its CONNECTION LIMIT is {limit}, and up to {needed} are needed"));
    }
    if !superuser && !reserved {
        let archives = config
            .rollback
            .rungs
            .iter()
            .any(|rung| matches!(rung.method, Method::Tables { dispose: Dispose::Drop { archive: true }, .. }));
        let without = if archives { ", and pg_dump, which archives before a drop, gets none" } else { "" };
        let out =
            if can_reserve { "; set reserved_connections and GRANT pg_use_reserved_connections to it" } else { "" };
        missing.push(format!(
            "when the server is full it gets no connection but the {} that are kept while a window is open{without}{out}",
            super::pinned::KEPT
        ));
    }
    Ok((!missing.is_empty()).then(|| format!("note about the role: {}", missing.join("; "))))
}

/// How many connections are open at once at most: while the backup is taken, with its snapshot and `pg_dump`'s own beside
/// its jobs, the kept ones, one that looks whether the database answers, and the signals'.
fn connections(config: &Config) -> usize {
    let signals =
        config.signals.iter().filter(|signal| matches!(signal.source, SignalSource::Postgres { url: None, .. }));
    super::pinned::KEPT + 1 + signals.count() + usize::try_from(config.backup.jobs).unwrap_or(usize::MAX).max(1) + 2
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rollbackd_core::plan::TableChoice;

    use super::*;
    use crate::config::model::Rung;
    use crate::postgres::session::Session;
    use crate::postgres::testing::{self, Fixture};

    async fn ask_as(config: &Config) -> Result<String, String> {
        let session = Session::connect(&config.database).await.expect("connects");
        check(session.client(), config).await
    }

    #[tokio::test]
    async fn everything_that_is_missing_is_named_at_once() {
        let fixture = Fixture::new().await;
        fixture
            .sql(
                "create role rights_poor login password 'sesame'; create role rights_good login password 'sesame';
                 create table profiles (); create table posts (); create table comments ();
                 grant select on posts, comments to rights_poor; alter table comments enable row level security;
                 alter table posts owner to rights_good; alter table profiles owner to rights_good;
                 alter table comments owner to rights_good; grant all on schema public to rights_good",
            )
            .await;
        let mut config = fixture.config();
        let method = Method::Tables {
            tables: TableChoice::Added,
            dispose: Dispose::Quarantine,
            on_blocked: OnBlocked::Terminate,
            reach: rollbackd_core::plan::Reach::Attached,
        };
        config.rollback.rungs = vec![Rung { timeout: Duration::from_secs(1), needs_approval: false, method }];
        ask_as(&config).await.expect("a superuser may do everything");

        config.database = testing::database(&fixture.cluster.url_as("rights_poor", "sesame", &fixture.name));
        let problems = ask_as(&config).await.expect_err("it may do little");
        for part in [
            "may not create a schema",
            "lacks USAGE and CREATE",
            "may not end sessions",
            "may not read public.profiles",
            "row security hides rows of public.comments",
        ] {
            assert!(problems.contains(part), "{part}: {problems}");
        }

        let name = rollbackd_core::baseline::quote_identifier(&fixture.name);
        fixture
            .sql(&format!("grant create on database {name} to rights_good; grant pg_signal_backend to rights_good"))
            .await;
        config.database = testing::database(&fixture.cluster.url_as("rights_good", "sesame", &fixture.name));
        let note = ask_as(&config).await.expect("it has what is needed");
        assert!(note.contains("is a member of their owner"), "{note}");

        let session = Session::connect(&config.database).await.expect("connects");
        let note = room(session.client(), &config).await.expect("an answer").expect("it has no reserve");
        assert!(note.contains("but the 2 that are kept") && !note.contains("pg_dump"), "{note}");
        config.rollback.rungs[0].method = Method::Tables {
            tables: TableChoice::Added,
            dispose: Dispose::Drop { archive: true },
            on_blocked: OnBlocked::Wait,
            reach: rollbackd_core::plan::Reach::Attached,
        };
        fixture.sql("alter role rights_good connection limit 4").await;
        let note = room(session.client(), &config).await.expect("an answer").expect("and a limit");
        assert!(note.contains("CONNECTION LIMIT is 4, and up to 7 are needed") && note.contains("pg_dump"), "{note}");
        let superuser = Session::connect(&fixture.database()).await.expect("connects");
        assert_eq!(room(superuser.client(), &config).await.expect("an answer"), None);

        fixture.sql(&format!("alter database {name} set default_transaction_read_only = on")).await;
        config.database.original_tables.push(TableName::new("public", "gone"));
        let problems = ask_as(&config).await.expect_err("read-only");
        assert!(problems.contains("read-only by default") && problems.contains("public.gone"), "{problems}");
    }
}
