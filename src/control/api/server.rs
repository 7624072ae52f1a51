//! The HTTP side: paths, bounds, errors as JSON; and `/metrics` for Prometheus.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Query as QueryString, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::ValueEnum as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};

use super::limit::Limited;
use super::types::{DEFAULT_LIMIT, DrainFilter, DrainRequest, ErrorBody, ExplainRequest, Filter, MAX_LIMIT};
use super::{ListKind, Query, QueryError, Reply};
use crate::control::event::Event;

/// Longest that a request waits for the owner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections open at once, of the API and of the metrics.
const CONNECTIONS: usize = 64;
/// Longest silence of a connection.
const SILENCE: Duration = Duration::from_secs(30);
/// Largest request body, in bytes: a frame in hexadecimal and some.
const BODY_LIMIT: usize = 64 * 1024;

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process answers on the socket.
    #[error("{0}: another margay is running here; stop it, or give this one its own --socket and --pin-dir")]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The metrics address cannot be used.
    #[error("cannot serve metrics on {address}: {source}")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Serves the API on a Unix socket, and the metrics where an address is given, as tasks of the current runtime.
///
/// # Errors
/// [`ServeError`] where either cannot be listened on; a socket file that nobody answers on is replaced.
pub async fn serve(events: mpsc::Sender<Event>, socket: &Path, metrics: Option<SocketAddr>) -> Result<(), ServeError> {
    let listener = bind(socket)?;
    let metrics = match metrics {
        Some(address) => {
            Some(TcpListener::bind(address).await.map_err(|source| ServeError::Metrics { address, source })?)
        }
        None => None,
    };
    let api = ListKind::value_variants()
        .iter()
        .fold(Router::new(), |router, kind| {
            let handler = move |State(events): State<mpsc::Sender<Event>>, QueryString(filter): QueryString<Filter>| {
                ask(events, Query::List(*kind, filter))
            };
            router.route(&format!("/v1/{}", kind.name()), get(handler))
        })
        .route("/v1/status", get(|State(events)| ask(events, Query::Status)))
        .route("/v1/routes/diff/kernel", get(kernel_diff))
        .route("/v1/explain", post(explain))
        .route("/v1/drain", get(draining).post(drain))
        .fallback(async || failure(StatusCode::NOT_FOUND, "no such path; see docs/operations.md"))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(events.clone());
    tokio::spawn(async move { axum::serve(Limited::new(listener, CONNECTIONS, SILENCE), api).await });
    if let Some(listener) = metrics {
        let router = Router::new().route("/metrics", get(scrape)).with_state(events);
        tokio::spawn(async move { axum::serve(Limited::new(listener, CONNECTIONS, SILENCE), router).await });
    }
    Ok(())
}

/// Binds under another name and moves the socket into place, so that it never exists with the wrong mode.
fn bind(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Socket { path: path.to_owned(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ServeError::InUse(path.to_owned()));
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let unready = path.with_file_name(name);
    let _ = std::fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready).map_err(failed)?;
    std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    std::fs::rename(&unready, path).map_err(failed)?;
    Ok(listener)
}

async fn kernel_diff(State(events): State<mpsc::Sender<Event>>, QueryString(filter): QueryString<Filter>) -> Response {
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    ask(events, Query::KernelDiff { vrf: filter.vrf, limit }).await
}

async fn explain(State(events): State<mpsc::Sender<Event>>, Json(request): Json<ExplainRequest>) -> Response {
    ask(events, Query::Explain(Box::new(request))).await
}

async fn drain(State(events): State<mpsc::Sender<Event>>, Json(request): Json<DrainRequest>) -> Response {
    ask(events, Query::Drain(request)).await
}

async fn draining(State(events): State<mpsc::Sender<Event>>, QueryString(of): QueryString<DrainFilter>) -> Response {
    ask(events, Query::Draining(of)).await
}

async fn ask(events: mpsc::Sender<Event>, query: Query) -> Response {
    let answer = answer(&events, |reply| Event::Api(query, reply)).await;
    match answer {
        Some(Ok(reply)) => Json::<Reply>(reply).into_response(),
        Some(Err(error @ QueryError::Invalid(_))) => failure(StatusCode::BAD_REQUEST, &error.to_string()),
        Some(Err(error @ QueryError::Dataplane(_))) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        None => failure(StatusCode::SERVICE_UNAVAILABLE, "the control thread is busy or stopping; try again"),
    }
}

async fn scrape(State(events): State<mpsc::Sender<Event>>) -> Response {
    match answer(&events, Event::Metrics).await {
        Some(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn answer<T>(events: &mpsc::Sender<Event>, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    let exchange = async {
        events.send(event(sender)).await.ok()?;
        receiver.await.ok()
    };
    tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.ok().flatten()
}

fn failure(status: StatusCode, error: &str) -> Response {
    (status, Json(ErrorBody { error: error.to_owned() })).into_response()
}
