//! `[database]`, and `postgres://` URLs wherever they stand.

use std::net::IpAddr;

use rollbackd_core::baseline::TableName;
use url::Url;

use super::model::{Address, Database, Tls, TlsMode};
use super::problem::Problem;
use super::redact::quoted;
use super::scalar::{BOUND, seconds};
use super::section::Section;
use super::value::{Text, Value};

/// What later sections need to know of the database, also when a part of `[database]` is wrong.
pub(super) struct Ground {
    /// `schema`.
    pub(super) schema: String,
    /// `original_tables`.
    pub(super) original_tables: Vec<TableName>,
    /// `protected_schemas`.
    pub(super) protected_schemas: Vec<String>,
}

/// Reads `[database]`.
pub(super) fn read(mut section: Section<'_>) -> (Ground, Option<Database>) {
    let doc = section.doc();
    let url = section.need("url", "url = { env = \"DATABASE_URL\" }", postgres_url);
    let schema = section.or("schema", "public".to_owned(), |value| value.plain("a schema's name"));
    let original_tables = section.need("original_tables", "original_tables = [\"profiles\", \"posts\"]", |value| {
        original_tables(value, &schema)
    });
    let original_schema_file = section.maybe("original_schema_file", |value| {
        let (path, text) = value.path_with_text("a path")?;
        if !path.is_file() {
            let message = format!("`{}`: the file {} does not exist", text.path, quoted(&path.display().to_string()));
            doc.report(
                Problem::warning(text.span.clone(), message)
                    .label("no such file")
                    .help("reports point to it; relative paths start at the configuration file"),
            );
        }
        Some(path)
    });
    let protected_schemas = section.or("protected_schemas", Vec::new(), |value| {
        value.each("a list of schema names", |name| name.plain("a schema's name"))
    });
    let root_cert = section.maybe("tls_root_cert", |value| value.existing_file("a file of PEM certificates"));
    let connect_timeout = section.or("connect_timeout", seconds(5), |value| value.duration(BOUND));
    let statement_timeout = section.or("statement_timeout", seconds(30), |value| value.duration(BOUND));
    let lock_timeout = section.or("lock_timeout", std::time::Duration::from_millis(500), |value| value.duration(BOUND));
    section.finish();

    let ground = Ground {
        schema: schema.clone(),
        original_tables: original_tables.clone().unwrap_or_default(),
        protected_schemas: protected_schemas.clone(),
    };
    let database = url.zip(original_tables).map(|((url, mode), original_tables)| Database {
        url,
        schema,
        original_tables,
        original_schema_file,
        protected_schemas,
        tls: Tls { mode, root_cert },
        connect_timeout,
        statement_timeout,
        lock_timeout,
    });
    (ground, database)
}

/// The tables that must survive, each once.
fn original_tables(value: Value<'_>, schema: &str) -> Option<Vec<TableName>> {
    let (doc, span) = (value.doc, value.span());
    let mut tables: Vec<TableName> = Vec::new();
    for (table, text) in value.each("a list of table names", |name| name.table_name(schema))? {
        if tables.contains(&table) {
            let message = format!("the table {} is named twice in `{}`", quoted(&table.to_string()), text.path);
            text.refuse::<()>(message, "named before", "name each table once");
        } else {
            tables.push(table);
        }
    }
    if tables.is_empty() {
        let problem = Problem::error(span, "no original table is named").label("empty");
        doc.report(problem.help("name the tables that stood before the migration: recovery is proved by them"));
    }
    Some(tables)
}

