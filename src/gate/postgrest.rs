//! PostgREST's own gate: before each request it calls a function that refuses it with status 503.
//!
//! Which function is called is a setting of the role with which PostgREST connects, `pgrst.db_pre_request`. It is set for
//! the role *in our database*: PostgREST prefers that to what is set for the role as a whole, which then needs no
//! touching, and other databases of the server keep theirs. PostgREST reads it anew when it is notified.
//!
//! The function lives in a schema of its own that the comparison of catalogs leaves out. It goes when traffic flows
//! again and no setting names it; until PostgREST has read the old setting, it refuses.

use rollbackd_core::baseline::quote_identifier;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::{Client, GenericClient};

use super::{Trouble, connect, understood};
use crate::config::gate::{MAKE_REFUSE, REFUSE, UNMAKE_REFUSE};
use crate::postgres::pinned::Pinned;
use crate::postgres::{Failure, during, literal};

/// The setting that names the function.
const SETTING: &str = "pgrst.db_pre_request";
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// So long PostgREST may take to read its configuration. Nothing shows from outside that it has.
const RELOAD: Duration = Duration::from_secs(1);

/// What was read before.
#[derive(Debug, Serialize, Deserialize)]
struct Prior {
    /// The role's setting in this database.
    set: Option<String>,
}

/// The role's setting in this database, as JSON.
pub(super) async fn read(role: &str, pinned: &Pinned) -> Result<String, Trouble> {
    let session = connect(pinned).await?;
    let set = setting(session.client(), role).await?;
    serde_json::to_string(&Prior { set }).map_err(|error| Trouble::Failed(error.to_string()))
}

/// Lets PostgREST refuse every request, and waits for those that run.
pub(super) async fn close(role: &str, pinned: &Pinned, prior: &str, deadline: Instant) -> Result<String, Trouble> {
    let _: Prior = understood(prior)?;
    let doing = "letting PostgREST refuse requests";
    let mut session = connect(pinned).await?;
    setting(session.client(), role).await?;
    let transaction = session.client_mut().transaction().await.map_err(during(doing))?;
    refuse(&transaction, role, doing).await?;
    transaction.commit().await.map_err(during(doing))?;
    let waited = drain(session.client(), role, deadline).await?;
    Ok(format!("role {} has PostgREST call {REFUSE} before each request; {waited}", quote_identifier(role)))
}

/// Puts back what was read.
pub(super) async fn open(role: &str, pinned: &Pinned, prior: &str) -> Result<String, Trouble> {
    let prior: Prior = understood(prior)?;
    let doing = "putting back what PostgREST calls before a request";
    let mut session = connect(pinned).await?;
    let now = setting(session.client(), role).await?;
    let transaction = session.client_mut().transaction().await.map_err(during(doing))?;
    if now != prior.set {
        let place = place(&transaction, role).await?;
        let change = match &prior.set {
            Some(found) => format!("{place} set {SETTING} = {}", literal(found)),
            None => format!("{place} reset {SETTING}"),
        };
        transaction.batch_execute(&change).await.map_err(|error| refused(doing, &error))?;
    }
    // Also when it is as it was: who crashed between the change and the notification is told now.
    transaction.batch_execute("notify pgrst, 'reload config'").await.map_err(during(doing))?;
    transaction.commit().await.map_err(during(doing))?;
    Ok(describe_setting(role, prior.set.as_deref()))
}

/// Takes the function away, unless another role is told to call it. Where nothing proves that PostgREST has read its
/// setting, it gets the time for it: a function that is called and not there is an answer that says "not found".
pub(super) async fn tidy(proven: bool, pinned: &Pinned) -> Result<String, Trouble> {
    let doing = "removing the function that refused requests";
    if !proven {
        sleep(RELOAD).await;
    }
    let mut session = connect(pinned).await?;
    let sql = "select exists(select from pg_db_role_setting s, unnest(s.setconfig) as u(one) where one = $1 \
               and s.setdatabase in (0, (select oid from pg_database where datname = current_database())))";
    let named = format!("{SETTING}={REFUSE}");
    let row = session.client().query_one(sql, &[&named]).await.map_err(during(doing))?;
    if row.try_get(0).map_err(during(doing))? {
        return Ok(format!("{REFUSE} stays: another role is told to call it"));
    }
    let transaction = session.client_mut().transaction().await.map_err(during(doing))?;
    transaction.batch_execute(UNMAKE_REFUSE).await.map_err(during(doing))?;
    transaction.commit().await.map_err(during(doing))?;
    Ok(format!("{REFUSE} is removed"))
}

/// Whether traffic was stopped by this gate before us.
pub(super) fn is_left_closed(prior: &str) -> bool {
    understood::<Prior>(prior).is_ok_and(|prior| prior.set.as_deref() == Some(REFUSE))
}

/// What was read, in words.
pub(super) fn describe(role: &str, prior: &str) -> String {
    understood::<Prior>(prior).map_or_else(|_| prior.to_owned(), |prior| describe_setting(role, prior.set.as_deref()))
}

fn describe_setting(role: &str, set: Option<&str>) -> String {
    let role = quote_identifier(role);
    match set {
        Some(found) => format!("role {role} has {SETTING} = {found} in this database"),
        None => format!("role {role} has no {SETTING} for this database alone"),
    }
}

