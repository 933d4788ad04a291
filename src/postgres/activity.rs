//! Who holds the locks that we wait for, and how to end them.
//!
//! Sessions are described by what identifies them and never by their queries, which may hold row contents.

use std::time::Duration;

use tokio_postgres::{Client, GenericClient};

use super::{Failure, during};

/// A session that stands in our way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// Its process on the server.
    pub pid: i32,
    /// When it began, as the server counts it: tells it from a later session with the same process id.
    began: String,
    /// For people: program, role, state, for how long.
    pub words: String,
}

/// The number of our own session's process on the server.
pub async fn own_pid(client: &impl GenericClient) -> Result<i32, Failure> {
    let doing = "asking for the session's process";
    let row = client.query_one("select pg_backend_pid()", &[]).await.map_err(during(doing))?;
    row.try_get(0).map_err(during(doing))
}

/// Looks again and again who blocks the session `pid`, and keeps the last that were seen. Ends only with an error:
/// run it beside what may wait.
pub(crate) async fn watch(client: &Client, pid: i32, every: Duration, seen: &mut Vec<Blocker>) -> Failure {
    loop {
        tokio::time::sleep(every).await;
        match blockers(client, pid).await {
            Ok(found) if found.is_empty() => {}
            Ok(found) => *seen = found,
            Err(failure) => return failure,
        }
    }
}

/// The sessions that block the session `pid` now.
pub async fn blockers(client: &impl GenericClient, pid: i32) -> Result<Vec<Blocker>, Failure> {
    let doing = "looking who holds locks";
    let sql = "select a.pid, coalesce(a.backend_start::text, ''), coalesce(nullif(a.application_name, ''), ''), \
                 coalesce(a.usename::text, ''), coalesce(a.state, ''), coalesce(a.backend_type, ''), \
                 coalesce(extract(epoch from clock_timestamp() - coalesce(a.xact_start, a.state_change)), 0)::int8 \
               from unnest(pg_blocking_pids($1)) b join pg_stat_activity a on a.pid = b \
               where a.pid <> pg_backend_pid() group by 1, 2, 3, 4, 5, 6, 7 order by a.pid";
    let rows = client.query(sql, &[&pid]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let (pid, began): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
            let (program, role): (String, String) = (row.try_get(2)?, row.try_get(3)?);
            let (state, kind, seconds): (String, String, i64) = (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
            let who = match program.as_str() {
                "pg_dump" => "a running pg_dump".to_owned(),
                "" if kind == "client backend" => "a session without a name".to_owned(),
                "" => kind,
                name => format!("session \"{name}\""),
            };
            let state = if state.is_empty() { String::new() } else { format!(", {state}") };
            let words = format!("{who} (pid {pid}, role {role}{state}, for {seconds} s)");
            Ok(Blocker { pid, began, words })
        })
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}

/// Ends these sessions, and waits a moment until they are gone. Gives back the words about each that could not be
/// ended.
pub async fn terminate(client: &impl GenericClient, blockers: &[Blocker], within: Duration) -> Vec<String> {
    let mut refused = Vec::new();
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity \
               where pid = $1 and coalesce(backend_start::text, '') = $2 and pid <> pg_backend_pid()";
    for blocker in blockers {
        if let Err(error) = client.query_opt(sql, &[&blocker.pid, &blocker.began]).await {
            let failure = Failure::new(format!("ending {}", blocker.words), &error);
            refused.push(failure.to_string());
        }
    }
    let pids: Vec<i32> = blockers.iter().map(|blocker| blocker.pid).collect();
    let gone = async {
        loop {
            let left = client.query_one("select count(*) from pg_stat_activity where pid = any($1)", &[&pids]).await;
            match left.and_then(|row| row.try_get::<_, i64>(0)) {
                Ok(left) if usize::try_from(left).is_ok_and(|left| left > refused.len()) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                // None left but those that may not be ended; or nobody can tell, and the next try will.
                Ok(_) | Err(_) => return,
            }
        }
    };
    // Time that is up is no failure: the next try waits for the lock again.
    drop(tokio::time::timeout(within, gone).await);
    refused
}
