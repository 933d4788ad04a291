//! Signing in with a test account, as Supabase Auth wants it.
//!
//! The health endpoint of the service answers without its database and proves nothing; a session does.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::model::{Address, Secret};
use crate::signal::http::{Ask, Client};
use crate::signal::net::{Deadline, Fault};

/// The account, and where it signs in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account<'a> {
    /// Base of the service.
    pub(super) url: &'a Address,
    /// The project's key.
    pub(super) apikey: Option<&'a Secret>,
    /// The account's address.
    pub(super) email: &'a Secret,
    /// The account's password.
    pub(super) password: &'a Secret,
}

pub(super) async fn check(client: &Client, account: Account<'_>, timeout: Duration) -> Result<String, String> {
    let mut url = account.url.expose().clone();
    match url.path_segments_mut() {
        Ok(mut path) => drop(path.pop_if_empty().push("token")),
        Err(()) => return Err(format!("{} cannot be a base for requests", account.url)),
    }
    url.set_query(Some("grant_type=password"));
    let mut headers = BTreeMap::from([("content-type".to_owned(), Secret::new("application/json"))]);
    if let Some(apikey) = account.apikey {
        headers.insert("apikey".to_owned(), apikey.clone());
    }
    let body = json!({ "email": account.email.expose(), "password": account.password.expose() }).to_string();
    let body = Secret::new(body);
    let ask = Ask { method: "POST", url: &url, headers: &headers, body: Some(&body) };

    let answer = client.ask(ask, Deadline::after(timeout)).await.map_err(Fault::into_reason)?;
    let status = answer.status;
    if status == 429 {
        return Err("unknown: rate limited (status 429)".to_owned());
    }
    let body = answer.body().await.map_err(Fault::into_reason)?;
    let json: Value = serde_json::from_slice(&body.bytes).unwrap_or_default();
    if status != 200 {
        let code = ["error_code", "error"].iter().find_map(|key| code_of(json.get(key)?));
        return Err(match code {
            Some(code) => format!("sign-in refused: status {status} ({code})"),
            None => format!("sign-in refused: status {status}"),
        });
    }
    match json.get("access_token").and_then(Value::as_str) {
        Some(token) if !token.is_empty() => Ok("the test account signs in".to_owned()),
        Some(_) | None => Err("status 200, but no access token came with it".to_owned()),
    }
}

/// An error's code, when it looks like one: nothing else of an answer is shown.
fn code_of(value: &Value) -> Option<&str> {
    let code = value.as_str()?;
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    (!code.is_empty() && code.len() <= 64 && code.chars().all(plain)).then_some(code)
}
