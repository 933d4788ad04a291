//! Each thing that the contract calls an error or a warning, found alone and underlined where it is.

use super::*;
use crate::config::model::{CheckKind, IntegrityPolicy};

#[track_caller]
fn only(text: &str, message: &str, underlined: &str) {
    let found = found(read_plain(text));
    assert_eq!(found, [(message.to_owned(), underlined.to_owned())], "in:\n{text}");
}

#[track_caller]
pub(super) fn is_error(text: &str, message: &str, underlined: &str) {
    assert!(read_plain(text).is_err(), "accepted:\n{text}");
    only(text, message, underlined);
}

#[track_caller]
fn is_warning(text: &str, message: &str, underlined: &str) {
    if let Err(problems) = read_plain(text) {
        panic!("refused:\n{problems}");
    }
    only(text, message, underlined);
}

#[test]
fn the_minimal_configuration_is_accepted_in_silence() {
    assert_eq!(found(read_plain(&extended(""))), []);
}

#[test]
fn a_configuration_needs_a_rung_a_signal_and_a_rollback_rule() {
    is_error(
        &edited("[[rollback.rung]]\nkind = \"tables\"\ntables = \"added\"", ""),
        "a way to roll back is missing",
        "",
    );
    is_error(&edited("then = \"rollback\"", "then = \"page\""), "a rule that leads to a rollback is missing", "");
    let none =
        format!("{}{QUIET}", MINIMAL.replace("[[signal]]\nname = \"api\"\nhttp.url = \"http://127.0.0.1/health\"", ""));
    let messages: Vec<_> = found(read_plain(&none)).into_iter().map(|(message, _)| message).collect();
    assert_eq!(messages, ["a signal is missing", "there is no signal named `api`"]);
}

#[test]
fn missing_keys_and_sections() {
    is_error(&edited("name = \"shop\"", ""), "`name` is missing", "");
    is_error(
        &edited("url = \"postgres://postgres@127.0.0.1/shop\"", ""),
        "`url` is missing in [database]",
        "[database]",
    );
    is_error(&edited("kind = \"tables\"", ""), "`kind` is missing in [[rollback.rung]]", "[[rollback.rung]]");
    is_error(&extended("[smtp]\nhost = \"localhost\"\n"), "`from` is missing in [smtp]", "[smtp]");
    is_error(&edited("http.url = \"http://127.0.0.1/health\"", ""), "[[signal]] has no kind of signal", "[[signal]]");
    is_error(&edited("consecutive = 3", ""), "[[rule]] has no condition", "[[rule]]");
    let database =
        "[database]\nurl = \"postgres://postgres@127.0.0.1/shop\"\noriginal_tables = [\"profiles\", \"posts\"]";
    is_error(&edited(database, ""), "[database] is missing", "");
}

#[test]
fn names() {
    for name in ["Shop", "", "a b", "ä", &"x".repeat(41)] {
        let text = edited("name = \"shop\"", &format!("name = \"{name}\""));
        is_error(&text, &format!("`{name}` is no name for a plan"), &format!("\"{name}\""));
    }
    is_error(&edited("signal = \"api\"", "signal = \"apis\""), "there is no signal named `apis`", "\"apis\"");
    is_error(
        &extended("[[signal]]\nname = \"api\"\ntcp.address = \"localhost:80\"\n"),
        "two signals are named `api`",
        "\"api\"",
    );
    is_error(
        &extended("[[contact]]\nrole = \"ops\"\nwebhook = [{ url = \"https://hooks.example/y\" }]\n"),
        "two contacts are named `ops`",
        "\"ops\"",
    );
    let gates = "[[rollback.gate]]\nname = \"g\"\ncanary = \"http://localhost/\"\nfile.path = \"/run/x\"\n".repeat(2);
    is_error(&extended(&gates), "two gates are named `g`", "\"g\"");
}

