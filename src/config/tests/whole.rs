//! The shipped file, the contract's own example, and any text at all.

use proptest::prelude::*;

use super::*;

/// A file of the repository.
fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The shipped configuration, read on a machine where nothing is set up.
fn shipped_configuration() -> Loaded {
    let path = shipped("config/rollbackd.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let bare = |name: &str| (name == "PATH").then(|| OsString::from("/usr/bin:/bin"));
    read(text, &path, &bare, None).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_shipped_configuration_is_valid_as_shipped() {
    let warnings = shipped_configuration().warnings;
    assert!(warnings.is_empty(), "{warnings}");
}

#[test]
fn the_shipped_rungs_remove_the_tables_of_the_runbook() {
    let runbook = [
        "pages",
        "content_blocks",
        "page_templates",
        "component_library",
        "user_sessions",
        "analytics_events",
        "user_file_stats",
        "file_metadata",
        "file_versions",
        "cache_entries",
        "component_usage",
        "builder_pages",
        "content_posts",
        "media_files",
    ];
    let rungs = shipped_configuration().config.rollback.rungs;
    let named = rungs.into_iter().find_map(|rung| match rung.method {
        model::Method::Tables { tables: rollbackd_core::plan::TableChoice::Named(names), .. } => Some(names),
        model::Method::Tables { .. }
        | model::Method::Script { .. }
        | model::Method::Sql { .. }
        | model::Method::Restore => None,
    });
    assert_eq!(named.unwrap(), runbook);
    let script = std::fs::read_to_string(shipped("config/scripts/rollback-emergency.sh")).unwrap();
    let dropped: Vec<&str> =
        script.lines().filter_map(|line| line.trim().strip_prefix("\"public\".\"")?.split('"').next()).collect();
    assert_eq!(dropped, runbook);
}

#[test]
fn files_that_cannot_be_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = |content: &[u8]| {
        let path = directory.path().join("x.toml");
        std::fs::write(&path, content).unwrap();
        load(&path).unwrap_err().as_slice()[0].message.clone()
    };
    assert_eq!(file(b"a = 1\n\xff"), "the configuration is not UTF-8: line 2 holds a byte that is not text");
    assert_eq!(file(&vec![b'#'; 1024 * 1024 + 1]), "the configuration is longer than 1 MiB");
    assert_eq!(load(directory.path()).unwrap_err().as_slice()[0].message, "the configuration is not a file");
}

#[test]
fn a_file_is_read_with_its_own_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.toml");
    std::fs::write(&path, extended("")).unwrap();
    let config = load(&path).unwrap().config;
    assert_eq!(config.backup.directory, directory.path().join("backups"));
    let again = load_text(config.source.expose().to_owned(), &config.path, &BTreeMap::new()).unwrap().config;
    assert_eq!(again.sha256, config.sha256);
}

#[test]
fn the_reference_names_every_key() {
    fn keys(value: &toml::Value, path: &str, into: &mut Vec<String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    into.push(key.clone());
                    // The keys below are names of headers, tables and places, not keys of ours.
                    let named = ["headers", "verify.tables", "env", "equals"].iter().any(|end| path.ends_with(end));
                    if !named {
                        keys(value, &format!("{path}.{key}"), into);
                    }
                }
            }
            toml::Value::Array(list) => list.iter().for_each(|value| keys(value, path, into)),
            toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_) => {}
        }
    }
    let reference = std::fs::read_to_string(shipped("docs/configuration.md")).unwrap();
    let mut all = Vec::new();
    keys(&include_str!("every_key.toml").parse::<toml::Table>().unwrap().into(), "", &mut all);
    all.retain(|key| !["posts", "profiles", "shop.comments"].contains(&key.as_str()));
    assert!(all.len() > 100);
    for key in all {
        assert!(
            reference.contains(&format!("`{key}`"))
                || reference.contains(&format!("{key}]"))
                || reference.contains(&format!("`{{ {key} =")),
            "{key}"
        );
    }
}

#[test]
fn every_key_of_this_version_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("schema.sql", ""), ("ca.pem", ""), ("rollback.sql", "drop table pages;")] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let variables = [
        ("PATH", "/usr/bin:/bin"),
        ("KEY", "key"),
        ("WHSEC", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("PING", "https://hc.example/ping/5ecret-of-the-heartbeat"),
    ];
    let result = read_in(directory.path(), include_str!("every_key.toml"), &variables);
    let config = result.unwrap_or_else(|problems| panic!("{problems}")).config;
    let shown = format!("{config:#?}");
    assert!(!shown.contains("whsec_") && !shown.contains("5ecret"), "{shown}");
    let shown = shown.replace(&directory.path().display().to_string(), "[directory]");
    let shown = shown.replace(&config.sha256, "[sha256]");
    insta::assert_snapshot!(shown);
}

/// Pieces that make a text look like a configuration.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "[database]\n",
        "url = ",
        "\"postgres://u:p@h:1/x?sslmode=\"",
        "[[signal]]\n",
        "http = ",
        "{ ",
        " }",
        "env = \"X\"",
        "[[rule]]\n",
        "name = \"a\"\n",
        "every = \"5s\"\n",
        "tables = [\"a\", \"b.c\"]\n",
        "[[rollback.rung]]\n",
        "kind = \"script\"\n",
        "command = [\"sh\"]\n",
        "\"\"\"",
        "'",
        "\"",
        "=",
        ".",
        ",",
        "\n",
        "\r",
        "\t",
        "#",
        "[",
        "]",
        "ä",
        "\u{1f600}",
        "\u{202e}",
        "\u{0}",
        "password",
        "headers",
        "schedule = \"* * * * *\"\n",
        "[window]\n",
        "soak = ",
        "1979-05-27",
        "0x",
        "1e999",
        "nan",
        "-1",
        "99999999999999999999",
        "true",
        "error_ratio_above = ",
        "signals = []\n",
    ];
    prop_oneof![8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    #[test]
    fn no_text_is_too_much(pieces in proptest::collection::vec(piece(), 0..40), on_top in any::<bool>()) {
        let text = if on_top { format!("{MINIMAL}{}", pieces.concat()) } else { pieces.concat() };
        let problems = read_with(&text, &[]).map_or_else(|problems| problems, |loaded| loaded.warnings);
        for problem in problems.as_slice() {
            prop_assert!(text.get(problem.span.clone()).is_some(), "{:?} is not in the text", problem.span);
        }
        let drawn = problems.to_string();
        prop_assert!(problems.is_empty() || drawn.len() > 20);
        prop_assert_eq!(problems.to_json().as_array().map(Vec::len), Some(problems.len()));
    }

    #[test]
    fn masking_keeps_every_byte_in_its_place(text in any::<String>(), spans in proptest::collection::vec(0..50_usize, 0..4)) {
        let spans: Vec<_> = spans.windows(2).map(|pair| pair[0]..pair[1]).collect();
        let masked = redact::mask(&text, &spans);
        prop_assert_eq!(masked.len(), text.len());
        prop_assert_eq!(masked.matches('\n').count(), text.matches('\n').count());
    }
}
