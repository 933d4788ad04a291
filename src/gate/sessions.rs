//! The roles with which the application connects: they may not log in, and their sessions are ended.
//!
//! `NOLOGIN` is the way that holds for the named roles alone. Taking `CONNECT` from a role does nothing as long as
//! `PUBLIC`, a group or ownership gives it, and taking it from `PUBLIC` locks out everybody who is not named, us among
//! them. `NOLOGIN` leaves sessions, so those are ended, again and again until a while has passed without any: a login
//! that was under way shows up late. It holds for the whole server; only sessions of our database are ended.
//!
//! What is put back is what each role had. Everything is done by name at the moment it is done: a role that has gone
//! is an error, never skipped in silence.

use rollbackd_core::baseline::quote_identifier;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::Client;

use super::{Trouble, connect, named, understood};
use crate::postgres::pinned::Pinned;
use crate::postgres::{Failure, during};

/// Between two looks at the sessions.
const PAUSE: Duration = Duration::from_millis(50);
/// So long there must be none.
const QUIET: Duration = Duration::from_millis(300);

/// What was read before.
#[derive(Debug, Serialize, Deserialize)]
struct Prior {
    roles: Vec<Login>,
}

/// Whether a role could log in.
#[derive(Debug, Serialize, Deserialize)]
struct Login {
    role: String,
    login: bool,
}

/// A named role as the server has it.
struct Role {
    name: String,
    /// Whether it may log in; absent when there is no such role.
    login: Option<bool>,
    superuser: bool,
    ours: bool,
}

/// Whether each role may log in, as JSON.
pub(super) async fn read(roles: &[String], pinned: &Pinned) -> Result<String, Trouble> {
    let session = connect(pinned).await?;
    let roles = fit(look(session.client(), roles).await?)?;
    let roles = roles.into_iter().map(|role| Login { login: role.login == Some(true), role: role.name }).collect();
    serde_json::to_string(&Prior { roles }).map_err(|error| Trouble::Failed(error.to_string()))
}

/// Takes the right to log in, and ends the sessions.
pub(super) async fn close(
    roles: &[String],
    pinned: &Pinned,
    prior: &str,
    deadline: Instant,
) -> Result<String, Trouble> {
    let _: Prior = understood(prior)?;
    let mut session = connect(pinned).await?;
    let open: Vec<String> = fit(look(session.client(), roles).await?)?
        .into_iter()
        .filter(|role| role.login == Some(true))
        .map(|role| role.name)
        .collect();
    set(session.client_mut(), &open, "nologin").await?;
    let ended = end(session.client(), roles, deadline).await?;
    Ok(format!("{} may not log in; {} of theirs ended, none is left", named("role", roles), sessions(ended)))
}

/// Gives the right to log in back to those that had it.
pub(super) async fn open(pinned: &Pinned, prior: &str) -> Result<String, Trouble> {
    let prior: Prior = understood(prior)?;
    let had: Vec<String> = prior.roles.into_iter().filter(|role| role.login).map(|role| role.role).collect();
    let mut session = connect(pinned).await?;
    let roles = look(session.client(), &had).await?;
    let gone: Vec<String> = roles.iter().filter(|role| role.login.is_none()).map(|role| role.name.clone()).collect();
    let shut: Vec<String> = roles.into_iter().filter(|role| role.login == Some(false)).map(|role| role.name).collect();
    set(session.client_mut(), &shut, "login").await?;
    if gone.is_empty() {
        return Ok(format!("{} may log in again", named("role", &had)));
    }
    Err(Trouble::Failed(format!(
        "{} does not exist any more, so its right to log in cannot be put back: create it, or open the gate by hand",
        named("role", &gone)
    )))
}

/// Whether traffic was stopped by this gate before us.
pub(super) fn is_left_closed(prior: &str) -> bool {
    understood::<Prior>(prior).is_ok_and(|prior| prior.roles.iter().all(|role| !role.login))
}

/// What was read, in words.
pub(super) fn describe(prior: &str) -> String {
    let Ok(prior) = understood::<Prior>(prior) else { return prior.to_owned() };
    let those = |login| -> Vec<String> {
        prior.roles.iter().filter(|role| role.login == login).map(|role| role.role.clone()).collect()
    };
    let told = [(those(true), "may log in"), (those(false), "may not log in")];
    let told = told.into_iter().filter(|(roles, _)| !roles.is_empty());
    told.map(|(roles, what)| format!("{} {what}", named("role", &roles))).collect::<Vec<_>>().join("; ")
}

