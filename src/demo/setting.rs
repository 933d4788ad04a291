//! What the daemon is given: the configuration, the files that it names, and the variables that it refers to.
//!
//! The files are those of the repository's `config/`, carried in the executable.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::distr::Alphanumeric;
use serde_json::json;

use super::database;
use super::program::in_path;
use super::proof::Shopfront;
use super::webhooks::Hooks;
use crate::postgres::programs;

/// The demo's configuration and what it refers to, as they are in the repository.
const FILES: [(&str, &str); 5] = [
    ("demo/schema.sql", database::SCHEMA),
    ("demo/migration.sql", include_str!("../../config/demo/migration.sql")),
    ("demo/healthy.sql", include_str!("../../config/demo/healthy.sql")),
    ("demo/migrate.sh", include_str!("../../config/demo/migrate.sh")),
    ("demo/rollback-emergency.sh", include_str!("../../config/demo/rollback-emergency.sh")),
];
const CONFIGURATION: &str = include_str!("../../config/demo.toml");
/// The line of the configuration that gets the mail server's port.
const SMTP_PORT: &str = "\nport = 2525 ";

/// Writes the configuration with the mail server's port, and the files that it refers to.
pub(super) fn write_files(directory: &Path, smtp_port: u16) -> std::io::Result<()> {
    write(&directory.join("demo.toml"), &configuration(smtp_port))?;
    FILES.iter().try_for_each(|(name, text)| {
        let path = directory.join(name);
        write(&path, text)?;
        let mode = if path.extension().is_some_and(|extension| extension == "sh") { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    })
}

/// The configuration with the mail server's port: a number, which cannot come from the environment.
fn configuration(smtp_port: u16) -> String {
    CONFIGURATION.replacen(SMTP_PORT, &format!("\nport = {smtp_port} "), 1)
}

pub(super) fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)
}

/// A file that only its owner may read, as it holds passwords.
pub(super) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// What the configuration refers to.
pub(super) fn addresses(
    directory: &Path,
    front: &Shopfront,
    maintenance: &Path,
    http: SocketAddr,
    hooks: &Hooks,
    secret: &str,
) -> Vec<(&'static str, OsString)> {
    let shop = format!("http://{}", front.address);
    let credentials = json!({ "email": front.email, "password": front.password });
    vec![
        ("DEMO_STATE_DIR", directory.join("state").into_os_string()),
        ("DEMO_HTTP", http.to_string().into()),
        ("DEMO_SHOP_ADDRESS", front.address.to_string().into()),
        ("DEMO_CANARY_URL", format!("{shop}/health").into()),
        ("DEMO_POSTS_URL", format!("{shop}/api/posts").into()),
        ("DEMO_AUTH_URL", format!("{shop}/auth/v1").into()),
        ("DEMO_SIGN_IN_URL", format!("{shop}/auth/v1/token?grant_type=password").into()),
        ("DEMO_SIGN_IN_BODY", credentials.to_string().into()),
        ("DEMO_PASSWORD", front.password.as_str().into()),
        ("DEMO_APIKEY", front.apikey.as_str().into()),
        ("DEMO_MAINTENANCE_FILE", maintenance.into()),
        ("DEMO_WEBHOOK_URL", format!("http://{}/hooks", hooks.address).into()),
        ("DEMO_WEBHOOK_SECRET", secret.into()),
    ]
}

/// The database for rollbackd, and in the variables in which psql looks for it.
pub(super) fn database_access(url: &str) -> Result<Vec<(&'static str, OsString)>, String> {
    let parsed = url::Url::parse(url).map_err(|error| format!("the cluster's URL: {error}"))?;
    let given = parsed.query_pairs().find(|(key, _)| key == "host").map(|(_, host)| host.into_owned());
    let host = given.or_else(|| parsed.host_str().map(str::to_owned)).unwrap_or_default();
    Ok(vec![
        ("DEMO_DATABASE_URL", url.into()),
        ("PGHOST", host.into()),
        ("PGPORT", parsed.port().unwrap_or(5432).to_string().into()),
        ("PGUSER", parsed.username().into()),
        ("PGPASSWORD", parsed.password().unwrap_or_default().into()),
        ("PGDATABASE", parsed.path().trim_start_matches('/').into()),
    ])
}

/// `export NAME='value'` lines for a shell.
pub(super) fn exports(environment: &[(&'static str, OsString)]) -> String {
    let line = |(name, value): &(&str, OsString)| {
        format!("export {name}='{}'\n", value.to_string_lossy().replace('\'', "'\\''"))
    };
    environment.iter().map(line).collect()
}

/// The psql that came with the server.
pub(super) fn psql() -> Result<PathBuf, String> {
    let beside = programs::server_binaries()?.join("psql");
    if beside.is_file() { Some(beside) } else { in_path("psql") }
        .ok_or_else(|| "psql is missing; on Debian install `postgresql-client`".to_owned())
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("no free port: {error}"))?;
    listener.local_addr().map_err(|error| format!("no free port: {error}"))
}

/// A password of letters and digits.
pub(super) fn password() -> String {
    rand::rng().sample_iter(Alphanumeric).take(24).map(char::from).collect()
}

#[cfg(test)]
mod tests;