/// Does it all in a transaction that is rolled back, and lets the function refuse once.
pub(super) async fn rehearse(role: &str, pinned: &Pinned) -> Result<String, Trouble> {
    let doing = "trying to let PostgREST refuse requests";
    let mut session = connect(pinned).await?;
    let name = quote_identifier(role);
    if setting(session.client(), role).await?.as_deref() == Some(REFUSE) {
        return Err(Trouble::Failed(format!(
            "role {name} has PostgREST refuse every request: traffic is stopped now; open it with ALTER ROLE {name} IN \
             DATABASE … RESET {SETTING}"
        )));
    }
    let transaction = session.client_mut().transaction().await.map_err(during(doing))?;
    refuse(&transaction, role, doing).await?;
    let called = transaction.batch_execute(&format!("select {REFUSE}()")).await;
    match called {
        Err(error) if error.code().is_some_and(|code| code.code() == "PGRST") => {}
        Err(error) => return Err(Failure::new(doing, &error).into()),
        Ok(()) => return Err(Trouble::Failed(format!("{REFUSE} does not refuse"))),
    }
    transaction.rollback().await.map_err(during(doing))?;
    let sql = "select count(*) from pg_stat_activity where usename::text = $1 and datname = current_database()";
    let row = session.client().query_one(sql, &[&role]).await.map_err(during(doing))?;
    let there: i64 = row.try_get(0).map_err(during(doing))?;
    let there = if there == 0 { "no session of it is there now: is PostgREST running?" } else { "it is connected now" };
    Ok(format!("PostgREST can be told through role {name} to refuse requests; {there}"))
}

/// The role's setting in this database.
async fn setting(client: &impl GenericClient, role: &str) -> Result<Option<String>, Trouble> {
    let doing = "reading what PostgREST calls before a request";
    let sql = "select (select substr(one, length($2) + 2) from pg_db_role_setting s, unnest(s.setconfig) as u(one) \
                 where s.setrole = r.oid and starts_with(one, $2 || '=') \
                   and s.setdatabase = (select oid from pg_database where datname = current_database())) \
               from pg_roles r where r.rolname::text = $1";
    let row = client.query_opt(sql, &[&role, &SETTING]).await.map_err(during(doing))?;
    let Some(row) = row else {
        let name = quote_identifier(role);
        return Err(Trouble::Failed(format!("role {name} does not exist: name the one with which PostgREST connects")));
    };
    Ok(row.try_get(0).map_err(during(doing))?)
}

/// The start of a statement that changes what is set for the role in this database.
async fn place(client: &impl GenericClient, role: &str) -> Result<String, Trouble> {
    let doing = "asking for the database's name";
    let row = client.query_one("select current_database()::text", &[]).await.map_err(during(doing))?;
    let database: String = row.try_get(0).map_err(during(doing))?;
    Ok(format!("alter role {} in database {}", quote_identifier(role), quote_identifier(&database)))
}

/// Makes the function, names it in the setting and tells PostgREST.
async fn refuse(client: &impl GenericClient, role: &str, doing: &str) -> Result<(), Trouble> {
    // Whoever owns the schema can replace what is in it.
    let sql = "select coalesce((select pg_has_role(nspowner, 'usage') from pg_namespace where nspname = $1), true)";
    let schema = REFUSE.split('.').next().unwrap_or_default();
    let row = client.query_one(sql, &[&schema]).await.map_err(during(doing))?;
    if !row.try_get::<_, bool>(0).map_err(during(doing))? {
        return Err(Trouble::Failed(format!(
            "schema {schema} is there and belongs to somebody else: rename or drop it"
        )));
    }
    let place = place(client, role).await?;
    let all = format!("{MAKE_REFUSE}; {place} set {SETTING} = '{REFUSE}'; notify pgrst, 'reload config'");
    client.batch_execute(&all).await.map_err(|error| refused(doing, &error))
}

/// What the server said, and the rights that help where one is missing.
fn refused(doing: &str, error: &tokio_postgres::Error) -> Trouble {
    let missing = error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE);
    let help = "; the role of database.url needs CREATE on the database, CREATEROLE (from PostgreSQL 16 on ADMIN OPTION on \
                PostgREST's role) and, from 15 on, GRANT SET ON PARAMETER pgrst.db_pre_request";
    Trouble::Failed(format!("{}{}", Failure::new(doing, error), if missing { help } else { "" }))
}

/// Waits until no request runs that PostgREST may have begun before it read its setting.
async fn drain(client: &Client, role: &str, deadline: Instant) -> Result<String, Trouble> {
    let doing = "waiting for requests that run";
    let sql = "select pg_has_role('pg_read_all_stats', 'usage') or pg_has_role($1::text::name, 'usage')";
    let row = client.query_one(sql, &[&role]).await.map_err(during(doing))?;
    if !row.try_get::<_, bool>(0).map_err(during(doing))? {
        return Ok("whether requests still run cannot be seen without pg_read_all_stats".to_owned());
    }
    let now = client.query_one("select clock_timestamp()::text", &[]).await.map_err(during(doing))?;
    let from: String = now.try_get(0).map_err(during(doing))?;
    let read = Instant::now() + RELOAD;
    let sql = format!(
        "select count(*) from pg_stat_activity where usename::text = $1 and datname = current_database() \
         and pid <> pg_backend_pid() and xact_start < $2::text::timestamptz + interval '{} ms'",
        RELOAD.as_millis()
    );
    loop {
        let row = client.query_one(&sql, &[&role, &from]).await.map_err(during(doing))?;
        let running: i64 = row.try_get(0).map_err(during(doing))?;
        let now = Instant::now();
        if running == 0 && now >= read {
            return Ok("no request from before runs any more".to_owned());
        }
        if now >= deadline {
            return Err(Trouble::TimedOut(format!(
                "PostgREST is told to refuse requests, but {running} of those that ran before still do"
            )));
        }
        sleep(PAUSE).await;
    }
}
