//! The application of the story: a small shop on the demo's database.
//!
//! It has what rollbackd meets in the wild: a health endpoint that does not look at the database and is green
//! whatever happens, an API that customers use, a sign-in in Supabase's form, a maintenance flag, a role of its own
//! with few rights, and code that takes a new way as soon as a new table is there. It knows nothing of rollbackd.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rand::Rng;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many connections the shop keeps.
const CONNECTIONS: usize = 4;
/// How long the shop waits for its database, all in all.
const PATIENCE: Duration = Duration::from_secs(2);

/// The home page of posts before the migration.
const POSTS: &str = "select coalesce(jsonb_agg(to_jsonb(page)), '[]') from (
    select p.id, p.title, pr.username as author, p.created_at as published_at
    from public.posts p join public.profiles pr on pr.id = p.author_id
    where p.published order by p.created_at desc limit 20) as page";

/// The same since the new code was deployed, for databases that have the new table. It reads `published_at`.
const CONTENT_POSTS: &str = "select coalesce(jsonb_agg(to_jsonb(page)), '[]') from (
    select p.id, c.title, pr.username as author, c.published_at
    from public.content_posts c join public.posts p on p.id = c.post_id join public.profiles pr on pr.id = p.author_id
    where c.published_at is not null order by c.published_at desc limit 20) as page";

/// Starts the shop on a free port of this machine. While the file `maintenance` exists it answers 503.
///
/// # Errors
/// A sentence, when the database's URL is wrong or no port can be had.
pub async fn start(
    database_url: &str,
    maintenance: PathBuf,
    apikey: &str,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> Result<SocketAddr, String> {
    let shop = Arc::new(Shop {
        pool: Pool::new(database_url)?,
        maintenance,
        apikey: apikey.to_owned(),
        tracker: tracker.clone(),
    });
    let guarded = Router::new()
        .route("/api/posts", get(posts))
        .route("/api/comments", post(comment))
        .route("/auth/v1/token", post(sign_in))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&shop), only_with_apikey));
    let router = Router::new()
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .merge(guarded)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&shop), unless_in_maintenance))
        .with_state(shop);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| format!("the shop's port: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("the shop's port: {error}"))?;
    let cancel = cancel.clone();
    tracker.spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::warn!(event = "demo.shop_stopped", %error, "the demo's shop stopped");
        }
    });
    Ok(address)
}

/// What the requests share.
struct Shop {
    pool: Pool,
    maintenance: PathBuf,
    apikey: String,
    tracker: TaskTracker,
}

async fn unless_in_maintenance(State(shop): State<Arc<Shop>>, request: Request, next: Next) -> Response {
    if shop.maintenance.exists() {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "maintenance", "the shop is closed for maintenance");
    }
    next.run(request).await
}

async fn only_with_apikey(State(shop): State<Arc<Shop>>, request: Request, next: Next) -> Response {
    let given = request.headers().get("apikey").is_some_and(|value| value.as_bytes() == shop.apikey.as_bytes());
    if given { next.run(request).await } else { refusal(StatusCode::UNAUTHORIZED, "no_apikey", "wrong or no apikey") }
}

async fn posts(State(shop): State<Arc<Shop>>) -> Result<Json<Value>, Broken> {
    within(async {
        let client = shop.pool.client(&shop.tracker).await?;
        let there: bool = client.query_one("select to_regclass('public.content_posts') is not null", &[]).await?.get(0);
        let page = client.query_one(if there { CONTENT_POSTS } else { POSTS }, &[]).await?;
        Ok(Json(page.get(0)))
    })
    .await
}

#[derive(Deserialize)]
struct Comment {
    post_id: i64,
    email: String,
    body: String,
}

async fn comment(State(shop): State<Arc<Shop>>, Json(comment): Json<Comment>) -> Result<StatusCode, Broken> {
    within(async {
        let client = shop.pool.client(&shop.tracker).await?;
        let written = client
            .execute(
                "insert into public.comments (post_id, author_id, body)
                 select $1, id, $3 from public.profiles where email = $2",
                &[&comment.post_id, &comment.email, &comment.body],
            )
            .await?;
        Ok(if written == 1 { StatusCode::CREATED } else { StatusCode::NOT_FOUND })
    })
    .await
}

