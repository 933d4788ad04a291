//! The application: it answers from the database, and is as ill as the database or the test makes it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_postgres::{Client, NoTls};

use super::{PASSWORD, eventually, runtime, until};

/// How it answers, whatever the database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As the database makes it.
    Honest,
    /// Every answer is a 500.
    Failing,
    /// It takes requests and never answers.
    Hanging,
    /// It asks to be left alone (429): nobody can know how it is.
    Limiting,
}

/// A running (or gone) application.
pub(crate) struct Application {
    address: SocketAddr,
    inside: Arc<Inside>,
    serving: std::sync::Mutex<Option<AbortHandle>>,
}

struct Inside {
    url: String,
    maintenance: PathBuf,
    mood: std::sync::Mutex<Mood>,
    /// A condition under which it is ill.
    ill_when: std::sync::Mutex<String>,
    /// So many requests are still to be answered with a 500.
    failures_left: AtomicU32,
    asked: AtomicU32,
    client: Mutex<Option<Client>>,
}

impl Application {
    pub(super) fn start(url: &str, maintenance: PathBuf) -> Self {
        let inside = Inside {
            url: url.to_owned(),
            maintenance,
            mood: Mood::Honest.into(),
            ill_when: "to_regclass('public.pages') is not null".to_owned().into(),
            failures_left: 0.into(),
            asked: 0.into(),
            client: None.into(),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let app = Self { address, inside: Arc::new(inside), serving: None.into() };
        app.serve(listener);
        app
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it answers from now on.
    pub(crate) fn mood(&self, mood: Mood) {
        *self.inside.mood.lock().unwrap() = mood;
    }

    /// The SQL condition under which it is ill; at first that `public.pages` exists.
    pub(crate) fn ill_when(&self, condition: &str) {
        condition.clone_into(&mut self.inside.ill_when.lock().unwrap());
    }

    /// The next requests for posts fail, so many of them.
    pub(crate) fn fail_next(&self, requests: u32) {
        self.inside.failures_left.store(requests, Ordering::SeqCst);
    }

    /// How many of those failures are still to come.
    pub(crate) fn failures_left(&self) -> u32 {
        self.inside.failures_left.load(Ordering::SeqCst)
    }

    /// How many requests have come.
    fn asked(&self) -> u32 {
        self.inside.asked.load(Ordering::SeqCst)
    }

    /// Nobody listens any more.
    pub(crate) fn leave(&self) {
        if let Some(serving) = self.serving.lock().unwrap().take() {
            serving.abort();
        }
        until("the application is gone", || std::net::TcpStream::connect(self.address).is_err());
    }

    /// It listens again, where it did.
    pub(crate) fn come_back(&self) {
        let listener = eventually("the port is free", || std::net::TcpListener::bind(self.address));
        self.serve(listener);
    }

    /// Waits until so many more requests have come: signals are read again and again, so this is how time passes.
    #[track_caller]
    pub(crate) fn wait_for_requests(&self, more: u32) {
        let before = self.asked();
        until("signals are read", || self.asked() >= before + more);
    }

    fn serve(&self, listener: std::net::TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let inside = Arc::clone(&self.inside);
        let router = Router::new()
            .route("/health", get(|| async { "well" }))
            .route("/api/posts", get(posts))
            .route("/auth/v1/token", post(sign_in))
            .layer(from_fn_with_state(Arc::clone(&inside), at_the_door))
            .with_state(inside);
        let serving = runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        *self.serving.lock().unwrap() = Some(serving.abort_handle());
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.lock().unwrap().take() {
            serving.abort();
        }
    }
}

/// What comes before every answer: the maintenance page, and the mood.
async fn at_the_door(State(inside): State<Arc<Inside>>, request: Request, next: Next) -> Response {
    inside.asked.fetch_add(1, Ordering::SeqCst);
    let mood = *inside.mood.lock().unwrap();
    let mut response = if inside.maintenance.exists() {
        (StatusCode::SERVICE_UNAVAILABLE, "closed for maintenance").into_response()
    } else {
        match mood {
            Mood::Honest => next.run(request).await,
            Mood::Failing => (StatusCode::INTERNAL_SERVER_ERROR, "out of order").into_response(),
            Mood::Hanging => std::future::pending().await,
            Mood::Limiting => (StatusCode::TOO_MANY_REQUESTS, "later").into_response(),
        }
    };
    // One that has left keeps no connections.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn posts(State(inside): State<Arc<Inside>>) -> Response {
    let failing = inside.failures_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    let answer = if failing.is_ok() { Err("a blip".to_owned()) } else { inside.posts().await };
    match answer {
        Ok(posts) => Json(posts).into_response(),
        Err(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason).into_response(),
    }
}

async fn sign_in(State(inside): State<Arc<Inside>>, Json(given): Json<Value>) -> Response {
    if given["password"] != PASSWORD {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error_code": "invalid_credentials" }))).into_response();
    }
    match inside.posts().await {
        Ok(_) => Json(json!({ "access_token": "token", "token_type": "bearer" })).into_response(),
        Err(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason).into_response(),
    }
}

impl Inside {
    /// The ids of the posts, unless the database makes us ill.
    async fn posts(&self) -> Result<Value, String> {
        let ill_when = self.ill_when.lock().unwrap().clone();
        let mut kept = self.client.lock().await;
        let client = if let Some(client) = kept.take().filter(|client| !client.is_closed()) {
            client
        } else {
            let (client, connection) =
                tokio_postgres::connect(&self.url, NoTls).await.map_err(|error| error.to_string())?;
            runtime().spawn(connection);
            client
        };
        let query = format!("select id, {ill_when} from public.posts order by id limit 3");
        let rows = client.query(&query, &[]).await.map_err(|error| error.to_string())?;
        *kept = Some(client);
        if rows.iter().any(|row| row.get::<_, bool>(1)) {
            return Err("the new tables do not fit".to_owned());
        }
        Ok(rows.iter().map(|row| json!({ "id": row.get::<_, i64>(0) })).collect())
    }
}