/// `postgres://…`, with what its `sslmode` asks for. Warns when the connection to another host may be plaintext.
pub(super) fn postgres_url(value: Value<'_>) -> Option<(Address, TlsMode)> {
    let text = value.filled("a URL such as postgres://user@host/database")?;
    text.hide_password();
    let accepted = "accepted: postgres://user:password@host:port/database?sslmode=verify-full; for a socket the \
                    percent-encoded directory as host: postgres://user@%2Frun%2Fpostgresql/database";
    let url = match Url::parse(&text.value) {
        Ok(url) if ["postgres", "postgresql"].contains(&url.scheme()) => url,
        Ok(_) => {
            return text.refuse(format!("`{}` has the wrong scheme", text.path), "not a PostgreSQL URL", accepted);
        }
        Err(error) => {
            return text.refuse(format!("`{}` is not a URL: {error}", text.path), "not a URL", accepted);
        }
    };
    let mode = tls_mode(&text, &url)?;
    // libpq's four ways to verify are more than the client's own parser knows, so it reads the rest without them.
    let mut rest = url.clone();
    let parameters: Vec<(String, String)> =
        url.query_pairs().filter(|(key, _)| key != "sslmode").map(|(key, value)| (key.into(), value.into())).collect();
    rest.set_query(None);
    if !parameters.is_empty() {
        rest.query_pairs_mut().extend_pairs(&parameters);
    }
    if parameters.iter().any(|(key, _)| key == "sslrootcert") {
        let message = format!("`{}` cannot carry `sslrootcert`", text.path);
        let problem = Problem::error(text.span_of("sslrootcert"), message).label("not here");
        text.doc.report(problem.help("write tls_root_cert = \"PATH\" in [database]"));
        return None;
    }
    let parsed = match rest.as_str().parse::<tokio_postgres::Config>() {
        Ok(parsed) => parsed,
        Err(error) => {
            // A question mark in a password that is not percent-encoded makes the rest of it a parameter's name.
            let reason = match std::error::Error::source(&error) {
                Some(reason) if !url.query().unwrap_or_default().contains('@') => reason.to_string(),
                Some(_) | None => "its parts cannot be told apart; percent-encode the password".to_owned(),
            };
            return text.refuse(format!("`{}` cannot be used: {reason}", text.path), "not usable", accepted);
        }
    };
    if parsed.get_hosts().is_empty() && parsed.get_hostaddrs().is_empty() {
        return text.refuse(format!("`{}` names no host", text.path), "the host is missing", accepted);
    }
    warn_of_plaintext(&text, &parsed, mode);
    Some((Address::new(url), mode))
}

/// What `sslmode` asks for; libpq's default is `prefer`.
fn tls_mode(text: &Text<'_>, url: &Url) -> Option<TlsMode> {
    let Some((_, word)) = url.query_pairs().find(|(key, _)| key == "sslmode") else { return Some(TlsMode::Prefer) };
    let modes = [
        ("disable", TlsMode::Disable),
        ("prefer", TlsMode::Prefer),
        ("require", TlsMode::Require),
        ("verify-ca", TlsMode::VerifyCa),
        ("verify-full", TlsMode::VerifyFull),
    ];
    let span = text.span_of(&word);
    Text {
        doc: text.doc,
        value: word.into_owned(),
        span,
        reference: text.reference.clone(),
        path: "sslmode".to_owned(),
    }
    .choose(&modes, &[])
}

fn warn_of_plaintext(text: &Text<'_>, parsed: &tokio_postgres::Config, mode: TlsMode) {
    let hint = "append ?sslmode=verify-full (with tls_root_cert if the server's certificate is private)";
    let message = match mode {
        TlsMode::Disable => "goes to another host in plaintext",
        TlsMode::Prefer => "falls back to plaintext when the other host offers no TLS",
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => return,
    };
    let remote = parsed.get_hosts().iter().any(|host| match host {
        tokio_postgres::config::Host::Tcp(name) => !is_this_host(name),
        tokio_postgres::config::Host::Unix(_) => false,
    }) || parsed.get_hostaddrs().iter().any(|address| !address.is_loopback());
    if remote {
        let message = format!("the connection of `{}` {message}", text.path);
        text.doc.report(
            Problem::warning(text.span.clone(), message).label("passwords and rows can be read on the way").help(hint),
        );
    }
}

/// Whether a host name means this machine.
pub(super) fn is_this_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