#[derive(Deserialize)]
struct Grant {
    grant_type: String,
}

#[derive(Deserialize)]
struct Credentials {
    email: String,
    password: String,
}

async fn sign_in(
    State(shop): State<Arc<Shop>>,
    Query(grant): Query<Grant>,
    Json(credentials): Json<Credentials>,
) -> Result<Response, Broken> {
    if grant.grant_type != "password" {
        return Ok(refusal(StatusCode::BAD_REQUEST, "unsupported_grant_type", "only grant_type=password"));
    }
    within(async {
        let client = shop.pool.client(&shop.tracker).await?;
        let found = client
            .query_opt(
                "select id::text, password_salt, password_hash from public.profiles where email = $1",
                &[&credentials.email],
            )
            .await?;
        let Some(row) = found else { return Ok(unknown_credentials()) };
        let (id, salt, hash): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        if hex(&Sha256::digest(format!("{salt}{}", credentials.password))) != hash {
            return Ok(unknown_credentials());
        }
        let token = hex(&rand::rng().random::<[u8; 24]>());
        let user = json!({ "id": id, "email": credentials.email });
        Ok(Json(json!({ "access_token": token, "token_type": "bearer", "expires_in": 3600, "user": user }))
            .into_response())
    })
    .await
}

fn unknown_credentials() -> Response {
    refusal(StatusCode::BAD_REQUEST, "invalid_credentials", "Invalid login credentials")
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error_code": code, "msg": message }))).into_response()
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
        text
    })
}

/// Why a request fails with 500. The database's message stays inside, as it should in any application.
struct Broken(&'static str);

impl From<tokio_postgres::Error> for Broken {
    fn from(error: tokio_postgres::Error) -> Self {
        let code = error.code().map_or("-", tokio_postgres::error::SqlState::code);
        tracing::debug!(event = "demo.shop_failed", sqlstate = code, "the demo's shop failed a request");
        Self("the database refused the query")
    }
}

impl IntoResponse for Broken {
    fn into_response(self) -> Response {
        refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", self.0)
    }
}

/// Bounds a request's time with the database.
async fn within<T>(work: impl Future<Output = Result<T, Broken>>) -> Result<T, Broken> {
    timeout(PATIENCE, work).await.unwrap_or(Err(Broken("the database did not answer in time")))
}

/// A few connections, made when they are first needed and again when they are lost.
struct Pool {
    config: tokio_postgres::Config,
    slots: Vec<Mutex<Option<Client>>>,
    next: AtomicUsize,
}

impl Pool {
    fn new(url: &str) -> Result<Self, String> {
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|_invalid| "the shop's database URL is not one")?;
        config.application_name("shop").connect_timeout(PATIENCE).options("-c statement_timeout=2000");
        let slots = (0..CONNECTIONS).map(|_| Mutex::new(None)).collect();
        Ok(Self { config, slots, next: AtomicUsize::new(0) })
    }

    /// The next connection of the round, connected.
    async fn client(&self, tracker: &TaskTracker) -> Result<MappedMutexGuard<'_, Client>, Broken> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % CONNECTIONS;
        let slot = self.slots.get(turn).ok_or(Broken("the pool is empty"))?;
        let mut slot = slot.lock().await;
        if slot.as_ref().is_none_or(Client::is_closed) {
            let (client, connection) = self.config.connect(NoTls).await?;
            // It ends when the client is dropped, so shutdown need not cancel it.
            tracker.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(event = "demo.shop_disconnected", %error, "the demo's shop lost a connection");
                }
            });
            *slot = Some(client);
        }
        MutexGuard::try_map(slot, Option::as_mut).map_err(|_empty| Broken("the pool is empty"))
    }
}

#[cfg(test)]
mod tests;
