//! The query endpoint: `GET /RELATION` in PostgREST's grammar, with what is not PostgREST's beside it: how fresh an answer
//! is, waiting for an event, and pages that are stable under writes.
//!
//! HTTP types stop here, and SQL stops in [`crate::store::read`].

mod auth;
mod cors;
mod keyset;
mod known;
mod listen;
mod openapi;
mod problem;
mod rates;
mod request;
mod reread;
mod rows;
mod wait;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::any;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use auth::NewApiKey;

use crate::config::Serve;
use crate::demand::Demand;
use crate::query::Query;
use crate::store::read::{Schema, unknown_relation};
use auth::{Auth, Caller};
use cors::Cors;
use known::Known;
use problem::Problem;
use rates::Rates;

const METHODS: &str = "OPTIONS,GET,HEAD";
const OPENAPI: &str = "application/openapi+json; charset=utf-8";
/// For people: queries are put together and tried.
const PAGE: &str = include_str!("page.html");
/// Nothing from elsewhere, and no script but the page's own.
static PAGE_POLICY: LazyLock<String> = LazyLock::new(|| {
    let script = PAGE.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>"));
    let hash = STANDARD.encode(Sha256::digest(script.map(|(script, _)| script).unwrap_or_default()));
    format!(
        "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
});

/// What all requests share.
struct Endpoint {
    pool: PgPool,
    settings: Serve,
    /// The role that we log in with.
    own_role: String,
    demand: Arc<Demand>,
    known: Arc<Known>,
    auth: Auth,
    rates: Rates,
    cors: Cors,
}

/// What keeps the endpoint from being served.
#[derive(Debug, thiserror::Error)]
pub enum Unserved {
    #[error(transparent)]
    Auth(#[from] auth::AuthError),
    #[error(transparent)]
    File(#[from] reread::Unusable),
}

/// An endpoint that is ready to be served.
pub struct Ready {
    app: Router,
    known: Arc<Known>,
    limits: crate::config::Limits,
    tls: Option<listen::Tls>,
}

/// Prepares the endpoint: settings and files that cannot be used are refused here.
///
/// # Errors
/// Which of them, and why.
pub fn ready(pool: PgPool, settings: Serve, demand: Arc<Demand>) -> Result<Ready, Unserved> {
    let known = Arc::new(Known::new(pool.clone(), settings.schemas()));
    let (limits, tls) = (settings.limits.clone(), listen::Tls::new(&settings.tls)?);
    let endpoint = Endpoint {
        auth: Auth::new(&settings.auth)?,
        rates: Rates::new(&settings.limits),
        cors: Cors::new(&settings.cors_origins),
        known: known.clone(),
        own_role: pool.connect_options().get_username().to_string(),
        pool,
        settings,
        demand,
    };
    let endpoint = Arc::new(endpoint);
    let app = Router::new()
        .route("/", any(index))
        .route("/{relation}", any(relation))
        .route("/rpc/{function}", any(function))
        .fallback(nowhere)
        .layer(middleware::from_fn_with_state(endpoint.clone(), across_origins))
        .with_state(endpoint);
    Ok(Ready { app, known, limits, tls })
}

impl Ready {
    /// Serves until told to stop. Answers under way are finished.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let following = tokio::spawn(self.known.follow(stop.clone()));
        let served = listen::serve(listener, self.app, self.limits, self.tls, stop).await;
        following.abort();
        served
    }
}

async fn across_origins(State(endpoint): State<Arc<Endpoint>>, request: Request, next: Next) -> Response {
    match endpoint.cors.preflight(request.method(), request.headers()) {
        Some(answer) => answer,
        None => {
            let allowed = endpoint.cors.allowed(request.headers());
            let mut response = next.run(request).await;
            response.headers_mut().extend(allowed);
            response
        }
    }
}

async fn function(Path(name): Path<String>) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "PGRST202",
        format!("Could not find the function {name} without parameters in the schema cache"),
    )
    .hint("functions are not served; a view can call one")
}

async fn nowhere() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "PGRST125", "Invalid path specified in request URL")
}

async fn index(State(endpoint): State<Arc<Endpoint>>, method: Method, headers: HeaderMap) -> Result<Response, Problem> {
    if let Some(answer) = not_read(&method)? {
        return Ok(answer);
    }
    let accepts = headers.get(header::ACCEPT).and_then(|accepts| accepts.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/html") {
        // It shows nothing of its own: what it asks for is asked with the reader's token.
        let policy = HeaderValue::from_str(&PAGE_POLICY).ok();
        let mut response = Html(PAGE).into_response();
        policy
            .into_iter()
            .for_each(|policy| _ = response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy));
        return Ok(response);
    }
    endpoint.admit(&headers).await?;
    let schemas = endpoint.schemas().await?;
    let schema = profile(&schemas, &headers)?;
    let needs_token = endpoint.settings.auth.anonymous_role.is_empty();
    let document = openapi::document(schema, endpoint.settings.aggregates, needs_token, None);
    Ok(([(header::CONTENT_TYPE, OPENAPI)], document.to_string()).into_response())
}

