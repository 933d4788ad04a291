//! What is secret is never shown, however the text around it is broken; and references are read.

use super::*;

/// Words that must not be in anything that is shown.
const SECRET: &str = "hunter2";

#[track_caller]
fn silent_about_the_secret(text: &str) {
    let problems = read_plain(text).map_or_else(|problems| problems, |loaded| loaded.warnings);
    assert!(!problems.is_empty(), "nothing was drawn for:\n{text}");
    for shown in
        [problems.to_string(), format!("{problems:?}"), problems.render(true, 80), problems.to_json().to_string()]
    {
        assert!(!shown.contains(SECRET), "{shown}");
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[test]
fn literal_secrets_are_masked_in_the_lines_that_are_drawn() {
    for line in [
        "[smtp]\nhost = \"localhost\"\npassword = \"hunter2\"\n",
        "[smtp]\nhost = \"localhost\"\npasswrd = \"hunter2\"\n",
        "[smtp]\nhost = \"localhost\"\npassword = hunter2\n",
        "[smtp]\nhost = \"localhost\"\npassword = \"hunter2\n",
        "[smtp]\nhost = \"localhost\"\npassword = \"\"\"hunter2\nhunter2\"\"\"\n",
        "[smtp]\nhost = \"localhost\"\npassword = { env = \"X\", literal = \"hunter2\" }\n",
        "[smtp]\nhost = \"localhost\"\npassword = [\n\"hunter2\"\n]\n",
        "[smtp]\nhost = \"localhost\" # password = \"hunter2\"\n",
        "[http]\ntoken = \"hunter2\"\nlisten = \"nowhere\"\n",
        "[http]\nlisten = \"nowhere\" # postgres://u:hunter2@h/x\n",
        "[[signal]]\nname = \"x\"\nhttp = { url = \"https://u:hunter2@h/x\", status = 1 }\n",
        "[[signal]]\nname = \"x\"\nhttp = { url = \"https://h/x?apikey=hunter2\", status = 1 }\n",
        "[[signal]]\nname = \"x\"\nhttp = { url = \"https//u:hunter2@h/x\" }\n",
        "[[signal]]\nname = \"x\"\nhttp = { url = \"http://h\", headers = { X-Own = \"hunter2\" }, stats = 1 }\n",
        "[[signal]]\nname = \"x\"\n[signal.http]\nurl = 1\n[signal.http.headers]\nX-Own = \"hunter2\"\nY = 1\n",
        "[[signal]]\nname = \"x\"\nhttp = { url = \"http://h\", body = \"hunter2\", stats = 1 }\n",
        "[[signal]]\nname = \"x\"\n[signal.postgres]\nurl = \"postgres://u:hun@hunter2/x?@h/x\"\n",
        "[[signal]]\nname = \"x\"\n[signal.postgres]\nurl = \"postgres://u:5?hunter2@h/x\"\n",
        "[[signal]]\nname = \"x\"\n[signal.postgres]\nurl = \"u:hunter2@h/x\"\n",
        "[[rollback.gate]]\nname = \"x\"\nhttp.stop = { url = \"https://u:hunter2@h\", headers = { X = \"hunter2\" }, body = \"hunter2\", x = 1 }\n",
        "[[rollback.gate]]\nname = \"x\"\npgbouncer = { url = \"postgres://u:hunter2@h/shop\", database = \"x\" }\n",
        "[[contact]]\nrole = \"x\"\nwebhook = [{ url = \"https://h/x\", secret = \"hunter2\" }]\n",
        "[[verify]]\nkind = \"auth\"\nurl = \"x\"\nemail = \"hunter2\"\npassword = \"hunter2\"\n",
        "[heartbeat]\nurl = \"https://hc.example/hunter2\"\nevry = \"1s\"\n",
        "[heartbeat]\nurl = \"https://hc.example/hunter2\" # https://hc.example/hunter2\nevery = \"never\"\n",
        "[heartbeat]\nurl = \"hc.example/hunter2\"\n",
        "secret = \"hunter2\"\n[unclosed\n",
    ] {
        silent_about_the_secret(&extended(line));
    }
    silent_about_the_secret(&edited("postgres@127.0.0.1", "u:hunter2@db.example"));
    silent_about_the_secret(&edited("postgres@127.0.0.1", "u:my hunter2@db.example"));
    silent_about_the_secret(&edited("postgres@127.0.0.1", "u:it's\\thunter2?x@db.example"));
    silent_about_the_secret(&edited(
        "\"postgres://postgres@127.0.0.1/shop\"",
        "'postgres://u:\"hunter2@db.example/shop'",
    ));
    silent_about_the_secret(&edited("name = \"shop\"", "name = \"postgres://u:hunter2@h/x\""));
    // The same secret in a comment beside the mistake.
    silent_about_the_secret(&extended("[smtp]\npassword = \"hunter2\"\n\n\n\nhst = 1 # was hunter2\n"));
}

#[test]
fn a_masked_line_keeps_its_columns() {
    let problems = read_plain(&edited("postgres@127.0.0.1/shop", "u:hunter2@localhost/x?sslmode=maybe")).unwrap_err();
    let json = problems.to_json();
    assert_eq!(json[0]["column"], 49);
    assert_eq!(json[0]["text"], "maybe");
    assert!(problems.to_string().contains("postgres://*********@localhost/x?sslmode=maybe"));
}

#[test]
fn values_given_by_reference_are_read_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| std::fs::write(directory.path().join(name), content).unwrap();
    file("token", b"from-file\r\n");
    file("smtp", b"from-credential\n\n");
    let credentials = directory.path().display().to_string();
    let text = extended(
        "[http]\ntoken = { file = \"token\" }\n[smtp]\nhost = { env = \"HOST\" }\nusername = \"u\"\n\
         password = { credential = \"smtp\" }\nfrom = \"a@b.example\"\ntimeout = { env = \"PATIENCE\" }\n\
         [window]\ncommand = [\"sh\", \"-c\", { env = \"HOST\" }]\n",
    );
    let variables = [
        ("PATH", "/usr/bin:/bin"),
        ("HOST", "hunter2.example"),
        ("PATIENCE", "7s"),
        ("CREDENTIALS_DIRECTORY", credentials.as_str()),
    ];
    let config = read_in(directory.path(), &text, &variables).unwrap().config;
    let smtp = config.smtp.clone().unwrap();
    assert_eq!(config.http.clone().unwrap().token.unwrap().expose(), "from-file");
    assert_eq!(smtp.credentials.unwrap().1.expose(), "from-credential\n");
    assert_eq!(smtp.host, "hunter2.example");
    assert_eq!(smtp.timeout.as_secs(), 7);
    let command = config.window.command.clone().unwrap();
    assert_eq!(command.arguments, ["-c", "hunter2.example"]);
    assert_eq!(command.shown, ["sh", "-c", "***"]);
    assert!(!format!("{:?}", config.window).contains(SECRET));
}

#[test]
fn a_reference_that_leads_nowhere_is_named_without_its_value() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("binary"), [0xff, 0xfe]).unwrap();
    std::fs::write(directory.path().join("long"), vec![b'x'; 70_000]).unwrap();
    for (reference, message) in [
        ("{ env = \"GONE\" }", "`http.token`: the environment variable `GONE` is not set".to_owned()),
        ("{ env = \"\" }", "`http.token`: the environment variable `` is not set".to_owned()),
        (
            "{ credential = \"x\" }",
            "`http.token`: the credential `x` is not there: CREDENTIALS_DIRECTORY is not set".to_owned(),
        ),
        ("{ credential = \"../x\" }", "`http.token`: `../x` is not the name of a credential".to_owned()),
        ("{ vault = \"x\" }", "`http.token` is not a reference to a string".to_owned()),
        ("{}", "`http.token` is not a reference to a string".to_owned()),
        ("{ env = \"A\", file = \"B\" }", "`http.token` is not a reference to a string".to_owned()),
        ("{ env = \"EMPTY\" }", "`http.token` is empty".to_owned()),
    ] {
        let text = extended(&format!("[http]\ntoken = {reference}\n"));
        let found = found(read_in(directory.path(), &text, &[("EMPTY", "")]));
        assert_eq!(found.iter().map(|(message, _)| message).collect::<Vec<_>>(), [&message]);
    }
    for (file, reason) in [
        ("gone", "no such file or directory"),
        ("binary", "it is not UTF-8"),
        ("long", "it is longer than 64 KiB"),
        (".", "it is not a file"),
    ] {
        let text = extended(&format!("[http]\ntoken = {{ file = \"{file}\" }}\n"));
        let found = found(read_in(directory.path(), &text, &[]));
        assert_eq!(found.len(), 1);
        assert!(found[0].0.ends_with(&format!("cannot be read: {reason}")), "{}", found[0].0);
    }
}

