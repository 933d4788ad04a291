//! Notice → mail, the same bytes at every attempt and after every restart. Pure.

use std::time::SystemTime;

use lettre::Message;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use rollbackd_core::notice::Notice;
use sha2::{Digest as _, Sha256};

use super::letter::Letter;
use super::{html, text};

/// RFC 3834: keeps vacation programs from answering.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// The mail to one address of the contact at this place of the configuration's list.
pub(super) fn compose(notice: &Notice, from: &Mailbox, to: &Mailbox, place: usize) -> Result<Message, String> {
    let letter = Letter::of(notice);
    let mut mail = Message::builder()
        .from(from.clone())
        .to(to.clone())
        .date(SystemTime::from(notice.at))
        .subject(letter.subject.clone())
        .message_id(Some(message_id(notice, &notice.id, from)))
        .header(AutoSubmitted);
    if let Some(first) = first_of_thread(notice, place) {
        let first = message_id(notice, &first, from);
        mail = mail.in_reply_to(first.clone()).references(first);
    }
    let body = MultiPart::alternative()
        .boundary(boundary(notice))
        .singlepart(SinglePart::plain(text::render(&letter)))
        .singlepart(SinglePart::html(html::render(&letter)));
    mail.multipart(body).map_err(|error| format!("the mail cannot be written: {error}"))
}

/// Made from the notice's id. The host is part of it, because two hosts may guard plans of one name, and mail
/// programs drop the second of two mails with one id.
fn message_id(notice: &Notice, id: &str, from: &Mailbox) -> String {
    format!("<{}.{}@{}>", atom(id), atom(&notice.message.host), from.email.domain())
}

/// The id of the window's first notice to the same contact, under which mail programs gather all others. `None` for
/// that notice itself, and outside of a window. Ids are `<window>.<sequence>.<place of the contact>`, so it need not be
/// remembered; when it was too mild to be sent to this contact, the others still gather under its name.
fn first_of_thread(notice: &Notice, place: usize) -> Option<String> {
    let window = notice.message.window.as_ref()?;
    let first = format!("{window}.1.{place}");
    (notice.id != first).then_some(first)
}

/// What an id may hold.
fn atom(text: &str) -> String {
    let atom: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' }).collect();
    let atom: Vec<&str> = atom.split('.').filter(|part| !part.is_empty()).collect();
    if atom.is_empty() { "unnamed".to_owned() } else { atom.join(".") }
}

/// Fixed for a notice, so that a retry after a restart has the same bytes. `=_` cannot stand in an encoded part, and
/// nobody can guess it into a plain one.
fn boundary(notice: &Notice) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(format!("{}\n{}", notice.id, notice.message.host));
    let mut boundary = String::from("=_rollbackd_");
    for byte in digest.iter().take(12) {
        // Writing to a string cannot fail.
        write!(boundary, "{byte:02x}").unwrap_or_default();
    }
    boundary
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::samples;

    fn mailbox(text: &str) -> Mailbox {
        text.parse().unwrap()
    }

    fn mail(notice: &Notice) -> String {
        let from = mailbox("rollbackd <rollbackd@shop.example>");
        let mail = compose(notice, &from, &mailbox("ops@shop.example"), 0).unwrap();
        String::from_utf8(mail.formatted()).unwrap()
    }

    fn header<'a>(mail: &'a str, name: &str) -> Option<&'a str> {
        let head = mail.split("\r\n\r\n").next().unwrap();
        head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[test]
    fn a_mail_is_the_same_at_every_attempt() {
        for notice in samples::all() {
            assert_eq!(mail(&notice), mail(&notice));
        }
    }

    #[test]
    fn headers_are_as_the_interface_says() {
        let mail = mail(&samples::started());
        assert_eq!(header(&mail, "Subject"), Some("[rollbackd][CRITICAL] shop: rollback started"));
        assert_eq!(header(&mail, "Auto-Submitted"), Some("auto-generated"));
        assert_eq!(header(&mail, "Date"), Some("Sun, 22 Nov 2026 02:14:05 +0000"));
        assert_eq!(header(&mail, "From"), Some("rollbackd <rollbackd@shop.example>"));
        assert_eq!(header(&mail, "To"), Some("ops@shop.example"));
        assert!(mail.find("text/plain") < mail.find("text/html"), "text first");
    }

    #[test]
    fn an_incident_is_one_thread() {
        let first = mail(&samples::opened());
        assert_eq!(header(&first, "In-Reply-To"), None);
        assert_eq!(header(&first, "References"), None);
        let root = header(&first, "Message-ID");
        assert_eq!(root, Some("<shop-20261122T020000Z.1.0.db1@shop.example>"));
        for later in [samples::breach(), samples::started(), samples::needs_operator()] {
            let later = mail(&later);
            assert_ne!(header(&later, "Message-ID"), root);
            assert_eq!(header(&later, "In-Reply-To"), root);
            assert_eq!(header(&later, "References"), root);
        }
    }

    #[test]
    fn an_id_of_another_form_joins_the_contacts_thread() {
        let mut notice = samples::started();
        notice.id = "shop-20261122T020000Z.4.1.undeliverable.0.email 1>".into();
        let mail = mail(&notice);
        let id = "<shop-20261122T020000Z.4.1.undeliverable.0.email-1-.db1@shop.example>";
        assert_eq!(header(&mail, "Message-ID"), Some(id));
        assert_eq!(header(&mail, "References"), Some("<shop-20261122T020000Z.1.0.db1@shop.example>"));
    }

    #[test]
    fn a_test_is_no_part_of_a_thread() {
        assert_eq!(header(&mail(&samples::test()), "References"), None);
    }

    #[test]
    fn ids_keep_to_what_an_id_may_hold() {
        assert_eq!(atom("a b\r\n<c>@d"), "a-b---c--d");
        assert_eq!(atom("..a..b."), "a.b");
        assert_eq!(atom(""), "unnamed");
    }
}