#[test]
fn originals_and_protected_schemas_are_never_removed() {
    let rung = |tables: &str| edited("tables = \"added\"", &format!("tables = {tables}"));
    is_error(
        &rung("[\"pages\", \"posts\"]"),
        "`public.posts` is an original table and must not be removed",
        "\"posts\"",
    );
    is_error(
        &rung("[\"\\\"public\\\".profiles\"]"),
        "`public.profiles` is an original table and must not be removed",
        "\"\\\"public\\\".profiles\"",
    );
    is_error(&rung("[\"pages\", \"pages\"]"), "`public.pages` is named twice in this rung", "\"pages\"");
    is_error(&rung("[]"), "this rung removes no table", "[]");
    is_error(
        &rung("[\"a.b.c\"]"),
        "`rollback.rung.tables`: `a.b.c` has too many parts; write `table` or `schema.table`",
        "\"a.b.c\"",
    );
    let protected = rung("[\"auth.users\"]").replace("[database]", "[database]\nprotected_schemas = [\"auth\"]");
    is_error(&protected, "`auth.users` is in a protected schema and must not be removed", "\"auth.users\"");
}

#[test]
fn schedules_and_zones() {
    let window = |lines: &str| extended(&format!("[window]\n{lines}\n"));
    is_error(&window("schedule = \"0 2 30 2 *\""), "the schedule `0 2 30 2 *` never fires", "\"0 2 30 2 *\"");
    is_error(&window("schedule = \"0 2 *\""), "`0 2 *` is not a schedule: it has 3 fields", "\"0 2 *\"");
    is_error(
        &window("timezone = \"Europe/Berln\""),
        "`window.timezone`: `Europe/Berln` is not a known time zone",
        "\"Europe/Berln\"",
    );
    for good in ["0 2 * * SAT", "30 0 2 * * *", "0 2 29 2 *"] {
        only_accepted(&window(&format!("schedule = \"{good}\"\ntimezone = \"Europe/Berlin\"")));
    }
    // A soak may be longer than the window: it is never cut short.
    only_accepted(&window("duration = \"1m\"\nsoak = \"1h\""));
}

#[track_caller]
fn only_accepted(text: &str) {
    assert_eq!(found(read_plain(text)), [], "in:\n{text}");
}

#[test]
fn programs_and_scripts_must_exist() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("undo.sh");
    std::fs::write(&path, "#!/bin/sh\n").unwrap();
    let script = |command: &str| {
        edited("kind = \"tables\"\ntables = \"added\"", &format!("kind = \"script\"\ncommand = {command}"))
    };
    let check = |command: &str| found(read_in(directory.path(), &script(command), &[("PATH", "/usr/bin:/bin")]));

    assert_eq!(
        check("[\"./undo.sh\"]"),
        [("the program `./undo.sh` is not executable".into(), "\"./undo.sh\"".into())]
    );
    assert_eq!(check("[\"sh\", \"./undo.sh\"]"), []);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(check("[\"./undo.sh\"]"), []);
    assert_eq!(check("[\"undo.sh\"]"), []);
    assert_eq!(
        check("[\"no-such-program-anywhere\"]"),
        [(
            "the program `no-such-program-anywhere` does not exist in PATH or beside the configuration file".into(),
            "\"no-such-program-anywhere\"".into()
        )]
    );
    assert_eq!(
        check("[\"sh\", \"scripts/x.js\"]"),
        [("the script `scripts/x.js` does not exist".into(), "\"scripts/x.js\"".into())]
    );
    assert_eq!(check("[]"), [("a command needs a program".into(), "[]".into())]);
}

