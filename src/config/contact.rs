//! `[[contact]]`, `[smtp]`, `[http]` and `[heartbeat]`: who is told, who may ask, and who notices our silence.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use rollbackd_core::plan::Severity;

use super::cross::Names;
use super::database::is_this_host;
use super::model::{Channel, Contact, Heartbeat, Http, SigningKey, Smtp, SmtpTls};
use super::problem::Problem;
use super::redact::quoted;
use super::scalar::{ANY, BOUND, PACE, seconds};
use super::section::Section;
use super::value::Value;

/// Webhook formats of a later version.
const LATER_FORMATS: [&str; 4] = ["slack", "discord", "teams", "pagerduty"];

/// Reads every `[[contact]]`. `has_smtp` says whether mail can be sent.
pub(super) fn read(sections: Vec<Section<'_>>, has_smtp: bool) -> Vec<Contact> {
    let mut names = Names::of("contact");
    sections.into_iter().filter_map(|section| contact(section, &mut names, has_smtp)).collect()
}

fn contact(mut section: Section<'_>, names: &mut Names, has_smtp: bool) -> Option<Contact> {
    let doc = section.doc();
    let role = section.need("role", "role = \"database administrator\"", |value| value.filled("a role"));
    let name = if section.has("name") {
        section.maybe("name", |value| names.take(value))
    } else {
        section.take("name");
        role.as_ref().and_then(|role| names.take_text(role, "give each of them a `name`"))
    };
    let words = [("info", Severity::Info), ("warning", Severity::Warning), ("critical", Severity::Critical)];
    let severity = section.or("severity", Severity::Info, |value| value.choice(&words, &[]));
    let after = section.or("after", seconds(0), |value| value.duration(ANY));
    let (mails_written, mails) = section.or("email", (0, Vec::new()), |value| {
        let span = value.span();
        let written = value.list("a list of mail addresses")?;
        if !has_smtp {
            let problem = Problem::error(span, "mail cannot be sent: there is no [smtp]").label("needs [smtp]");
            let help = "add [smtp] with host and from, or reach this contact by [[contact.webhook]]";
            doc.report(problem.help(help).by_absence());
        }
        Some((written.len(), written.into_iter().filter_map(Value::mailbox).collect::<Vec<_>>()))
    });
    let webhooks = section.children("webhook");
    if mails_written + webhooks.len() == 0 {
        let who =
            role.as_ref().map_or_else(|| "this contact".to_owned(), |role| format!("the contact {}", role.shown()));
        let problem = Problem::error(section.span(), format!("{who} cannot be reached")).label("no channel");
        doc.report(problem.help("add email = [\"…\"] or [[contact.webhook]] with a url").by_absence());
    }
    let webhooks: Vec<Channel> = webhooks.into_iter().filter_map(webhook).collect();
    section.finish();
    let labelled = |kind: &'static str| move |(index, channel)| (format!("{kind} {}", index + 1), channel);
    let channels = mails
        .into_iter()
        .map(Channel::Email)
        .enumerate()
        .map(labelled("email"))
        .chain(webhooks.into_iter().enumerate().map(labelled("webhook")))
        .collect();
    Some(Contact { role: role?.value, name: name?, severity, after, channels })
}

fn webhook(mut section: Section<'_>) -> Option<Channel> {
    let url = section.need("url", "url = { env = \"OPS_WEBHOOK\" }", Value::web_url);
    section.or("format", (), |value| value.choice(&[("standard", ())], &LATER_FORMATS));
    let had_secret = section.has("secret");
    let key = section.maybe("secret", signing_key);
    section.finish();
    if had_secret && key.is_none() {
        return None;
    }
    Some(Channel::Webhook { url: url?, key })
}

