//! The connections of the endpoint: plain or TLS, with bounds on what each may take.
//!
//! HTTP/1.1 only. What HTTP/2 would need bounds for is other and more (streams, resets, windows, pings), and a proxy
//! before the endpoint speaks HTTP/1.1 to it anyway.

mod bounds;
mod timed;
mod tls;

#[cfg(test)]
mod tests;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use tls::Tls;

use crate::config::Limits;
use bounds::Bounds;
use timed::{Patience, Timed, Turn};

/// Bytes that a connection's buffers may grow to.
const BUFFER: usize = 65_536;

/// Bytes of an answer that the kernel takes before they can be sent. With its own choice of some megabytes it would
/// show only every few minutes that a slow client reads at all, and many such clients would hold much memory.
const UNSENT: u32 = 131_072;

/// When no file descriptor is left, those that are there are given so long to go.
const BREATH: Duration = Duration::from_secs(1);

/// What all connections have in common.
struct Endpoint {
    app: TowerToHyperService<Router>,
    tls: Option<Tls>,
    patience: Patience,
    http: http1::Builder,
    free: Arc<Semaphore>,
    /// Somebody may be waiting for a connection to end.
    full: AtomicBool,
    stop: CancellationToken,
}

/// Serves until told to stop. Answers under way are finished then, for as long as the limits give them; connections
/// that wait for a request are closed.
///
/// When as many connections are open as may be, further ones wait in the kernel's queue and not here: that costs
/// nothing, a burst is served a moment later instead of failing, and once that queue is full too, clients see it as
/// they would a machine that is too busy. Meanwhile every answer closes its connection, so that nobody keeps others
/// waiting by doing nothing.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    tls: Option<Tls>,
    stop: CancellationToken,
) -> io::Result<()> {
    let endpoint = Arc::new(Endpoint::new(app, &limits, tls, stop.clone()));
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => {}
            accepted = endpoint.accept(&listener) => {
                let (stream, permit) = accepted?;
                open.spawn(endpoint.clone().connection(stream, permit));
            }
        }
    }
    drop(listener);
    let finish = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(limits.stop_s), finish).await.is_err() {
        tracing::warn!("{} connections were cut before their answers were read", open.len());
    }
    Ok(())
}

impl Endpoint {
    fn new(app: Router, limits: &Limits, tls: Option<Tls>, stop: CancellationToken) -> Endpoint {
        let header_timeout = Duration::from_secs(limits.header_timeout_s);
        let bounds = Bounds { url: limits.max_url_bytes, body: limits.max_body_bytes, patience: header_timeout };
        let app = app.layer(axum::middleware::from_fn_with_state(Arc::new(bounds), bounds::keep));
        let mut http = http1::Builder::new();
        http.header_read_timeout(None).max_header_size(limits.max_header_bytes);
        http.max_buf_size(BUFFER.max(limits.max_header_bytes));
        Endpoint {
            app: TowerToHyperService::new(app),
            tls,
            patience: Patience {
                head: header_timeout,
                idle: Duration::from_secs(limits.idle_timeout_s),
                write: Duration::from_secs(limits.write_timeout_s),
            },
            http,
            free: Arc::new(Semaphore::new(limits.max_connections_open.clamp(1, Semaphore::MAX_PERMITS))),
            full: AtomicBool::new(false),
            stop,
        }
    }

    /// The next connection, once there may be one more.
    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let free = self.free.clone();
        self.full.store(free.available_permits() == 0, Ordering::Relaxed);
        let permit = free.acquire_owned().await.map_err(io::Error::other)?;
        self.full.store(false, Ordering::Relaxed);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Ok((stream, permit)),
                Err(error) if is_of_one(&error) => {}
                Err(error) => {
                    tracing::error!("no connection can be accepted: {error}; is the limit of open files too low?");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    /// Serves one connection to its end.
    async fn connection(self: Arc<Self>, stream: TcpStream, _permit: OwnedSemaphorePermit) {
        // An answer's last part does not wait for the acknowledgement of the part before it.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        self.served(stream).await;
    }

    async fn served<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        let turn = Turn::default();
        let stream = Timed::new(stream, self.patience, turn.clone());
        let Some(tls) = &self.tls else { return self.requests(stream, turn).await };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            shaken = tls.acceptor().accept(stream) => match shaken {
                Ok(stream) => self.requests(stream, turn).await,
                Err(error) => tracing::debug!("a TLS handshake failed: {error}"),
            },
        }
    }

    async fn requests<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, turn: Turn) {
        let service = service_fn(|request: hyper::Request<Incoming>| {
            turn.pass();
            async {
                let answer = self.app.call(request).await;
                turn.pass();
                answer.map(|answer| self.closing(answer))
            }
        });
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!("a connection ended: {error}");
        }
    }

    /// Says that the connection ends, if others wait for it.
    fn closing(&self, mut answer: Response<Body>) -> Response<Body> {
        if self.full.load(Ordering::Relaxed) {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

/// Whether an error is of the one connection, and the next can be accepted.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