async fn relation(
    State(endpoint): State<Arc<Endpoint>>,
    Path(name): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = endpoint.admit(&headers).await?;
    endpoint.demand.note();
    let schemas = endpoint.schemas().await?;
    let schema = profile(&schemas, &headers)?;
    let only_told = not_read(&method)?;
    let (raw, place) = keyset::split(uri.query().unwrap_or_default());
    let query = Query::parse(&raw)?;
    let reread;
    let (schema, relation) = match schema.relations.get(&name) {
        Some(relation) => (schema, relation),
        // It may be new.
        None => {
            endpoint.known.refresh().await?;
            reread = endpoint.known.schemas();
            let schema = profile(&reread, &headers)?;
            (schema, schema.relations.get(&name).ok_or_else(|| unknown_relation(schema, &name))?)
        }
    };
    if let Some(answer) = only_told {
        return Ok(answer);
    }
    let place = place.as_deref();
    let (path, raw) = (uri.path(), raw.as_str());
    let asked = rows::Asked {
        schema,
        relation,
        caller: &caller,
        method: &method,
        path,
        raw,
        place,
        query: &query,
        headers: &headers,
    };
    let answer = match endpoint.rows(asked).await {
        // The view may be another one than a moment ago.
        Err(problem) if is_of_the_catalog(&problem) && endpoint.known.refresh().await? => {
            let schemas = endpoint.known.schemas();
            let schema = profile(&schemas, &headers)?;
            let relation = schema.relations.get(&name).ok_or_else(|| unknown_relation(schema, &name))?;
            endpoint.rows(rows::Asked { schema, relation, ..asked }).await
        }
        answer => answer,
    };
    answer.map_err(|problem| match problem.code == "42501" && caller.is_anonymous() {
        // A token might help.
        true => Problem { status: StatusCode::UNAUTHORIZED, ..problem }.header(header::WWW_AUTHENTICATE, "Bearer"),
        false => problem,
    })
}

/// Whether a request failed of what is known of the catalog.
fn is_of_the_catalog(problem: &Problem) -> bool {
    matches!(problem.code.as_str(), "42703" | "42P01" | "42883" | "0A000" | "PGRST200")
}

/// The answer to what does not read.
fn not_read(method: &Method) -> Result<Option<Response>, Problem> {
    match method.as_str() {
        "GET" | "HEAD" => Ok(None),
        "OPTIONS" => Ok(Some(([(header::ALLOW, METHODS)], "").into_response())),
        other => {
            Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "PGRST117", format!("Unsupported HTTP method: {other}"))
                .hint("views are changed by events only; this endpoint reads")
                .header(header::ALLOW, METHODS))
        }
    }
}

/// The schema that a request means.
fn profile<'s>(schemas: &'s [Schema], headers: &HeaderMap) -> Result<&'s Schema, Problem> {
    let asked = headers.get("accept-profile").map(|value| value.to_str().unwrap_or("?"));
    let found = match asked {
        None => schemas.first(),
        Some(name) => schemas.iter().find(|schema| schema.name == name),
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = schemas.iter().map(|schema| schema.name.as_str()).collect();
        Problem::new(StatusCode::NOT_ACCEPTABLE, "PGRST106", format!("Invalid schema: {}", asked.unwrap_or_default()))
            .hint(format!("Only the following schemas are exposed: {}", names.join(", ")))
    })
}

impl Endpoint {
    /// Who asks, if they may.
    async fn admit(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
        let caller = self.auth.caller(headers).await?;
        if caller.role == self.own_role && !caller.is_anonymous() {
            // It stands above all row policies.
            let message = "the token names the role that the projector itself has";
            return Err(Problem::new(StatusCode::FORBIDDEN, "PGRST303", message));
        }
        self.rates.take(&caller.role, &caller.name).map_err(|many| {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "PROJ429", format!("{} asks too often", caller.name))
                .header(header::RETRY_AFTER, many.retry_after_s.to_string())
        })?;
        Ok(caller)
    }

    async fn schemas(&self) -> Result<Arc<Vec<Schema>>, Problem> {
        let known = self.known.schemas();
        if !known.is_empty() {
            return Ok(known);
        }
        self.known.refresh().await?;
        Ok(self.known.schemas())
    }

    /// What a role may ask for.
    fn limits_of(&self, role: &str) -> RoleLimits {
        let own = self.settings.limits.by_role.get(role);
        RoleLimits {
            rows: own.and_then(|own| own.max_rows).unwrap_or(self.settings.max_rows).into(),
            statement_timeout_ms: own.and_then(|own| own.statement_timeout_ms),
            max_cost: own.and_then(|own| own.max_cost).or(self.settings.limits.max_cost),
        }
    }
}

/// What one role may ask for.
struct RoleLimits {
    rows: u64,
    /// If it is another than that of all.
    statement_timeout_ms: Option<u64>,
    max_cost: Option<f64>,
}