#[test]
fn a_sql_file_must_be_one_that_runs_in_one_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let text = edited("kind = \"tables\"\ntables = \"added\"", "kind = \"sql\"\nfile = \"undo.sql\"");
    let check = |content: Option<&[u8]>| {
        let file = directory.path().join("undo.sql");
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let found = found(read_in(directory.path(), &text, &[("PATH", "/usr/bin:/bin")]));
        assert!(found.iter().all(|(_, place)| place == "\"undo.sql\""), "{found:?}");
        found.into_iter().map(|(message, _)| message).collect::<Vec<_>>()
    };
    assert_eq!(check(None), ["the SQL file `undo.sql` cannot be used: no such file or directory"]);
    assert_eq!(check(Some(b"drop table pages;\n")), [""; 0]);
    assert_eq!(
        check(Some(b"begin;\ndrop table pages;\n\\i more\n")),
        [
            "undo.sql:1: `begin`: transaction control of its own: the file runs in one transaction, which is begun and ended for it",
            "undo.sql:3: `\\i more`: psql's own commands are not SQL"
        ]
    );
    assert_eq!(check(Some(b"-- nothing yet\n")), ["undo.sql:1: it holds no statement"]);
    assert_eq!(check(Some(b"")), ["undo.sql:1: it holds no statement"]);
    let not_text = "the SQL file `undo.sql` cannot be used: it is not UTF-8: line 2 holds a byte that is not text";
    assert_eq!(check(Some(b"drop table a;\n-- \xff")), [not_text]);
    assert_eq!(
        check(Some(&vec![b'\n'; 4 * 1024 * 1024 + 1])),
        ["the SQL file `undo.sql` cannot be used: it is longer than 4 MiB"]
    );
    let many = check(Some("commit;\n".repeat(25).as_bytes()));
    assert_eq!((many.len(), many[20].as_str()), (21, "undo.sql: 5 more places like these"));
    std::fs::remove_file(directory.path().join("undo.sql")).unwrap();
    std::fs::create_dir(directory.path().join("undo.sql")).unwrap();
    assert_eq!(check(None), ["the SQL file `undo.sql` cannot be used: it is not a file"]);
}

