//! Who holds the locks that we wait for, and how to end them.
//!
//! Sessions are described by what identifies them and never by their queries, which may hold row contents.

use std::time::Duration;

use rollbackd_core::words::counted;
use serde::Serialize;
use tokio_postgres::{Client, GenericClient};

use super::{Failure, during};

/// Something that stands in our way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// Its process on the server; 0 for a prepared transaction, which has none.
    pub pid: i32,
    /// When it began, as the server counts it: tells it from a later session with the same process id.
    began: String,
    /// What it is.
    pub kind: Kind,
    /// For people: program, role, state, for how long.
    pub words: String,
}

/// What stands in our way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A session that has a lock that we want.
    Holder,
    /// A session that waits before us for a lock that we want.
    Waiter,
    /// An autovacuum that gives way by itself to who waits for longer than `deadlock_timeout`.
    Autovacuum,
    /// A transaction that was prepared for commit, and has no session that could be ended.
    Prepared,
}

/// Somebody who has locks on tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its process on the server; none for a prepared transaction.
    pub pid: Option<i32>,
    /// The name of the prepared transaction.
    pub prepared: Option<String>,
    /// What it calls itself; for the server's own processes their kind.
    pub application: String,
    /// As whom.
    pub role: String,
    /// What its session does.
    pub state: String,
    /// Since when its transaction goes on, in seconds.
    pub seconds: i64,
    /// The strongest of its locks.
    pub mode: String,
    /// The tables that it holds locks on, as `schema.table`.
    pub tables: Vec<String>,
}

impl Holder {
    /// For people, such as `a running pg_dump (pid 4711, role shop, active, for 12 s) holds AccessShareLock on 3 tables`.
    pub fn words(&self) -> String {
        let on = match self.tables.as_slice() {
            [table] => table.clone(),
            tables => counted(tables.len(), "table"),
        };
        let who = match (&self.prepared, self.pid) {
            (Some(name), _) => prepared(name, &self.role, self.seconds),
            (None, pid) => session(pid.unwrap_or(0), &self.application, &self.role, &self.state, self.seconds),
        };
        format!("{who} holds {} on {on}", self.mode)
    }
}

fn session(pid: i32, application: &str, role: &str, state: &str, seconds: i64) -> String {
    let who = match application {
        "pg_dump" => "a running pg_dump".to_owned(),
        "" | "client backend" => "a session without a name".to_owned(),
        name if name.starts_with("autovacuum") => format!("an {name}"),
        name => format!("session \"{name}\""),
    };
    let role = if role.is_empty() { String::new() } else { format!(", role {role}") };
    let state = if state.is_empty() { String::new() } else { format!(", {state}") };
    format!("{who} (pid {pid}{role}{state}, for {seconds} s)")
}

fn prepared(name: &str, role: &str, seconds: i64) -> String {
    let literal = super::literal(name);
    format!(
        "prepared transaction \"{name}\" (role {role}, for {seconds} s), which has no session to end: \
         COMMIT PREPARED {literal} or ROLLBACK PREPARED {literal}"
    )
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

/// What blocks the session `pid` now.
pub async fn blockers(client: &impl GenericClient, pid: i32) -> Result<Vec<Blocker>, Failure> {
    let doing = "looking who holds locks";
    let rows = client.query(BLOCKERS, &[&pid]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let (pid, began): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
            let (application, role): (String, String) = (row.try_get(2)?, row.try_get(3)?);
            let (state, seconds): (String, i64) = (row.try_get(4)?, row.try_get(5)?);
            let (holds, yields): (bool, bool) = (row.try_get(6)?, row.try_get(7)?);
            let kind = match (pid, yields, holds) {
                (0, _, _) => Kind::Prepared,
                (_, true, _) => Kind::Autovacuum,
                (_, false, true) => Kind::Holder,
                (_, false, false) => Kind::Waiter,
            };
            let words = match kind {
                Kind::Prepared => prepared(&application, &role, seconds),
                Kind::Holder | Kind::Waiter | Kind::Autovacuum => session(pid, &application, &role, &state, seconds),
            };
            Ok(Blocker { pid, began, kind, words })
        })
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}

/// The locks that the session waits for, who blocks it, and the transactions without a session that have such a lock.
/// The words of an autovacuum that must not be put off any longer are the server's own, not a user's query.
const BLOCKERS: &str = "with wanted as (select * from pg_locks where pid = $1 and not granted), \
    held as (select h.pid, h.virtualtransaction from wanted w join pg_locks h on h.granted and h.locktype = w.locktype \
      and (h.database, h.relation, h.page, h.tuple, h.virtualxid, h.transactionid, h.classid, h.objid, h.objsubid) \
        is not distinct from (w.database, w.relation, w.page, w.tuple, w.virtualxid, w.transactionid, w.classid, w.objid, w.objsubid)), \
    blocking as (select distinct unnest(pg_blocking_pids($1)) as pid) \
    select a.pid, coalesce(a.backend_start::text, ''), \
      coalesce(nullif(a.application_name, ''), nullif(a.backend_type, 'client backend'), ''), \
      coalesce(a.usename::text, ''), coalesce(a.state, ''), \
      coalesce(extract(epoch from clock_timestamp() - coalesce(a.xact_start, a.state_change)), 0)::int8, \
      exists (select from held where held.pid = a.pid), \
      coalesce(a.backend_type = 'autovacuum worker' and a.query !~ 'to prevent wraparound', false) \
    from blocking join pg_stat_activity a using (pid) where a.pid <> pg_backend_pid() \
    union all \
    select distinct 0, '', p.gid, p.owner::text, '', extract(epoch from clock_timestamp() - p.prepared)::int8, true, false \
    from held join pg_locks t on t.locktype = 'transactionid' and t.pid is null and t.granted \
        and t.virtualtransaction = held.virtualtransaction \
      join pg_prepared_xacts p on p.transaction = t.transactionid \
    where held.pid is null and exists (select from blocking where pid = 0) \
    order by 1, 3";

