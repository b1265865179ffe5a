//! Operations: whether the process lives, and whether its readers can be answered. On a port of its own, without tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Value as Json, json};
use sqlx::postgres::PgRow;
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

/// 200 when Postgres answers and the catalog is there, and, if the settings say so, all views are as fresh as they have to
/// be; else 503 and why not. The body tells how fresh each view is, and whether its projection stands still.
async fn ready(State(operated): State<Arc<Operated>>) -> impl IntoResponse {
    let (why, views) = match operated.views().await {
        Ok(views) => (operated.why_stale(&views), views),
        Err(why) => (Some(why), Vec::new()),
    };
    let status = if why.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let views: Vec<Json> = views.iter().map(View::told).collect();
    let body = json!({ "ready": why.is_none(), "why": why, "views": views });
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

/// A view that readers see.
struct View {
    name: String,
    /// Seconds since it was complete for certain; `None` while nobody knows.
    stale_s: Option<f64>,
    /// The code of what its projection stands still for.
    halted: Option<String>,
}

impl View {
    fn told(&self) -> Json {
        let stale_s = self.stale_s.map(|stale_s| (stale_s * 1000.0).round() / 1000.0);
        json!({ "view": self.name, "stale_s": stale_s, "halted": self.halted })
    }
}

impl Operated {
    /// All views, or why they cannot be asked for.
    async fn views(&self) -> Result<Vec<View>, String> {
        const PATIENCE: Duration = Duration::from_secs(2);
        match tokio::time::timeout(PATIENCE, self.read()).await {
            Err(_) => Err(format!("Postgres does not answer within {} s", PATIENCE.as_secs())),
            Ok(Err(error)) => {
                tracing::debug!("not ready: {error}");
                Err("Postgres cannot be asked, or the catalog is not there".into())
            }
            Ok(Ok(views)) => Ok(views),
        }
    }

    /// What is to be said of the stalest view, if any is staler than the settings allow.
    fn why_stale(&self, views: &[View]) -> Option<String> {
        let most = self.settings.ready_within_s?;
        let stalest = views.iter().max_by(|a, b| age(a).total_cmp(&age(b)))?;
        match stalest.stale_s {
            Some(stale_s) if stale_s <= most as f64 => None,
            Some(stale_s) => {
                Some(format!("{} is complete as of {stale_s:.0} s ago, and {most} s are allowed", stalest.name))
            }
            None => Some(format!("nobody knows yet how fresh {} is", stalest.name)),
        }
    }

    async fn read(&self) -> Result<Vec<View>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT s.view, CASE WHEN bool_and(r.caught_up_at IS NOT NULL)
                 THEN greatest(extract(epoch FROM clock_timestamp() - min(r.caught_up_at)), 0)::float8 END, min(h.code)
             FROM projector.served s LEFT JOIN projector.reflected r ON r.view = s.view
                 LEFT JOIN projector.halts h ON h.generation_id = s.generation_id
             GROUP BY s.view ORDER BY s.view",
        )
        .fetch_all(&self.pool)
        .await?;
        let view = |row: &PgRow| Ok(View { name: row.try_get(0)?, stale_s: row.try_get(1)?, halted: row.try_get(2)? });
        rows.iter().map(view).collect()
    }
}

/// One that nobody knows anything of is the stalest.
fn age(view: &View) -> f64 {
    view.stale_s.unwrap_or(f64::INFINITY)
}