#[test]
fn a_frozen_copy_only_warns_of_files_that_have_gone() {
    let text = edited("kind = \"tables\"\ntables = \"added\"", "kind = \"script\"\ncommand = [\"/gone/undo.sh\"]");
    assert!(read_plain(&text).is_err());
    let loaded = load_text(text, Path::new("/etc/rollbackd/shop.toml"), &BTreeMap::new()).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn contacts_need_a_way_to_be_reached() {
    is_error(&extended("[[contact]]\nrole = \"dba\"\n"), "the contact `dba` cannot be reached", "[[contact]]");
    is_error(
        &extended("[[contact]]\nrole = \"dba\"\nemail = [\"a@b.example\"]\n"),
        "mail cannot be sent: there is no [smtp]",
        "[\"a@b.example\"]",
    );
    is_error(
        &extended("[[contact]]\nrole = \"dba\"\nwebhook = [{ url = \"https://x.example\", secret = \"whsec_!\" }]\n"),
        "`contact.webhook.secret` is not a signing key",
        "\"*******\"",
    );
}

#[test]
fn decisions_that_can_never_be_made() {
    is_error(
        &extended("[decision]\nat_least = 2\n"),
        "`decision.at_least` is 2, but there is only 1 rollback rule",
        "2",
    );
    is_error(
        &edited("consecutive = 3", "error_ratio_above = 0.1\nmin_samples = 100"),
        "this rule can never hold: it needs 100 samples and gets at most 13",
        "100",
    );
    only_accepted(&edited("consecutive = 3", "error_ratio_above = 0\nmin_samples = 13"));
    is_error(
        &edited("consecutive = 3", "consecutive = 3\nmin_samples = 10"),
        "`min_samples` has no effect here",
        "min_samples",
    );
    is_error(
        &edited("consecutive = 3", "consecutive = 3\nerror_ratio_above = 0.5"),
        "[[rule]] has more than one condition",
        "error_ratio_above",
    );
}

#[test]
fn gates_that_could_stop_nothing() {
    let gate =
        |kind: &str| extended(&format!("[[rollback.gate]]\nname = \"g\"\ncanary = \"http://localhost/\"\n{kind}\n"));
    let console = "postgres://admin@localhost/pgbouncer?sslmode=disable";
    for good in [
        "http = { stop = { url = \"http://localhost/stop\" }, start = { url = \"http://localhost/start\", method = \"PUT\" } }",
        "postgres_sessions.roles = [\"shop app\", \"select\"]",
        &format!("pgbouncer = {{ url = \"{console}\", database = \"shop\" }}"),
        "postgrest = {}",
        "postgrest.role = \"other\"",
    ] {
        only_accepted(&gate(good));
    }
    for proved in
        ["postgres_sessions.roles = [\"a\"]", &format!("pgbouncer = {{ url = \"{console}\", database = \"shop\" }}")]
    {
        only_accepted(&extended(&format!("[[rollback.gate]]\nname = \"g\"\n{proved}\n")));
    }
    is_warning(
        &extended("[[rollback.gate]]\nname = \"g\"\npostgrest = {}\n"),
        "nothing proves that this gate stops traffic",
        "[[rollback.gate]]",
    );
    is_error(&gate("postgres_sessions.roles = []"), "this gate stops nobody", "[]");
    is_error(
        &gate("postgres_sessions.roles = [\"a\", \"a\"]"),
        "the role `a` is named twice in `rollback.gate.postgres_sessions.roles`",
        "\"a\"",
    );
    is_error(
        &gate("pgbouncer = { url = \"postgres://admin@localhost/shop?sslmode=disable\", database = \"shop\" }"),
        "this URL does not lead to pgbouncer's admin console",
        "\"postgres://*****@localhost/shop?sslmode=disable\"",
    );
    is_error(
        &gate(&format!("pgbouncer = {{ url = \"{console}\", database = \"pgbouncer\" }}")),
        "the admin console cannot be disabled",
        "\"pgbouncer\"",
    );
    is_error(&gate("http.stop.url = \"http://localhost/stop\""), "`start` is missing in [rollback.gate.http]", "http");
    is_error(
        &gate(
            "http = { stop = { url = \"http://localhost/\", methd = \"PUT\" }, start = { url = \"http://localhost/\" } }",
        ),
        "unknown key `methd` in [rollback.gate.http.stop]",
        "methd",
    );
}

#[test]
fn what_is_not_in_this_version_is_said_so() {
    let not_yet = |what: &str| format!("{what} is not available in this version");
    for format in ["slack", "discord", "teams", "pagerduty"] {
        let text = extended(&format!(
            "[[contact]]\nrole = \"x\"\nwebhook = [{{ url = \"https://x.example\", format = \"{format}\" }}]\n"
        ));
        is_error(&text, &not_yet(&format!("`contact.webhook.format` = `{format}`")), &format!("\"{format}\""));
    }
}

#[test]
fn tolerances() {
    let policy =
        |policy: &str| extended(&format!("[[verify]]\nkind = \"integrity\"\ntables = {{ posts = {policy} }}\n"));
    let accepted = |text: &str| {
        let loaded = read_plain(&policy(text)).expect("accepted");
        let tables =
            loaded.config.checks.into_iter().find_map(|check| {
                if let CheckKind::Integrity { tables, .. } = check.kind { Some(tables) } else { None }
            });
        tables.and_then(|tables| tables.into_values().next()).expect("a policy")
    };
    for (text, share) in [("{ tolerance = 0.01 }", 0.01), ("{ tolerance = 0 }", 0.0), ("{ tolerance = 1 }", 1.0)] {
        assert_eq!(accepted(text), IntegrityPolicy::Tolerance(share));
    }
    assert_eq!(accepted("\"exact\""), IntegrityPolicy::Exact);
    for wrong in ["1.01", "-0.01", "10"] {
        is_error(&policy(&format!("{{ tolerance = {wrong} }}")), "`tolerance` is out of range", wrong);
    }
    is_error(&policy("{ tolerance = nan }"), "`verify.tables.posts.tolerance` is out of range", "nan");
    is_error(&policy("{ tolerance = \"1%\" }"), "`verify.tables.posts.tolerance` has the wrong type", "\"1%\"");
    is_error(&policy("{}"), "`tolerance` is missing in [verify.tables.posts]", "{}");
}

#[test]
fn database_urls() {
    let url = |url: &str| edited("postgres://postgres@127.0.0.1/shop", url);
    is_error(&url("postgres://u@localhost/x?sslmode=on"), "`sslmode` cannot be `on`", "on");
    is_error(&url("mysql://localhost/x"), "`database.url` has the wrong scheme", "\"mysql://localhost/x\"");
    is_error(&url("postgres:///x"), "`database.url` names no host", "\"postgres:///x\"");
    is_error(&url("postgres://localhost/x?sslrootcert=a"), "`database.url` cannot carry `sslrootcert`", "sslrootcert");
    for good in
        ["postgres:///x?host=/run/postgresql", "postgresql://u@%2Frun%2Fpostgresql/x", "postgres://u:p@[::1]:5433/x"]
    {
        only_accepted(&url(good));
    }
    let warned = |mode: &str| read_plain(&url(&format!("postgres://db.example/x{mode}"))).unwrap().warnings.len();
    let modes =
        ["", "?sslmode=disable", "?sslmode=prefer", "?sslmode=require", "?sslmode=verify-ca", "?sslmode=verify-full"];
    assert_eq!(modes.map(warned), [1, 1, 1, 0, 0, 0]);
}

#[test]
fn warnings() {
    let text = MINIMAL.to_owned();
    let messages: Vec<_> = found(read_plain(&text)).into_iter().map(|(message, _)| message).collect();
    assert_eq!(messages, ["there is no contact: nobody is told", "recovery is proved by tables and row counts only"]);
    is_warning(
        &extended("[[rollback.gate]]\nname = \"g\"\nfile.path = \"/run/x\"\n"),
        "nothing proves that this gate stops traffic",
        "[[rollback.gate]]",
    );
    is_warning(
        &extended("[smtp]\nhost = \"mx.example\"\ntls = \"none\"\nfrom = \"a@b.example\"\n"),
        "mail goes to another host in plaintext",
        "tls",
    );
    is_warning(
        &extended("[http]\nlisten = \"0.0.0.0:9187\"\n"),
        "other hosts can reach `0.0.0.0:9187` but control nothing",
        "listen",
    );
    is_warning(
        &edited("tables = \"added\"", "tables = \"added\"\ndispose = \"drop\"\narchive = false"),
        "rows of the dropped tables are lost",
        "archive",
    );
    is_warning(
        &edited("[database]", "[database]\noriginal_schema_file = \"gone.sql\""),
        "`database.original_schema_file`: the file `/etc/rollbackd/gone.sql` does not exist",
        "\"gone.sql\"",
    );
    let closed = format!("{MINIMAL}{}", QUIET.replace("kind = \"http\"", "kind = \"http\"\nstage = \"closed\""));
    is_warning(&closed, "nothing is verified after traffic was resumed", "");
    only_accepted(&extended("[smtp]\nhost = \"127.0.0.1\"\ntls = \"none\"\nfrom = \"a@b.example\"\n[http]\n"));
}

#[test]
fn durations() {
    let soak = |text: &str| {
        read_plain(&extended(&format!("[window]\nsoak = {text}\n"))).map(|loaded| loaded.config.window.soak)
    };
    for (text, milliseconds) in [
        ("\"500ms\"", 500),
        ("\"5s\"", 5_000),
        ("\"10m\"", 600_000),
        ("\"1h 30m\"", 5_400_000),
        ("\"0s\"", 0),
        ("\"168h\"", 604_800_000),
    ] {
        assert_eq!(soak(text).unwrap().as_millis(), milliseconds, "{text}");
    }
    for text in [
        "\"\"",
        "\"5\"",
        "5",
        "\"-5s\"",
        "\"5s ago\"",
        "\"PT5S\"",
        "\"1d\"",
        "\"169h\"",
        "\"99999999999999999999h\"",
        "1.5",
        "[]",
    ] {
        assert_eq!(soak(text).unwrap_err().len(), 1, "{text}");
    }
}

#[test]
fn patterns_of_a_log() {
    let log = |rest: &str| {
        edited("http.url = \"http://127.0.0.1/health\"", &format!("[signal.log]\npath = \"app.log\"\n{rest}"))
    };
    let loaded = read_plain(&log("error = '(?i)level=(error|fatal)'")).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let model::SignalSource::Log(source) = &loaded.config.signals[0].source else { panic!("a log") };
    assert_eq!(source.path, Path::new("/etc/rollbackd/app.log"));
    assert!(source.error.is_match(b"LEVEL=FATAL \xff") && source.line.is_none());
    let loaded = read_plain(&log("error = 'x'\nline = '.'")).unwrap();
    let model::SignalSource::Log(source) = &loaded.config.signals[0].source else { panic!("a log") };
    assert!(source.line.is_none(), "written as in the reference");

    let place = |rest: &str, message: &str, text: &str| is_error(&log(rest), message, text);
    place("error = 'level=(error|fatal'", "`signal.log.error` is not a regular expression: unclosed group", "(");
    place(
        "error = 'x'\nline = 'ä[z-a]'",
        "`signal.log.line` is not a regular expression: invalid character class range, the start must be <= the end",
        "z-a",
    );
    // Where the text is not what is written, the whole of it is shown.
    place(r#"error = "\u0061(""#, "`signal.log.error` is not a regular expression: unclosed group", r#""\u0061(""#);
    place(
        "error = 'a(?=b)'",
        "`signal.log.error` is not a regular expression: look-around, including look-ahead and look-behind, is not supported",
        "(?=",
    );
    place("error = '\\w{5000}'", "`signal.log.error` is too large: it needs more than 4 MiB", "'\\w{5000}'");
    place("line = 'x'", "`error` is missing in [signal.log]", "[signal.log]");

    let warned = |pattern: &str| found(read_plain(&log(&format!("error = '{pattern}'"))));
    assert_eq!(warned("x*"), [("`error` matches every line: all of them are bad".to_owned(), "'x*'".to_owned())]);
    assert_eq!(warned(""), [("`error` matches every line: all of them are bad".to_owned(), "''".to_owned())]);
    assert_eq!(warned("^$"), []);
    assert_eq!(warned("^x?$"), []);
}

#[test]
fn a_check_of_a_log_needs_a_log() {
    let log = "[[signal]]\nname = \"app\"\nlog = { path = \"app.log\", error = 'x' }\n";
    let check = |rest: &str| extended(&format!("{log}[[verify]]\nkind = \"error_log\"\n{rest}"));
    let loaded = read_plain(&check("signal = \"app\"\nratio_below = 0.01\n")).unwrap();
    let kind = &loaded.config.checks.last().unwrap().kind;
    assert!(matches!(kind, CheckKind::ErrorLog { within, .. } if within.as_secs() == 30), "{kind:?}");
    is_error(&check("signal = \"api\"\nratio_below = 0.01\n"), "the signal `api` is not a log", "\"api\"");
    is_error(&check("signal = \"ap\"\nratio_below = 0.01\n"), "there is no signal named `ap`", "\"ap\"");
    is_error(&check("signal = \"app\"\nratio_below = 0\n"), "`ratio_below` is out of range", "0");
    is_error(&check("signal = \"app\"\n"), "`ratio_below` is missing in [[verify]]", "[[verify]]");
    is_error(
        &check("signal = \"app\"\nratio_below = 0.01\nstage = \"closed\"\n"),
        "`error_log` cannot be checked while traffic is stopped",
        "stage",
    );
}
