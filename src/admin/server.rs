//! The HTTP server of the admin thread: `/metrics`, what there is more of by topic and by group, `/healthz`, `/readyz`; the core of a partition
//! is set by PUT, which no page of a browser may send elsewhere unasked.

use super::Source;
use super::metrics::{CONTENT_TYPE, render, render_groups, render_topics};
use crate::base::error::ErrorCode;
use crate::base::ids::CoreIndex;
use crate::base::measures::Measures;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE as CONTENT_TYPE_HEADER;
use axum::response::IntoResponse;
use axum::routing::{get, put};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;

/// A thread that serves until the process ends.
pub struct Server {
    address: SocketAddr,
}

/// Takes the address, so that a start fails before anything else if it is not to be had.
///
/// # Errors
/// As bind(2); `AddrInUse` where another process has the port.
pub fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut addresses = (host, port).to_socket_addrs()?;
    let address = addresses.next().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Server {
    /// Serves on `listener` from a thread of its own, which is on no core's CPU by itself.
    ///
    /// # Errors
    /// Where a thread or its runtime cannot be had.
    pub fn start(listener: TcpListener, source: Arc<dyn Source>) -> io::Result<Server> {
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let body = move || {
            runtime.block_on(async move {
                let served = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => axum::serve(listener, routes(source)).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = served {
                    tracing::error!("metrics are not served any more: {error}");
                }
            });
        };
        std::thread::Builder::new().name("admin".to_owned()).spawn(body)?;
        Ok(Server { address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn routes(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route("/metrics", get(|source| page(source, false, render)))
        .route("/metrics/topics", get(|source| page(source, true, render_topics)))
        .route("/metrics/groups", get(|source| page(source, true, render_groups)))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/topics/{topic}/partitions/{partition}/core/{core}", put(move_partition))
        .with_state(source)
}

/// A page of metrics.
async fn page(
    State(source): State<Arc<dyn Source>>,
    detailed: bool,
    render: fn(&[Option<Measures>]) -> String,
) -> impl IntoResponse {
    // Asking waits for the cores; other requests go on meanwhile.
    let page = tokio::task::spawn_blocking(move || render(&source.measures(detailed))).await;
    match page {
        Ok(page) => (StatusCode::OK, [(CONTENT_TYPE_HEADER, CONTENT_TYPE)], page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Whether every core answers: one that hangs is not healthy.
async fn health(State(source): State<Arc<dyn Source>>) -> impl IntoResponse {
    let answered =
        tokio::task::spawn_blocking(move || source.measures(false).iter().map(Option::is_some).collect::<Vec<_>>());
    match answered.await {
        Ok(cores) if cores.iter().all(|&answers| answers) => (StatusCode::OK, "ok\n".to_owned()),
        Ok(cores) => {
            let silent: Vec<String> =
                cores.iter().enumerate().filter(|(_, answers)| !**answers).map(|(core, _)| core.to_string()).collect();
            (StatusCode::SERVICE_UNAVAILABLE, format!("no answer of core {}\n", silent.join(", ")))
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
    }
}

/// Whether the broker takes requests: this server starts when it does, and it does not while it stops.
async fn readiness(State(source): State<Arc<dyn Source>>) -> impl IntoResponse {
    if source.is_serving() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "stopping\n") }
}

/// Moves a partition to a core.
async fn move_partition(
    State(source): State<Arc<dyn Source>>,
    Path((topic, partition, core)): Path<(String, i32, u16)>,
) -> impl IntoResponse {
    let text = format!("{topic}-{partition} is on core {core}\n");
    let moved = tokio::task::spawn_blocking(move || source.move_partition(topic, partition, CoreIndex(core))).await;
    match moved {
        Ok(Ok(())) => (StatusCode::OK, text),
        Ok(Err((code, message))) => (status_of(code), format!("{message}\n")),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::UnknownTopicOrPartition => StatusCode::NOT_FOUND,
        ErrorCode::InvalidRequest | ErrorCode::InvalidReplicaAssignment => StatusCode::BAD_REQUEST,
        ErrorCode::RequestTimedOut => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}