/// Who holds locks on these tables, whoever waits for them; our own session apart.
pub async fn holders(client: &impl GenericClient, relations: &[u32]) -> Result<Vec<Holder>, Failure> {
    let doing = "looking who holds locks";
    let rows = client.query(HOLDERS, &[&relations]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            Ok(Holder {
                pid: row.try_get(0)?,
                prepared: row.try_get(1)?,
                application: row.try_get(2)?,
                role: row.try_get(3)?,
                state: row.try_get(4)?,
                seconds: row.try_get(5)?,
                mode: row.try_get(6)?,
                tables: row.try_get(7)?,
            })
        })
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}

const HOLDERS: &str = "with held as ( \
      select l.pid, l.virtualtransaction, \
        array_agg(distinct n.nspname || '.' || c.relname) as tables, \
        (array_agg(l.mode order by array_position(array['AccessShareLock', 'RowShareLock', 'RowExclusiveLock', \
          'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'], l.mode) \
          desc))[1] as mode \
      from pg_locks l join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace \
      where l.locktype = 'relation' and l.granted and l.relation = any($1::oid[]) \
        and l.database = (select oid from pg_database where datname = current_database()) \
        and l.pid is distinct from pg_backend_pid() \
      group by 1, 2) \
    select h.pid, p.gid, coalesce(nullif(a.application_name, ''), nullif(a.backend_type, 'client backend'), ''), \
      coalesce(a.usename::text, p.owner::text, ''), coalesce(a.state, ''), \
      coalesce(extract(epoch from clock_timestamp() - coalesce(a.xact_start, p.prepared, a.state_change)), 0)::int8, \
      h.mode, h.tables \
    from held h left join pg_stat_activity a on a.pid = h.pid \
      left join pg_locks t on h.pid is null and t.pid is null and t.locktype = 'transactionid' and t.granted \
        and t.virtualtransaction = h.virtualtransaction \
      left join pg_prepared_xacts p on p.transaction = t.transactionid \
    order by 6 desc, 1";

/// The tables that these refer to with foreign keys: dropping needs their locks too.
pub async fn referenced(client: &impl GenericClient, relations: &[u32]) -> Result<Vec<u32>, Failure> {
    let doing = "reading foreign keys";
    let sql = "select distinct confrelid from pg_constraint where contype = 'f' and conrelid = any($1::oid[])";
    let rows = client.query(sql, &[&relations]).await.map_err(during(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(during(doing))
}

/// How long somebody has to wait for a lock until an autovacuum that holds it gives way.
pub async fn deadlock_timeout(client: &impl GenericClient) -> Result<Duration, Failure> {
    let doing = "reading deadlock_timeout";
    let sql = "select setting::int8 from pg_settings where name = 'deadlock_timeout'";
    let row = client.query_one(sql, &[]).await.map_err(during(doing))?;
    let milliseconds: i64 = row.try_get(0).map_err(during(doing))?;
    Ok(Duration::from_millis(milliseconds.unsigned_abs()))
}

/// What came of ending sessions.
#[derive(Debug, Default)]
pub struct Terminated {
    /// How many were told to end.
    pub ended: usize,
    /// The words about each that could not be ended.
    pub refused: Vec<String>,
}

/// Ends the sessions that hold locks, and waits a moment until they are gone. Who only waits before us is ended when
/// nobody holds anything. A prepared transaction has no session, and an autovacuum gives way by itself.
pub async fn terminate(client: &impl GenericClient, blockers: &[Blocker], within: Duration) -> Terminated {
    let of = |kind| blockers.iter().filter(move |blocker| blocker.kind == kind);
    let mut targets: Vec<&Blocker> = of(Kind::Holder).collect();
    if targets.is_empty() && of(Kind::Prepared).next().is_none() {
        targets = of(Kind::Waiter).collect();
    }
    let mut told = Terminated::default();
    let mut pids = Vec::new();
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity \
               where pid = $1 and coalesce(backend_start::text, '') = $2 and pid <> pg_backend_pid()";
    for blocker in targets {
        match client.query_opt(sql, &[&blocker.pid, &blocker.began]).await {
            Ok(_) => pids.push(blocker.pid),
            Err(error) => {
                let failure = Failure::new(format!("ending {}", blocker.words), &error);
                told.refused.push(failure.to_string());
            }
        }
    }
    told.ended = pids.len();
    let gone = async {
        loop {
            let left = client.query_one("select count(*) from pg_stat_activity where pid = any($1)", &[&pids]).await;
            match left.and_then(|row| row.try_get::<_, i64>(0)) {
                Ok(left) if left > 0 => tokio::time::sleep(Duration::from_millis(20)).await,
                // None left; or nobody can tell, and the next try will.
                Ok(_) | Err(_) => return,
            }
        }
    };
    // Time that is up is no failure: the next try waits for the lock again.
    drop(tokio::time::timeout(within, gone).await);
    told
}

#[cfg(test)]
mod tests;
