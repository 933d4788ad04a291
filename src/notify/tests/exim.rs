//! Mail through exim, Debian's own mail server: as administrators set it up, and as it refuses.
//!
//! Each test has a server of its own with a configuration of its own. What it takes stays in its queue, where it can be
//! looked at; nothing goes anywhere.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rollbackd_core::notice::Notice;
use tempfile::TempDir;

use super::certificate::Certificate;
use super::mail::{channel, smtp};
use super::{Attempts, BOUND, deliver, living, sender, sender_trusting};
use crate::clock::Stopwatch;
use crate::config::model::{Secret, Smtp, SmtpTls};
use crate::notify::samples;

/// What the server asks of whoever brings mail.
#[derive(Default)]
struct Wants<'a> {
    certificate: Option<&'a Certificate>,
    /// TLS from the first byte.
    implicit: bool,
    /// Whether one must sign in, as `rollbackd` with the password `correct horse`, and over TLS only.
    sign_in: bool,
    /// Whether a mail is put off the first time.
    greylist: bool,
}

/// A running exim; dropped, it is gone.
struct Exim {
    directory: TempDir,
    port: u16,
    daemon: Child,
}

const ACCEPTED_USER: &str = "${if and{{eq{$auth2}{rollbackd}}{eq{$auth3}{correct horse}}}}";

