//! What the demo finds out for itself at the end, without asking rollbackd.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, RequestBuilder};
use rollbackd_core::words::counted;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::customers::Experience;
use super::database::{Judge, NEW_TABLES, Original, Whereabouts};
use super::mail::{Mail, Mailbox};
use super::story::Finding;
use super::webhooks::{Hooks, Webhook};

/// How long one request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How long the last notice may be on its way.
const NOTICES_WITHIN: Duration = Duration::from_secs(20);

/// The shop as its customers reach it.
#[derive(Debug, Clone)]
pub struct Shopfront {
    /// Where it listens.
    pub address: SocketAddr,
    /// What every request carries.
    pub apikey: String,
    /// The test account.
    pub email: String,
    /// Its password.
    pub password: String,
}

impl Shopfront {
    /// Whether posts are served.
    pub async fn posts(&self) -> Finding {
        Finding::of(match self.ask(|client, base| client.get(format!("{base}/api/posts"))).await {
            Ok(Value::Array(posts)) if !posts.is_empty() => {
                Ok(format!("the shop serves posts: {} on its page", posts.len()))
            }
            Ok(_) => Err("the shop's page of posts is empty".to_owned()),
            Err(reason) => Err(format!("the shop serves no posts: {reason}")),
        })
    }

    /// Whether the test account can sign in.
    pub async fn sign_in(&self) -> Finding {
        let credentials = json!({ "email": self.email, "password": self.password });
        let request = |client: &Client, base: &str| {
            client.post(format!("{base}/auth/v1/token?grant_type=password")).json(&credentials)
        };
        Finding::of(match self.ask(request).await {
            Ok(answer) if answer.get("access_token").is_some_and(Value::is_string) => {
                Ok(format!("{} can sign in", self.email))
            }
            Ok(_) => Err("the sign-in answers without a token".to_owned()),
            Err(reason) => Err(format!("{} cannot sign in: {reason}", self.email)),
        })
    }

    async fn ask(&self, request: impl FnOnce(&Client, &str) -> RequestBuilder) -> Result<Value, String> {
        let said = |error: reqwest::Error| error.without_url().to_string();
        let client = Client::builder().timeout(REQUEST_WITHIN).no_proxy().build().map_err(said)?;
        let base = format!("http://{}", self.address);
        let answer = request(&client, &base).header("apikey", &self.apikey).send().await.map_err(said)?;
        let status = answer.status();
        if status.is_success() { answer.json().await.map_err(said) } else { Err(format!("status {status}")) }
    }
}

/// Whether the originals are whole: one finding a table.
pub async fn originals(judge: &Judge, before: &[Original]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for original in before {
        findings.push(Finding::of(judge.is_whole(original).await.map(|added| {
            let since = if added == 0 { "none".to_owned() } else { added.to_string() };
            format!("`{}`: all {} rows are as they were, {since} added since", original.table, original.rows)
        })));
    }
    if findings.is_empty() {
        findings.push(Finding { good: false, text: "there are no originals to look at".to_owned() });
    }
    findings
}

/// Where the runbook's tables should be at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The migration passed: in `public`.
    Live,
    /// It was rolled back: in quarantine.
    Quarantined,
}

/// Whether the runbook's tables are where they should be.
pub async fn new_tables(judge: &Judge, expected: Expected) -> Finding {
    Finding::of(match judge.whereabouts().await {
        Ok(found) => placed(&found, expected),
        Err(reason) => Err(reason),
    })
}

fn placed(found: &Whereabouts, expected: Expected) -> Result<String, String> {
    let all = NEW_TABLES.len();
    let (live, quarantined) = (found.live.len(), found.quarantined.len());
    let schema = found.quarantined.first().and_then(|name| name.split('.').next()).unwrap_or("quarantine");
    match expected {
        Expected::Quarantined if live == 0 && quarantined == all => {
            Ok(format!("the migration's {all} tables are gone from `public` and kept in `{schema}`"))
        }
        Expected::Live if live == all && quarantined == 0 => {
            Ok(format!("the migration's {all} tables are in `public`"))
        }
        Expected::Quarantined | Expected::Live => {
            Err(format!("of the migration's {all} tables {live} are in `public` and {quarantined} in quarantine"))
        }
    }
}

