use tokio::sync::watch;

use super::*;

#[test]
fn the_mail_servers_port_is_put_in_and_nothing_else_changes() {
    assert_eq!(CONFIGURATION.matches(SMTP_PORT).count(), 1);
    let written = configuration(40_123);
    assert!(written.contains("\nport = 40123 "));
    assert_eq!(written.lines().count(), CONFIGURATION.lines().count());
}

#[test]
fn every_variable_of_the_configuration_is_set() {
    let directory = Path::new("/nowhere");
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let front = Shopfront { address, apikey: "k".to_owned(), email: "e".to_owned(), password: "p".to_owned() };
    let hooks = Hooks { address, received: watch::channel(Vec::new()).1 };
    let mut set = addresses(directory, &front, Path::new("/nowhere/flag"), address, &hooks, "whsec_");
    set.extend(database_access("postgres://u:p@127.0.0.1:5/shop").unwrap());
    let document: toml::Table = CONFIGURATION.parse().unwrap();
    let wanted = references(&toml::Value::Table(document));
    assert!(wanted.len() > 10, "{wanted:?}");
    for name in wanted {
        assert!(set.iter().any(|(known, _)| *known == name), "{name} is not set");
    }
}

/// Every NAME of `{ env = "NAME" }`.
fn references(value: &toml::Value) -> Vec<String> {
    match value {
        toml::Value::Table(table) => table
            .iter()
            .flat_map(|(key, inner)| match (key.as_str(), inner.as_str()) {
                ("env", Some(name)) => vec![name.to_owned()],
                _ => references(inner),
            })
            .collect(),
        toml::Value::Array(all) => all.iter().flat_map(references).collect(),
        toml::Value::String(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_) => Vec::new(),
    }
}

#[test]
fn files_that_the_configuration_names_are_written_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path(), 25).unwrap();
    for name in ["demo.toml", "demo/migrate.sh", "demo/rollback-emergency.sh", "demo/schema.sql"] {
        assert!(directory.path().join(name).is_file(), "{name}");
    }
    let mode = directory.path().join("demo/rollback-emergency.sh").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn psql_gets_the_parts_of_the_url() {
    let access = database_access("postgres://shop_owner:secret@127.0.0.1:4321/shop?sslmode=disable").unwrap();
    let value = |name| access.iter().find(|(known, _)| *known == name).unwrap().1.to_string_lossy().into_owned();
    assert_eq!(
        ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"].map(value),
        ["127.0.0.1", "4321", "shop_owner", "secret", "shop"]
    );
    let socket = database_access("postgres://u:p@localhost/shop?host=/run/pg").unwrap();
    assert!(socket.contains(&("PGHOST", "/run/pg".into())));
}

#[test]
fn variables_are_quoted_for_a_shell() {
    assert_eq!(exports(&[("A", "it's $HOME".into())]), "export A='it'\\''s $HOME'\n");
}
