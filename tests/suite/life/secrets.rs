//! Secrets are nowhere but where they were put: a whole rollback with a configuration full of them, then a search.

use std::path::Path;

use super::open;
use crate::endings::BREAKING;
use crate::stage::{Behaviour, Mail, QUARANTINE, Stage, eventually, script};

/// Distinctive, and none is part of another.
const SECRETS: [(&str, &str); 8] = [
    ("SECRET_HEADER", "hdr-5ecret-aaaaaaaa"),
    ("SECRET_QUERY", "qry-5ecret-bbbbbbbb"),
    ("SECRET_USER", "usr-5ecret-cccccccc"),
    ("SECRET_TOKEN", "tok-5ecret-dddddddd"),
    ("SECRET_HOOK", "whsec_aG9vay01ZWNyZXQtZWVlZWVlZWU="),
    ("SECRET_APIKEY", "key-5ecret-ffffffff"),
    ("SECRET_ARGUMENT", "arg-5ecret-gggggggg"),
    ("SECRET_BODY", "bdy-5ecret-hhhhhhhh"),
];

/// What must not be found: the secrets, the database's password in either spelling, and the test account's.
fn forbidden(stage: &Stage) -> Vec<String> {
    let mut all: Vec<String> = SECRETS.iter().map(|(_, value)| (*value).to_owned()).collect();
    let password = stage.database.url().split(':').nth(2).unwrap().split('@').next().unwrap().to_owned();
    all.extend([password, "o'wner? s&cret".to_owned(), "correct horse".to_owned()]);
    all
}

#[track_caller]
fn assert_clean(what: &str, text: &str, forbidden: &[String]) {
    for secret in forbidden {
        if let Some(at) = text.find(secret.as_str()) {
            let around = text.get(at.saturating_sub(200)..).unwrap_or_default();
            panic!("{what} holds {secret}: {}", around.chars().take(400).collect::<String>());
        }
    }
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

#[test]
fn no_secret_is_found_after_a_rollback() {
    let mut stage = Stage::new("secrets");
    for (name, value) in SECRETS {
        stage.set(name, value);
    }
    let app = stage.app.address();
    let user_and_query = format!("http://me:{}@{app}/api/posts?key={}", SECRETS[2].1, SECRETS[1].1);
    stage.set("SECRET_URL", user_and_query);
    stage.plan.signals =
        "[[signal]]\nname = \"api\"\nevery = \"100ms\"\n[signal.http]\nurl = { env = \"SECRET_URL\" }\n\
        headers = { authorization = { env = \"SECRET_HEADER\" } }\nbody = { env = \"SECRET_BODY\" }\nmethod = \"GET\"\n"
            .to_owned();
    stage.plan.change(
        "email = \"watchdog@shop.example\"",
        "apikey = { env = \"SECRET_APIKEY\" }\nemail = \"watchdog@shop.example\"",
    );
    let failing = stage.script("emergency.sh", "echo $DATABASE_URL; echo argument $1; env; env >&2; exit 4");
    let rung =
        script(&failing).replace(&format!("[{failing:?}]"), &format!("[{failing:?}, {{ env = \"SECRET_ARGUMENT\" }}]"));
    stage.plan.rungs = rung + QUARANTINE;
    let looks = stage.script("look.sh", "echo seen with $SECRET_HEADER");
    stage.plan.checks.push_str(&format!("[[verify]]\nkind = \"command\"\nname = \"look\"\nrun = [{looks:?}]\n"));
    let name = stage.script("migrate.sh", &format!("env; {}; echo $DATABASE_URL", stage.migration(BREAKING).join(" ")));
    stage.plan.command(&[name]);
    let hook = stage.hooks.url();
    stage
        .plan
        .change(&format!("url = {hook:?}"), "url = { env = \"SECRET_HOOK_URL\" }\nsecret = { env = \"SECRET_HOOK\" }");
    stage.set("SECRET_HOOK_URL", format!("{hook}?token={}", SECRETS[1].1));
    let mail = Mail::start(&stage, Behaviour::Takes);
    stage.plan.mail(mail.port());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    stage
        .plan
        .services
        .push_str(&format!("\n[http]\nlisten = \"127.0.0.1:{port}\"\ntoken = {{ env = \"SECRET_TOKEN\" }}\n"));
    stage.set("ROLLBACKD_LOG", "debug");

    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("recovered");
    eventually("nothing is owed", || match stage.status().unwrap()["notices_pending"].as_u64() {
        Some(0) => Ok(()),
        left => Err(left),
    });
    let forbidden = forbidden(&stage);
    let id = stage.status().unwrap()["window"]["id"].as_str().unwrap().to_owned();
    for path in [
        "/metrics",
        "/api/v1/status",
        "/api/v1/windows",
        &format!("/api/v1/windows/{id}"),
        &format!("/api/v1/windows/{id}/report"),
    ] {
        let (status, body) = stage.get(path).unwrap();
        assert_eq!(status, 200);
        assert_clean(path, &body, &forbidden);
    }
    for command in [
        &["status"][..],
        &["report"],
        &["report", "--json"],
        &["history"],
        &["check"],
        &["check", "--online"],
        &["check", "--online", "--json"],
        &["verify"],
        &["verify", "--json"],
    ] {
        let output = stage.cli(command);
        assert_clean(&format!("{command:?}"), &(output.stdout + &output.stderr), &forbidden);
    }
    for body in stage.hooks.bodies() {
        assert_clean("a webhook", &body.to_string(), &forbidden);
    }
    for message in mail.messages() {
        assert_clean("a mail", &message.to_string(), &forbidden);
    }
    let output = daemon.term().expect(0);
    assert_clean("the log", &output.stderr, &forbidden);
    assert!(output.stderr.contains("\"level\":\"debug\""));

    // Frozen configurations and what a script printed are the owner's alone; everything else is clean.
    for file in files(&stage.state()) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions()) & 0o777;
        let name = file.strip_prefix(stage.state()).unwrap().display().to_string();
        if name.starts_with("configs/") || name.starts_with("evidence/") {
            assert_eq!(mode, 0o600, "{name}");
        } else {
            let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
            assert_clean(&name, &text, &forbidden);
        }
    }
    for file in files(&stage.path("backups")) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert_clean(&file.display().to_string(), &text, &forbidden);
    }
}
