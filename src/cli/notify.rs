//! `rollbackd notify test`: one message to every contact on every channel, now.

use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use futures_util::future::join_all;
use jiff::SignedDuration;
use rollbackd_core::notice::{Message, MessageLinks, Notice, NoticeEvent};
use rollbackd_core::plan::{Contact, Plan};
use serde::Serialize;

use super::output::{NAMES, Paint, Terminal, table};
use super::{Exit, Json, Stop, place};
use crate::clock;
use crate::notify::Sender;

/// A server that does not take a message within this is told as failed; a real notice would be tried for longer.
const WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Send a test notice to every contact
    Test(Json),
}

/// How a channel took it.
#[derive(Debug, Serialize)]
struct Tried {
    contact: String,
    channel: String,
    delivered: bool,
    detail: String,
}

pub(super) async fn run(config: &Path, verb: Verb, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let Verb::Test(json) = verb;
    let config = place::load(config)?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let plan = config.plan(&host);
    if plan.contacts.is_empty() {
        return Err(Stop::new(Exit::Failed, "the configuration has no [[contact]]; nobody would be told").into());
    }
    let sender = Sender::new(&config).map_err(|reason| Stop::new(Exit::Configuration, reason))?;
    let notices = plan.contacts.iter().flat_map(|contact| {
        let notice = test_notice(&plan, contact);
        contact.channels.iter().map(move |channel| (notice.clone(), channel.clone()))
    });
    let tried = join_all(notices.map(|(notice, channel)| deliver(&sender, notice, channel))).await;
    if json.json {
        terminal.print_json(&tried)?;
    } else {
        terminal.print(&text(&tried, terminal.paint))?;
    }
    Ok(if tried.iter().all(|one| one.delivered) { Exit::Done } else { Exit::Failed })
}

async fn deliver(sender: &Sender, notice: Notice, channel: String) -> Tried {
    let delivery = sender.deliver(&notice, &channel, |_| ());
    let result = match tokio::time::timeout(WITHIN, delivery).await {
        Ok(result) => result,
        Err(_) => Err(format!("not delivered within {} s", WITHIN.as_secs())),
    };
    Tried {
        contact: notice.contact,
        channel,
        delivered: result.is_ok(),
        detail: result.err().unwrap_or_else(|| "delivered".to_owned()),
    }
}

fn test_notice(plan: &Plan, contact: &Contact) -> Notice {
    let now = clock::now();
    let id = format!("{}-test-{}-{:08x}", plan.name, now.as_millisecond(), rand::random::<u32>());
    Notice {
        id: id.clone(),
        contact: contact.name.clone(),
        channels: contact.channels.clone(),
        at: now,
        not_before: now,
        expires_at: now + SignedDuration::from_secs(30),
        message: Message {
            event: NoticeEvent::NoticeTest,
            severity: NoticeEvent::NoticeTest.severity(),
            incident_id: id,
            sequence: 1,
            plan: plan.name.clone(),
            window: None,
            host: plan.host.clone(),
            state: "scheduled".to_owned(),
            summary: format!("This is a test: rollbackd on {} reaches you about {}.", plan.host, plan.name),
            details: vec![format!("You are on the contact list as {}. Nothing happened.", contact.role)],
            reason: None,
            links: MessageLinks { runbook: plan.links.runbook.clone(), ..MessageLinks::default() },
        },
    }
}

fn text(tried: &[Tried], paint: Paint) -> String {
    let rows: Vec<Vec<String>> =
        tried.iter().map(|one| vec![one.contact.clone(), one.channel.clone(), one.detail.clone()]).collect();
    table(paint, NAMES, &["CONTACT", "CHANNEL", "RESULT"], &rows)
}
