//! Whether a rollback would work, asked before the migration starts. Nothing is changed by asking.
//!
//! Every check asks the part that would do the work: the database's own session, the backup's room, the senders'
//! servers. All run at once, each within its bound; one that does not end has failed. The results go to the state
//! machine as [`Finding::Checks`](rollbackd_core::run::step::Finding::Checks), and to `rollbackd check --online`.
//!
//! * `database`: the server answers, the role has the rights, the tools are there
//! * `disk`: room and rights where backup and journal go
//! * `programs`: scripts and commands that would be started
//! * `gates`: whether traffic could be stopped, and is open now
//! * `certificates`: what expires soon, which is no check but a warning

mod certificates;
mod database;
mod disk;
mod gates;
mod programs;

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::SignedDuration;
use rollbackd_core::run::step::CheckResult;

#[cfg(test)]
pub(crate) use self::certificates::expiring_seen_by;
pub use self::certificates::{Expiring, expiring};
use self::database::Connection;
use crate::clock::Stopwatch;
use crate::config::model::Config;
use crate::notify::{Reached, Sender};

/// What a check that was configured away says. It counts as passed, and is said in every notice.
pub const SKIPPED: &str = "SKIPPED by configuration";

/// What held, or what did not and what to do about it.
type Answer = Result<String, String>;

/// Runs every check that is not skipped, all at once, none longer than `within`.
pub async fn run(config: &Config, within: Duration) -> Vec<CheckResult> {
    let bounds = Bounds { skip: &config.preflight.skip, within };
    let connection = Connection::new(config);
    let sender = Sender::new(config);
    // On the heap: nine connections' worth of state is too much for one stack frame.
    let results = Box::pin(async {
        tokio::join!(
            bounds.check("database", connection.answers()),
            bounds.check("rights", connection.rights()),
            bounds.check("tools", connection.tools()),
            bounds.check("disk", disk::check(config)),
            bounds.check("script", aside(config, programs::script)),
            bounds.check("gates", gates::check(config)),
            bounds.check("mail", mail(sender.as_ref())),
            bounds.check("webhooks", webhooks(sender.as_ref())),
            bounds.check("command", aside(config, programs::command)),
        )
    })
    .await;
    let (database, rights, tools, disk, script, gates, mail, webhooks, command) = results;
    vec![database, rights, tools, disk, script, gates, mail, webhooks, command]
}

/// What holds for every check.
struct Bounds<'a> {
    skip: &'a [String],
    within: Duration,
}

impl Bounds<'_> {
    async fn check(&self, name: &str, work: impl Future<Output = Answer>) -> CheckResult {
        let result = |passed, detail, took| CheckResult { name: name.into(), kind: name.into(), passed, detail, took };
        if self.skip.iter().any(|skipped| skipped == name) {
            return result(true, SKIPPED.to_owned(), SignedDuration::ZERO);
        }
        let watch = Stopwatch::start();
        let answer = tokio::time::timeout(self.within, work).await.unwrap_or_else(|_elapsed| {
            Err(format!("did not end within {} s: something that it needs hangs", self.within.as_secs_f64()))
        });
        let took = watch.elapsed_signed();
        match answer {
            Ok(detail) => result(true, detail, took),
            Err(detail) => result(false, detail, took),
        }
    }
}

/// Looks at files beside the runtime's threads, so that a file system that hangs holds up one check only.
async fn aside(config: &Config, look: fn(&Config) -> Answer) -> Answer {
    let config = config.clone();
    tokio::task::spawn_blocking(move || look(&config)).await.unwrap_or_else(|error| Err(error.to_string()))
}

async fn mail(sender: Result<&Sender, &String>) -> Answer {
    match sender.map_err(Clone::clone)?.reach_mail().await {
        Some((server, Ok(()))) => Ok(format!("mail server {server} greets")),
        Some((server, Err(reason))) => {
            Err(format!("mail server {server}: {reason}; start it, or correct [smtp], or nobody gets mail"))
        }
        None => Ok("no contact has a mail address".to_owned()),
    }
}

async fn webhooks(sender: Result<&Sender, &String>) -> Answer {
    let reached = sender.map_err(Clone::clone)?.reach_webhooks().await;
    if reached.is_empty() {
        return Ok("no contact has a webhook".to_owned());
    }
    let down: Vec<String> = reached.iter().filter_map(failure).collect();
    if down.is_empty() {
        let servers: Vec<&str> = reached.iter().map(|(server, _)| server.as_str()).collect();
        return Ok(format!("{} can be reached", servers.join(", ")));
    }
    Err(format!("webhook {}; check the address and the network, or its contacts are not told", down.join(", ")))
}

fn failure((server, result): &Reached) -> Option<String> {
    result.as_ref().err().map(|reason| format!("{server}: {reason}"))
}

/// Several answers as one: what failed, all of it; else what held.
fn together(answers: impl IntoIterator<Item = Answer>, none: &str) -> Answer {
    let (mut held, mut failed) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(detail) => held.push(detail),
            Err(detail) => failed.push(detail),
        }
    }
    match (failed.is_empty(), held.is_empty()) {
        (false, _) => Err(failed.join("; ")),
        (true, false) => Ok(held.join("; ")),
        (true, true) => Ok(none.to_owned()),
    }
}
