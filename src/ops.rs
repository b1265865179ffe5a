//! Operations: whether the process lives, and whether its readers can be answered. On a port of its own, without tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;
use sqlx::{PgPool, Row};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Operations;

struct Operated {
    pool: PgPool,
    settings: Operations,
}

/// Serves `GET /live` and `GET /ready` until told to stop.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: TcpListener,
    pool: PgPool,
    settings: Operations,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/live", get(async || "alive\n"))
        .route("/ready", get(ready))
        .with_state(Arc::new(Operated { pool, settings }));
    axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

/// 200 when Postgres answers, the catalog is there, and all views are as fresh as they have to be; else 503 and why not.
async fn ready(State(operated): State<Arc<Operated>>) -> impl IntoResponse {
    let why = operated.why_not_ready().await;
    let status = if why.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": why.is_none(), "why": why });
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

impl Operated {
    async fn why_not_ready(&self) -> Option<String> {
        const PATIENCE: Duration = Duration::from_secs(2);
        match tokio::time::timeout(PATIENCE, self.stalest()).await {
            Err(_) => Some(format!("Postgres does not answer within {} s", PATIENCE.as_secs())),
            Ok(Err(error)) => {
                tracing::debug!("not ready: {error}");
                Some("Postgres cannot be asked, or the catalog is not there".into())
            }
            Ok(Ok(None)) => None,
            Ok(Ok(Some((view, stale_s)))) => {
                let most = self.settings.ready_within_s?;
                match stale_s {
                    Some(stale_s) if stale_s <= most as f64 => None,
                    Some(stale_s) => {
                        Some(format!("{view} is complete as of {stale_s:.0} s ago, and {most} s are allowed"))
                    }
                    None => Some(format!("nobody knows yet how fresh {view} is")),
                }
            }
        }
    }

    /// The view that is least fresh, and since when it is, in seconds.
    async fn stalest(&self) -> Result<Option<(String, Option<f64>)>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT view, extract(epoch FROM clock_timestamp() - caught_up_at)::float8
             FROM projector.reflected ORDER BY caught_up_at NULLS FIRST LIMIT 1",
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    }
}
