//! How problems look to whoever made them.

use super::*;

#[test]
fn a_file_with_many_mistakes() {
    let text = r#"name = "Shop!"
runbok = "https://wiki.example/rollback"

[database]
url = "postgres://shop:hunter2@db.example/shop?sslmode=verfy-full"
shema = "public"
original_tables = ["profiles", "posts", "posts"]
connect_timeout = "5 parsecs"
lock_timeout = 500

[window]
schedule = "0 2 30 2 *"

[preflight]
skip = ["discs"]

[[signal]]
name = "api"
[signal.http]
url = "ftp://shop.example/"
headers = { apikey = { env = "SUPABASE_ANON_KEY" }, authorization = "Bearer t" }

[[signal]]
name = "app-log"
[signal.log]
path = "/var/log/app.log"

[[rule]]
name = "api is down"
signal = "apy"
consecutive = 0
then = "rolback"

[[rollback.gate]]
name = "edge"
required = "no"
[rollback.gate.command]
stop = ["no-such-program"]
start = []

[[rollback.rung]]
kind = "script"
command = ["sh", "scripts/rollback-emergency.sh"]

[[rollback.rung]]
kind = "tables"
tables = ["pages", "posts"]

[[contact]]
role = "system administrator"

[smtp]
host = "smtp.shop.example"
port = 70000
tls = "none"
"#;
    insta::assert_snapshot!(read_plain(text).unwrap_err());
}

#[test]
fn text_that_is_not_toml() {
    let text = "name = \"shop\nstate_dir = /var/lib\n\n[database\nurl = \"postgres://u:hunter2@h/x\nshema = 1\n\n[window]\nsoak = 10m\nmised = \"skip\"\n";
    insta::assert_snapshot!(read_plain(text).unwrap_err());
}

#[test]
fn warnings_alone() {
    insta::assert_snapshot!(read_plain(MINIMAL).unwrap().warnings);
}

#[test]
fn nothing_at_all() {
    insta::assert_snapshot!(read_plain("").unwrap_err());
}

#[test]
fn a_file_that_is_not_there() {
    let problems = load(Path::new("/nowhere/shop.toml")).unwrap_err();
    insta::assert_snapshot!(problems);
    assert_eq!(problems.len(), 1);
}

#[test]
fn for_programs() {
    let problems = read_plain(&edited("then = \"rollback\"", "then = \"rolback\"")).unwrap_err();
    insta::assert_json_snapshot!(problems.to_json());
}

#[test]
fn colour_only_when_asked_for() {
    let problems = read_plain("").unwrap_err();
    assert!(problems.render(true, 80).contains('\u{1b}'));
    assert!(!problems.to_string().contains('\u{1b}'));
}

#[test]
fn words_are_folded_and_lines_cut_to_the_width() {
    let long = format!("# {}\n[[rul]]\nstrange = [{}]\n", "x".repeat(300), "\"abc\", ".repeat(40));
    let problems =
        read_plain(&extended(&format!("{long}[backup]\nschemas = [{}1]\n", "\"abc\", ".repeat(40)))).unwrap_err();
    for width in [60, 80, 120] {
        let widest = problems.render(false, width).lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width, "{widest} > {width}");
    }
}

#[test]
fn very_many_problems_are_counted_rather_than_drawn() {
    let text: String = (0..500).map(|index| format!("unknown{index} = 1\n")).collect::<Vec<_>>().concat();
    let drawn = read_plain(&text).unwrap_err().to_string();
    assert!(drawn.contains("more\n"), "{drawn}");
    assert!(drawn.len() < 60_000);
}
