//! `[[rollback.gate]]`: the ways to stop traffic and to resume it.

use std::collections::BTreeMap;

use super::cross::Names;
use super::database::postgres_url;
use super::model::{Gate, GateKind, HttpCall};
use super::problem::Problem;
use super::redact::quoted;
use super::scalar::{BOUND, seconds};
use super::section::Section;
use super::signal::method;
use super::value::Value;

/// The name of pgbouncer's admin console, which looks like a database.
const CONSOLE: &str = "pgbouncer";

/// What PostgREST is told to call before each request while traffic is stopped.
pub(crate) const REFUSE: &str = "rollbackd_gate.refuse";
/// Makes it, in a schema of its own, for every role that a request may have. The answer's status and body are written
/// as PostgREST wants them: `code` and `message` in the message, `status` and `headers` in the detail. Kept here because
/// a person who stops traffic by hand types the same.
pub(crate) const MAKE_REFUSE: &str = "CREATE SCHEMA IF NOT EXISTS rollbackd_gate; \
    GRANT USAGE ON SCHEMA rollbackd_gate TO PUBLIC; \
    CREATE OR REPLACE FUNCTION rollbackd_gate.refuse() RETURNS void LANGUAGE plpgsql AS $$begin \
    raise sqlstate 'PGRST' using \
    message = '{\"code\":\"ROLLBACKD\",\"message\":\"The service is stopped for maintenance.\",\"hint\":\"Try again later.\"}', \
    detail = '{\"status\":503,\"headers\":{\"Retry-After\":\"30\"}}'; end$$; \
    GRANT EXECUTE ON FUNCTION rollbackd_gate.refuse() TO PUBLIC";
/// Takes it away again, and nothing else.
pub(crate) const UNMAKE_REFUSE: &str =
    "DROP FUNCTION IF EXISTS rollbackd_gate.refuse(); DROP SCHEMA IF EXISTS rollbackd_gate";

/// Reads one gate.
pub(super) fn read(mut section: Section<'_>, names: &mut Names) -> Option<Gate> {
    let name = section.need("name", "name = \"edge\"", |value| names.take(value));
    let required = section.or("required", false, Value::boolean);
    let has_canary = section.has("canary");
    let canary = section.maybe("canary", Value::web_url);
    let timeout = section.or("timeout", seconds(10), |value| value.duration(BOUND));
    let kinds = ["file", "command", "http", "postgres_sessions", "pgbouncer", "postgrest"];
    let kind = match section.one_of("kind of gate", &kinds, &[]) {
        Some("file") => file(section.child("file")),
        Some("command") => command(section.child("command")),
        Some("http") => http(section.child("http")),
        Some("postgres_sessions") => postgres_sessions(section.child("postgres_sessions")),
        Some("pgbouncer") => pgbouncer(section.child("pgbouncer")),
        Some("postgrest") => postgrest(section.child("postgrest")),
        Some(_) | None => None,
    };
    // These count the application's sessions, and are closed when there is none.
    let proves_itself = section.has("postgres_sessions") || section.has("pgbouncer");
    if !has_canary && !proves_itself {
        let problem = Problem::warning(section.span(), "nothing proves that this gate stops traffic");
        section.doc().report(
            problem
                .label("no canary")
                .help("add canary = \"https://…\": a URL that must be refused while traffic is stopped and answer afterwards")
                .by_absence(),
        );
    }
    section.finish();
    Some(Gate { name: name?, required, canary, timeout, kind: kind? })
}

fn file(mut file: Section<'_>) -> Option<GateKind> {
    let path = file.need("path", "path = \"/run/shop/maintenance\"", |value| value.path("a path"));
    file.finish();
    path.map(|path| GateKind::File { path })
}

fn command(mut command: Section<'_>) -> Option<GateKind> {
    let stop = command.need("stop", "stop = [\"systemctl\", \"stop\", \"shop\"]", Value::command);
    let start = command.need("start", "start = [\"systemctl\", \"start\", \"shop\"]", Value::command);
    command.finish();
    stop.zip(start).map(|(stop, start)| GateKind::Command { stop, start })
}

fn http(mut http: Section<'_>) -> Option<GateKind> {
    let stop = http.need("stop", "stop = { url = \"https://proxy.example/shop/stop\" }", call);
    let start = http.need("start", "start = { url = \"https://proxy.example/shop/start\" }", call);
    http.finish();
    stop.zip(start).map(|(stop, start)| GateKind::Http { stop, start })
}

/// One request. It changes something, so it is a POST unless said otherwise.
fn call(value: Value<'_>) -> Option<HttpCall> {
    let mut call = value.table()?;
    let url = call.need("url", "url = \"https://proxy.example/shop/stop\"", Value::web_url);
    let method = call.or("method", "POST".to_owned(), method);
    let headers = call.or("headers", BTreeMap::new(), Value::headers);
    let body = call.maybe("body", |value| value.secret("the body to send"));
    call.finish();
    Some(HttpCall { url: url?, method, headers, body })
}

fn postgres_sessions(mut sessions: Section<'_>) -> Option<GateKind> {
    let roles = sessions.need("roles", "roles = [\"shop_app\"]", roles);
    sessions.finish();
    roles.map(|roles| GateKind::PostgresSessions { roles })
}

/// Names of roles, each once.
fn roles(value: Value<'_>) -> Option<Vec<String>> {
    let (doc, span) = (value.doc, value.span());
    let mut roles: Vec<String> = Vec::new();
    for text in value.each("a list of role names", |name| name.filled("a role's name"))? {
        if roles.contains(&text.value) {
            let message = format!("the role {} is named twice in `{}`", quoted(&text.value), text.path);
            text.refuse::<()>(message, "named before", "name each role once");
        } else {
            roles.push(text.value);
        }
    }
    if roles.is_empty() {
        let problem = Problem::error(span, "this gate stops nobody").label("no role");
        doc.report(problem.help("name the roles with which the application connects, as the server has them"));
        return None;
    }
    Some(roles)
}

fn pgbouncer(mut pooler: Section<'_>) -> Option<GateKind> {
    let url = pooler.need("url", "url = \"postgres://admin@127.0.0.1:6432/pgbouncer\"", console);
    let database = pooler.need("database", "database = \"shop\"", |value| {
        let text = value.filled("a database's name in pgbouncer's [databases]")?;
        if text.value == CONSOLE {
            let help = "name the database to which the application connects";
            return text.refuse("the admin console cannot be disabled", "not a database", help);
        }
        Some(text.value)
    });
    pooler.finish();
    let (url, tls_mode) = url?;
    Some(GateKind::Pgbouncer { url, tls_mode, database: database? })
}

/// The URL of an admin console.
fn console(value: Value<'_>) -> Option<(super::model::Address, super::model::TlsMode)> {
    let (doc, span) = (value.doc, value.span());
    let (url, mode) = postgres_url(value)?;
    if url.expose().path().trim_start_matches('/') != CONSOLE {
        let problem = Problem::error(span, "this URL does not lead to pgbouncer's admin console");
        let help = "accepted: postgres://user:password@host:port/pgbouncer, with a user out of pgbouncer's admin_users";
        doc.report(problem.label("its database is not `pgbouncer`").help(help));
        return None;
    }
    Some((url, mode))
}

fn postgrest(mut postgrest: Section<'_>) -> Option<GateKind> {
    let role = postgrest.or("role", Some("authenticator".to_owned()), |value| Some(value.plain("a role's name")));
    postgrest.finish();
    role.map(|role| GateKind::Postgrest { role })
}