#[test]
fn a_wrong_value_by_reference_is_not_quoted() {
    let text = extended(
        "[window]\nsoak = { env = \"SOAK\" }\nmissed = { env = \"SOAK\" }\n[http]\nlisten = { env = \"SOAK\" }\n",
    );
    let problems = read_with(&text, &[("SOAK", SECRET)]).unwrap_err();
    assert_eq!(problems.len(), 3);
    assert!(!problems.to_string().contains(SECRET), "{problems}");
    assert!(problems.to_string().contains("the value of $SOAK is not a duration"), "{problems}");
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let problems = read_plain(&extended("# \u{1b}[31m \u{202e}\nstrange = \"\\u001b[31m\" \u{7}\n")).unwrap_err();
    assert!(problems.to_string().chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')));
    let problems = read_plain(&edited("name = \"shop\"", "name = \"\\u001b[31m\"")).unwrap_err();
    assert!(!problems.to_string().contains('\u{1b}'));
}

#[test]
fn arguments_are_shown_without_their_secrets() {
    for (argument, shown) in [
        (
            "postgres://app:pass@word@db/shop?sslmode=require&password=x",
            "postgres://***@db/shop?sslmode=require&password=***",
        ),
        ("--password=sesame", "--password=***"),
        ("host=db password='a b' dbname=shop", "host=db password='***' dbname=shop"),
        ("rm -f /run/*.flag", "rm -f /run/*.flag"),
        ("ON_ERROR_STOP=1", "ON_ERROR_STOP=1"),
    ] {
        assert_eq!(redact::argument(argument), shown);
    }
}