/// Does it all in a transaction that is rolled back, but for ending sessions, of which only the right is looked at.
pub(super) async fn rehearse(roles: &[String], pinned: &Pinned) -> Result<String, Trouble> {
    let doing = "trying to take the right to log in";
    let mut session = connect(pinned).await?;
    let found = fit(look(session.client(), roles).await?)?;
    let shut: Vec<String> =
        found.iter().filter(|role| role.login == Some(false)).map(|role| role.name.clone()).collect();
    if !shut.is_empty() {
        return Err(Trouble::Failed(format!(
            "{} may not log in, so stopping it stops nothing: name the role with which the application connects, or \
             let it log in again if traffic was stopped before",
            named("role", &shut)
        )));
    }
    let transaction = session.client_mut().transaction().await.map_err(during(doing))?;
    transaction.batch_execute(&statements(roles, "nologin")).await.map_err(|error| refused(doing, &error))?;
    transaction.rollback().await.map_err(during(doing))?;
    let doing = "asking for the right to end sessions";
    let sql = "select (select rolsuper from pg_roles where rolname = current_user) \
                 or pg_has_role('pg_signal_backend', 'usage') \
                 or (select bool_and(pg_has_role(oid, 'usage')) from pg_roles where rolname::text = any($1)), \
               (select count(*) from pg_stat_activity where usename::text = any($1) and datname = current_database()), \
               (select count(*) from pg_stat_activity where usename::text = any($1) and datname <> current_database())";
    let row = session.client().query_one(sql, &[&roles]).await.map_err(during(doing))?;
    let get = |error| Trouble::from(Failure::new(doing, &error));
    let (ends, here, elsewhere): (bool, i64, i64) =
        (row.try_get(0).map_err(get)?, row.try_get(1).map_err(get)?, row.try_get(2).map_err(get)?);
    if !ends {
        let may = "the role of database.url may not end sessions: GRANT pg_signal_backend to it";
        return Err(Trouble::Failed(may.to_owned()));
    }
    let others = if elsewhere == 0 {
        String::new()
    } else {
        format!(
            "; in other databases of the server it has {}, which stay, and cannot connect anew either",
            sessions(elsewhere)
        )
    };
    Ok(format!("{} may log in and can be kept from it; {} now{others}", named("role", roles), sessions(here)))
}

async fn look(client: &Client, names: &[String]) -> Result<Vec<Role>, Trouble> {
    let doing = "looking at the roles";
    let sql = "select w.name, r.rolcanlogin, coalesce(r.rolsuper, false), \
                 w.name in (session_user::text, current_user::text) \
               from unnest($1::text[]) with ordinality w(name, place) \
               left join pg_roles r on r.rolname::text = w.name order by w.place";
    let rows = client.query(sql, &[&names]).await.map_err(during(doing))?;
    let role = |row: &tokio_postgres::Row| {
        Ok(Role { name: row.try_get(0)?, login: row.try_get(1)?, superuser: row.try_get(2)?, ours: row.try_get(3)? })
    };
    let roles: Result<_, tokio_postgres::Error> = rows.iter().map(role).collect();
    Ok(roles.map_err(during(doing))?)
}

/// The roles, if each may be kept out; else all that is wrong with them.
fn fit(roles: Vec<Role>) -> Result<Vec<Role>, Trouble> {
    let wrong = roles.iter().filter_map(|role| {
        let name = quote_identifier(&role.name);
        if role.login.is_none() {
            Some(format!("role {name} does not exist: correct `roles`"))
        } else if role.ours {
            Some(format!(
                "role {name} is the one with which rollbackd itself connects: give it another in database.url"
            ))
        } else if role.superuser {
            Some(format!(
                "role {name} is a superuser, and without its login nobody may be left to repair the server: let the \
                 application connect as a role that is none"
            ))
        } else {
            None
        }
    });
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() { Ok(roles) } else { Err(Trouble::Failed(wrong.join("; "))) }
}

fn statements(roles: &[String], word: &str) -> String {
    roles.iter().map(|role| format!("alter role {} {word}", quote_identifier(role))).collect::<Vec<_>>().join("; ")
}

/// All of them or none.
async fn set(client: &mut Client, roles: &[String], word: &str) -> Result<(), Trouble> {
    if roles.is_empty() {
        return Ok(());
    }
    let doing = format!("setting {} to {}", named("role", roles), word.to_uppercase());
    let transaction = client.transaction().await.map_err(during(&doing))?;
    transaction.batch_execute(&statements(roles, word)).await.map_err(|error| refused(&doing, &error))?;
    Ok(transaction.commit().await.map_err(during(&doing))?)
}

/// What the server said, and the right that helps where one is missing.
fn refused(doing: &str, error: &tokio_postgres::Error) -> Trouble {
    let missing = error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE);
    let help = "; the role of database.url needs CREATEROLE, and from PostgreSQL 16 on ADMIN OPTION on these roles";
    Trouble::Failed(format!("{}{}", Failure::new(doing, error), if missing { help } else { "" }))
}

/// Ends the roles' sessions in this database until there has been none for a while. Gives back how many it ended.
async fn end(client: &Client, roles: &[String], deadline: Instant) -> Result<i64, Trouble> {
    let doing = "ending the application's sessions";
    let sql = "select pid, pg_terminate_backend(pid) from pg_stat_activity \
               where usename::text = any($1) and datname = current_database() and pid <> pg_backend_pid()";
    let (mut seen, mut quiet_since) = (std::collections::BTreeSet::new(), None);
    loop {
        let rows = client.query(sql, &[&roles]).await.map_err(during(doing))?;
        let now = Instant::now();
        for row in &rows {
            let pid: i32 = row.try_get(0).map_err(during(doing))?;
            seen.insert(pid);
        }
        if rows.is_empty() {
            if now - *quiet_since.get_or_insert(now) >= QUIET {
                return Ok(i64::try_from(seen.len()).unwrap_or(i64::MAX));
            }
        } else if now >= deadline {
            let left = i64::try_from(rows.len()).unwrap_or(i64::MAX);
            return Err(Trouble::TimedOut(format!(
                "{} may not log in any more, but {} of theirs would not end in time",
                named("role", roles),
                sessions(left)
            )));
        } else {
            quiet_since = None;
        }
        sleep(PAUSE).await;
    }
}

fn sessions(count: i64) -> String {
    if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") }
}