fn signing_key(value: Value<'_>) -> Option<Arc<SigningKey>> {
    let expected = "`whsec_` and the key in base64";
    let (doc, span) = (value.doc, value.span());
    let secret = value.secret(expected)?;
    let decoded = secret
        .expose()
        .strip_prefix("whsec_")
        .and_then(|key| base64::engine::general_purpose::STANDARD.decode(key).ok())
        .filter(|key| !key.is_empty());
    if decoded.is_none() {
        let problem = Problem::error(span, "`contact.webhook.secret` is not a signing key").label("not a signing key");
        let help =
            "accepted: `whsec_` and the key in base64, made for example with: echo whsec_$(openssl rand -base64 32)";
        doc.report(problem.help(help));
    }
    decoded.map(|key| Arc::new(SigningKey::new(key)))
}

/// Reads `[smtp]`.
pub(super) fn smtp(mut section: Section<'_>) -> Option<Smtp> {
    let doc = section.doc();
    let host = section.need("host", "host = \"smtp.shop.example\"", |value| value.filled("a host name"));
    let words = [("implicit", SmtpTls::Implicit), ("starttls", SmtpTls::StartTls), ("none", SmtpTls::None)];
    let tls = section.or("tls", SmtpTls::Implicit, |value| value.choice(&words, &[]));
    let usual = match tls {
        SmtpTls::Implicit => 465,
        SmtpTls::StartTls => 587,
        SmtpTls::None => 25,
    };
    let port = section.or("port", usual, |value| value.integer(1..=65_535));
    let username = section.maybe("username", |value| value.secret("the account's name"));
    let password = section.maybe("password", |value| value.secret("the account's password"));
    let from = section.need("from", "from = \"rollbackd <rollbackd@shop.example>\"", Value::mailbox);
    let timeout = section.or("timeout", seconds(10), |value| value.duration(BOUND));
    for (has, lacks) in [("username", "password"), ("password", "username")] {
        if section.has(has) && !section.has(lacks) {
            let problem = Problem::error(section.key_span(has), format!("`smtp.{has}` without `{lacks}`"));
            doc.report(
                problem.label(format!("`{lacks}` is missing")).help("give both to sign in, or neither").by_absence(),
            );
        }
    }
    if let Some(host) = host.as_ref().filter(|host| tls == SmtpTls::None && !is_this_host(&host.value)) {
        let problem = Problem::warning(section.key_span("tls"), "mail goes to another host in plaintext");
        let what =
            if username.is_some() { "the password can be read on the way" } else { "mails can be read on the way" };
        doc.report(problem.label(what).help(format!("use tls = \"implicit\" or \"starttls\" with {}", host.shown())));
    }
    section.finish();
    let host = host?.value;
    Some(Smtp { host, port, tls, credentials: username.zip(password), from: from?, timeout })
}

/// Reads `[heartbeat]`.
pub(super) fn heartbeat(mut section: Section<'_>) -> Option<Heartbeat> {
    let url = section.need("url", "url = { env = \"HEARTBEAT_URL\" }", Value::secret_url);
    let every = section.or("every", seconds(30), |value| value.duration(PACE));
    section.finish();
    Some(Heartbeat { url: url?, every })
}

/// Reads `[http]`.
pub(super) fn http(mut section: Section<'_>) -> Http {
    let doc = section.doc();
    let local = SocketAddr::from(([127, 0, 0, 1], 9187));
    let listen = section.or("listen", local, |value| {
        let text = value.filled("an address and a port")?;
        let parsed = text.value.parse().ok();
        if parsed.is_none() {
            let message = format!("`{}`: {} is not an address and a port", text.path, text.shown());
            return text.refuse(
                message,
                "not an address",
                "accepted: such as \"127.0.0.1:9187\", \"0.0.0.0:9187\" or \"[::1]:9187\"",
            );
        }
        parsed
    });
    let token = section.maybe("token", |value| value.secret("the token of the controls"));
    if !section.has("token") && !listen.ip().is_loopback() {
        let message = format!("other hosts can reach {} but control nothing", quoted(&listen.to_string()));
        let problem = Problem::warning(section.key_span("listen"), message).label("no token");
        doc.report(problem.help("add token = { credential = \"http-token\" } to allow controls over TCP; status stays readable by everybody").by_absence());
    }
    section.finish();
    Http { listen, token }
}
