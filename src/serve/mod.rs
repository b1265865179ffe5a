//! The query endpoint: `GET /{view}` in PostgREST's grammar.

mod wait;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Serve;
use crate::query::{Query, Unreadable};
use crate::store::read::{self, Answer, Relation, UnknownColumn};

/// What is known of the served schema is read again after this long, and when a name is not known.
const FRESH: Duration = Duration::from_secs(5);

const JSON: &str = "application/json; charset=utf-8";

/// The served schema's relations, and when they were read.
#[derive(Default)]
struct Known {
    read_at: Option<Instant>,
    relations: Arc<HashMap<String, Relation>>,
}

struct Endpoint {
    pool: PgPool,
    settings: Serve,
    relations: RwLock<Known>,
}

/// An error in the shape that PostgREST's clients know.
struct Problem {
    status: StatusCode,
    code: String,
    message: String,
    hint: Option<String>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "code": self.code, "message": self.message, "details": null, "hint": self.hint });
        (self.status, [(header::CONTENT_TYPE, JSON)], body.to_string()).into_response()
    }
}

impl From<Unreadable> for Problem {
    fn from(unreadable: Unreadable) -> Problem {
        Problem {
            status: StatusCode::BAD_REQUEST,
            code: "PGRST100".into(),
            message: unreadable.message,
            hint: Some(unreadable.hint.into()),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Problem {
        let code = error.as_database_error().and_then(|e| e.code()).map(|code| code.to_string());
        let told = error.as_database_error().map(|e| e.message().to_string()).unwrap_or_default();
        match code.as_deref() {
            Some("57014") => Problem {
                status: StatusCode::GATEWAY_TIMEOUT,
                code: "57014".into(),
                message: "the query took longer than the endpoint allows".into(),
                hint: Some("filter by an indexed column, or ask for fewer rows".into()),
            },
            // Data exceptions and comparisons that the type does not have are the asker's.
            Some(code) if code.starts_with("22") || code == "42883" || code == "42846" => {
                Problem { status: StatusCode::BAD_REQUEST, code: code.into(), message: told, hint: None }
            }
            _ => {
                tracing::warn!("a query failed: {error}");
                Problem {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    code: "PGRST000".into(),
                    message: "the database cannot answer right now".into(),
                    hint: None,
                }
            }
        }
    }
}

/// Serves until told to stop. Answers under way are finished.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: TcpListener,
    pool: PgPool,
    settings: Serve,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let endpoint = Arc::new(Endpoint { pool, settings, relations: RwLock::default() });
    let app = Router::new()
        .route("/", get(index).fallback(read_only))
        .route("/{view}", get(rows).fallback(read_only))
        .with_state(endpoint);
    axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

async fn read_only() -> Problem {
    Problem {
        status: StatusCode::METHOD_NOT_ALLOWED,
        code: "PGRST117".into(),
        message: "views are changed by events only; this endpoint reads".into(),
        hint: Some("use GET".into()),
    }
}

async fn index(State(endpoint): State<Arc<Endpoint>>) -> Result<Response, Problem> {
    let relations = endpoint.relations(true).await?;
    let mut names: Vec<&String> = relations.keys().collect();
    names.sort();
    Ok(([(header::CONTENT_TYPE, JSON)], json!({ "views": names }).to_string()).into_response())
}

async fn rows(
    State(endpoint): State<Arc<Endpoint>>,
    Path(view): Path<String>,
    RawQuery(raw): RawQuery,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let query = Query::parse(raw.as_deref().unwrap_or_default())?;
    let mut relations = endpoint.relations(false).await?;
    if !relations.contains_key(&view) {
        relations = endpoint.relations(true).await?;
    }
    if !relations.contains_key(&view) {
        let near = crate::spec::diagnostic::suggest(&view, relations.keys().map(String::as_str));
        return Err(Problem {
            status: StatusCode::NOT_FOUND,
            code: "PGRST205".into(),
            message: format!("there is no view `{view}` in the schema {}", endpoint.settings.schema),
            hint: near.or_else(|| Some("GET / lists the views".into())),
        });
    }
    wait::wait(&endpoint.pool, &view, &asked).await?;
    let answer = match endpoint.answer(&relations, &view, &query).await? {
        Ok(answer) => answer,
        // The view is another one than a moment ago.
        Err(_) => endpoint.answer(&*endpoint.relations(true).await?, &view, &query).await??,
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    let range = match answer.rows {
        0 => "*/*".to_string(),
        rows => format!("{}-{}/*", query.offset, query.offset as i64 + rows - 1),
    };
    if let Ok(range) = HeaderValue::from_str(&range) {
        headers.insert(header::CONTENT_RANGE, range);
    }
    if answer.parked > 0 {
        headers.insert("projector-parked", HeaderValue::from(answer.parked));
    }
    Ok((headers, answer.json).into_response())
}

impl Endpoint {
    /// Asks Postgres. Inside, its error when the view is not what was known of it.
    async fn answer(
        &self,
        relations: &HashMap<String, Relation>,
        view: &str,
        query: &Query,
    ) -> Result<Result<Answer, sqlx::Error>, Problem> {
        let relation = relations.get(view).cloned().unwrap_or_default();
        let unknown = |UnknownColumn(column)| Problem {
            status: StatusCode::BAD_REQUEST,
            code: "42703".into(),
            message: format!("column {view}.{column} does not exist"),
            hint: crate::spec::diagnostic::suggest(&column, relation.columns.iter().map(|(name, _)| name.as_str())),
        };
        let (schema, max_rows) = (&self.settings.schema, self.settings.max_rows);
        let statement = read::statement(schema, view, &relation, query, max_rows);
        let (sql, arguments) = statement.map_err(unknown)?;
        match read::run(&self.pool, sql, arguments).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) => match error.as_database_error().and_then(|error| error.code()).as_deref() {
                Some("42703" | "42P01" | "42883" | "0A000") => Ok(Err(error)),
                _ => Err(error.into()),
            },
        }
    }

    async fn relations(&self, now: bool) -> Result<Arc<HashMap<String, Relation>>, Problem> {
        if !now {
            let known = self.relations.read().unwrap_or_else(|e| e.into_inner());
            if known.read_at.is_some_and(|at| at.elapsed() < FRESH) {
                return Ok(known.relations.clone());
            }
        }
        let read = Arc::new(read::relations(&self.pool, &self.settings.schema).await?);
        *self.relations.write().unwrap_or_else(|e| e.into_inner()) =
            Known { read_at: Some(Instant::now()), relations: read.clone() };
        Ok(read)
    }
}