/// Whether traffic flows: the maintenance flag is gone.
pub fn traffic(maintenance: &Path) -> Finding {
    Finding::of(if maintenance.exists() {
        Err("the maintenance page is still up")
    } else {
        Ok("the maintenance page is down")
    })
}

/// Whether the customers are served again; waits a little for the next of them.
pub async fn customers(experience: &mut watch::Receiver<Experience>) -> Finding {
    let back = experience.wait_for(|seen| seen.outage_began.is_none() || seen.outage_ended.is_some());
    Finding::of(if timeout(REQUEST_WITHIN, back).await.is_ok_and(|seen| seen.is_ok()) {
        Ok("the customers are served")
    } else {
        Err("the customers are not served")
    })
}

/// Whether people were told: mails and webhooks, up to the one that says how it ended.
pub async fn notices(mailbox: &mut Mailbox, hooks: &mut Hooks, last_title: &str, last_event: &str) -> Vec<Finding> {
    let mails = mailbox.mails.wait_for(|mails| mails.iter().any(|mail| mail.header("Subject").contains(last_title)));
    let mailed = timeout(NOTICES_WITHIN, mails).await.is_ok();
    let webhooks = hooks.received.wait_for(|all| all.iter().any(|one| one.event() == last_event));
    let posted = timeout(NOTICES_WITHIN, webhooks).await.is_ok();
    let mails = mailbox.mails.borrow().clone();
    let webhooks = hooks.received.borrow().clone();
    vec![
        Finding::of(if mailed { Ok(mails_told(&mails)) } else { Err(format!("no mail says \"{last_title}\"")) }),
        Finding::of(webhooks_told(&webhooks, posted, last_event)),
    ]
}

fn mails_told(mails: &[Mail]) -> String {
    let mut people: Vec<&str> = mails.iter().flat_map(|mail| mail.to.iter().map(String::as_str)).collect();
    people.sort_unstable();
    people.dedup();
    format!("{} arrived, for {}", counted(mails.len(), "mail"), people.join(" and "))
}

fn webhooks_told(webhooks: &[Webhook], posted: bool, last_event: &str) -> Result<String, String> {
    if let Some((webhook, wrong)) = webhooks.iter().find_map(|one| Some((one, one.signature.err()?))) {
        return Err(format!("the signature of webhook {} ({}) is wrong: {wrong}", webhook.id, webhook.event()));
    }
    if !posted {
        return Err(format!("no webhook says `{last_event}`"));
    }
    Ok(format!("{} arrived, every signature verified", counted(webhooks.len(), "webhook")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whereabouts(live: usize, quarantined: usize) -> Whereabouts {
        Whereabouts {
            live: vec!["pages".to_owned(); live],
            quarantined: vec!["rollbackd_20261122t020000z.pages".to_owned(); quarantined],
        }
    }

    #[test]
    fn a_table_in_the_wrong_place_is_found() {
        assert_eq!(
            placed(&whereabouts(0, 14), Expected::Quarantined).unwrap(),
            "the migration's 14 tables are gone from `public` and kept in `rollbackd_20261122t020000z`"
        );
        for (live, quarantined) in [(14, 0), (1, 13), (0, 13), (0, 0)] {
            assert!(placed(&whereabouts(live, quarantined), Expected::Quarantined).is_err(), "{live} {quarantined}");
        }
        assert!(placed(&whereabouts(14, 0), Expected::Live).is_ok());
        assert!(placed(&whereabouts(0, 14), Expected::Live).is_err());
    }

    #[test]
    fn one_wrong_signature_spoils_it() {
        let good = Webhook { id: "a".to_owned(), signature: Ok(()), body: json!({ "type": "rollback.recovered" }) };
        let bad = Webhook { signature: Err("no signature matches"), ..good.clone() };
        assert!(webhooks_told(std::slice::from_ref(&good), true, "rollback.recovered").is_ok());
        assert!(webhooks_told(std::slice::from_ref(&good), false, "rollback.recovered").is_err());
        assert!(webhooks_told(&[good, bad], true, "rollback.recovered").is_err());
    }
}