impl Exim {
    async fn start(wants: &Wants<'_>) -> Self {
        let directory = TempDir::new().unwrap();
        // It works as a user of its own, and may be started by root.
        for name in ["", "spool", "log"] {
            let path = directory.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
        }
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        if let Some(certificate) = wants.certificate {
            let path = directory.path().join("pem");
            std::fs::copy(certificate.path(), &path).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = directory.path().join("exim.conf");
        std::fs::write(&config, configuration(&directory, port, wants)).unwrap();
        let executable =
            ["/usr/sbin/exim4", "/usr/sbin/exim"].into_iter().find(|path| std::path::Path::new(path).exists());
        let daemon = Command::new(executable.expect("exim4 is installed: tools/install-deps test"))
            .arg("-C")
            .arg(config)
            .args(["-bdf", "-oX", &format!("127.0.0.1.{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let exim = Self { directory, port, daemon };
        let started = Stopwatch::start();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(started.elapsed() < BOUND, "exim does not start: {}", exim.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        exim
    }

    fn smtp(&self, tls: SmtpTls, password: Option<&str>) -> Smtp {
        let credentials = password.map(|password| (Secret::new("rollbackd"), Secret::new(password)));
        Smtp { tls, credentials, ..smtp("127.0.0.1", self.port) }
    }

    fn log(&self) -> String {
        let mut text = String::new();
        for name in ["main", "reject", "panic"] {
            let path = self.directory.path().join("log").join(name);
            text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
        }
        text
    }

    /// The mails in its queue, oldest first: envelope and headers as exim keeps them, and the contents.
    fn queue(&self) -> Vec<(String, String)> {
        let Ok(files) = std::fs::read_dir(self.directory.path().join("spool/input")) else { return Vec::new() };
        let mut heads: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        heads.retain(|path| path.to_str().unwrap().ends_with("-H"));
        heads.sort();
        let read = |path: &str| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        heads
            .iter()
            .map(|head| head.to_str().unwrap())
            .map(|head| (read(head), read(&head.replace("-H", "-D"))))
            .collect()
    }

    /// The one mail that it took.
    #[track_caller]
    fn taken(&self) -> (String, String) {
        let mut queue = self.queue();
        assert_eq!(queue.len(), 1, "{}", self.log());
        queue.remove(0)
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

fn configuration(directory: &TempDir, port: u16, wants: &Wants<'_>) -> String {
    let home = directory.path().display();
    let mut text = format!(
        "primary_hostname = mail.test\nspool_directory = {home}/spool\nlog_file_path = {home}/log/%s\n\
         pid_file_path = {home}/log/pid\nhost_lookup =\nrfc1413_hosts =\nkeep_environment =\nqueue_only = true\n\
         acl_smtp_rcpt = recipient\nacl_smtp_data = contents\n"
    );
    if wants.certificate.is_some() {
        writeln!(text, "tls_certificate = {home}/pem\ntls_advertise_hosts = *").unwrap();
    } else {
        writeln!(text, "tls_advertise_hosts =").unwrap();
    }
    if wants.implicit {
        writeln!(text, "tls_on_connect_ports = {port}").unwrap();
    }
    text.push_str("begin acl\nrecipient:\n");
    if wants.sign_in {
        text.push_str("  deny !authenticated = *\n       message = sign in first\n");
    }
    text.push_str("  deny local_parts = nobody\n       message = no such user here\n  accept\ncontents:\n");
    if wants.greylist {
        // As greylisting does: the first time is remembered, and put off.
        writeln!(
            text,
            "  defer condition = ${{if !exists{{{home}/log/known}}}}\n        \
             condition = ${{run{{/usr/bin/touch {home}/log/known}}{{yes}}{{no}}}}\n        \
             logwrite = put off: $h_Message-ID:\n        message = greylisted, come again"
        )
        .unwrap();
    }
    text.push_str("  accept\nbegin routers\nbegin transports\nbegin authenticators\n");
    if wants.sign_in {
        for (name, prompts, condition) in [
            ("PLAIN", ":", ACCEPTED_USER.to_owned()),
            (
                "LOGIN",
                "<| Username: | Password:",
                ACCEPTED_USER.replace("$auth2", "$auth1").replace("$auth3", "$auth2"),
            ),
        ] {
            writeln!(
                text,
                "{name}_server:\n  driver = plaintext\n  public_name = {name}\n  server_prompts = {prompts}\n  \
                 server_advertise_condition = ${{if def:tls_in_cipher}}\n  server_condition = {condition}\n  \
                 server_set_id = rollbackd"
            )
            .unwrap();
        }
    }
    text
}

fn fresh() -> Notice {
    samples::fresh(samples::breach())
}

#[tokio::test]
async fn a_mail_is_taken() {
    let exim = Exim::start(&Wants::default()).await;
    let sender = sender(channel(), Some(exim.smtp(SmtpTls::None, None)));
    let attempts = Attempts::default();
    deliver(&sender, &fresh(), "email 1", &attempts).await.unwrap();
    let (head, contents) = exim.taken();
    assert!(head.contains("\n<rollbackd@shop.example>\n"), "{head}");
    assert!(head.contains("\nops@shop.example\n"), "{head}");
    assert!(head.contains("Subject: [rollbackd][CRITICAL] shop: breach detected"), "{head}");
    assert!(head.contains("Message-ID: <shop-20261122T020000Z.3.0.db1@shop.example>"), "{head}");
    assert!(contents.contains("Content-Type: text/html"), "{contents}");
    assert_eq!((attempts.count(), attempts.failures()), (1, Vec::new()));
    assert_eq!(sender.reach().await, [(format!("127.0.0.1:{}", exim.port), Ok(()))]);
    assert_eq!(exim.queue().len(), 1, "greeting sends no mail");
}

#[tokio::test]
async fn starttls_and_implicit_tls() {
    let certificate = Certificate::make().await;
    for (tls, implicit) in [(SmtpTls::StartTls, false), (SmtpTls::Implicit, true)] {
        let exim = Exim::start(&Wants { certificate: Some(&certificate), implicit, ..Wants::default() }).await;
        let trusting = sender_trusting(certificate.trusted(), channel(), Some(exim.smtp(tls, None)));
        deliver(&trusting, &fresh(), "email 1", &Attempts::default()).await.unwrap();
        let (head, _) = exim.taken();
        assert!(head.contains("-tls_cipher TLS1."), "{tls:?}: {head}");

        let attempts = Attempts::default();
        let distrusting = sender(channel(), Some(exim.smtp(tls, None)));
        let error = deliver(&distrusting, &living(300), "email 1", &attempts).await.unwrap_err();
        assert!(error.contains("no secure connection to the mail server"), "{tls:?}: {error}");
        assert!(attempts.failures().iter().all(|label| label == "tls"), "{:?}", attempts.failures());
        assert_eq!(exim.queue().len(), 1, "{tls:?}");
    }
}

#[tokio::test]
async fn a_server_that_offers_no_tls_gets_nothing() {
    let exim = Exim::start(&Wants::default()).await;
    for (tls, said) in [(SmtpTls::StartTls, "STARTTLS"), (SmtpTls::Implicit, "no secure connection")] {
        let sender = sender(channel(), Some(exim.smtp(tls, Some("correct horse"))));
        let error = deliver(&sender, &living(200), "email 1", &Attempts::default()).await.unwrap_err();
        assert!(error.contains(said) && !error.contains("horse"), "{tls:?}: {error}");
    }
    assert!(exim.queue().is_empty());
    assert!(!exim.log().contains("AUTH"), "nobody signs in without TLS: {}", exim.log());
}

#[tokio::test]
async fn signing_in() {
    let certificate = Certificate::make().await;
    let exim = Exim::start(&Wants { certificate: Some(&certificate), sign_in: true, ..Wants::default() }).await;
    let signing_in =
        |password| sender_trusting(certificate.trusted(), channel(), Some(exim.smtp(SmtpTls::StartTls, password)));
    let right = signing_in(Some("correct horse"));
    deliver(&right, &fresh(), "email 1", &Attempts::default()).await.unwrap();
    let (head, _) = exim.taken();
    assert!(head.contains("-auth_id rollbackd"), "{head}");
    assert_eq!(right.reach().await, [(format!("127.0.0.1:{}", exim.port), Ok(()))]);

    for (password, said) in [(Some("wrong horse"), "535"), (None, "sign in first")] {
        let attempts = Attempts::default();
        let wrong = signing_in(password);
        let error = deliver(&wrong, &fresh(), "email 1", &attempts).await.unwrap_err();
        assert!(error.starts_with("the mail server refuses: ") && error.contains(said), "{error}");
        assert!(!error.contains("horse"), "{error}");
        assert_eq!(attempts.failures(), ["smtp_5yz"], "it is given up at once");
    }
    let reached = signing_in(Some("wrong horse")).reach().await;
    assert!(matches!(reached.as_slice(), [(_, Err(_))]), "{reached:?}");
    assert_eq!(exim.queue().len(), 1);
}

#[tokio::test]
async fn greylisting_puts_off_the_same_mail() {
    let exim = Exim::start(&Wants { greylist: true, ..Wants::default() }).await;
    let sender = sender(channel(), Some(exim.smtp(SmtpTls::None, None)));
    let attempts = Attempts::default();
    deliver(&sender, &fresh(), "email 1", &attempts).await.unwrap();
    assert_eq!(attempts.failures(), ["smtp_4yz"]);
    assert_eq!(attempts.count(), 2);
    let id = "<shop-20261122T020000Z.3.0.db1@shop.example>";
    assert!(exim.log().contains(&format!("put off: {id}")), "{}", exim.log());
    let (head, _) = exim.taken();
    assert!(head.contains(&format!("Message-ID: {id}")), "the same as the first time: {head}");
}

#[tokio::test]
async fn a_refusal_is_final() {
    let exim = Exim::start(&Wants::default()).await;
    let nobody = crate::config::model::Channel::Email("nobody@shop.example".parse().unwrap());
    let sender = sender(nobody, Some(exim.smtp(SmtpTls::None, None)));
    let attempts = Attempts::default();
    let error = deliver(&sender, &fresh(), "email 1", &attempts).await.unwrap_err();
    assert!(error.starts_with("the mail server refuses: ") && error.contains("no such user here"), "{error}");
    assert_eq!(attempts.failures(), ["smtp_5yz"]);
    assert!(exim.queue().is_empty());
}
