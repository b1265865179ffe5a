//! What a request may not be larger than.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;

/// The bounds of a request's parts, and what its body may take to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) url: usize,
    pub(super) body: usize,
    pub(super) patience: Duration,
}

/// Lets a request through, with its body in memory.
pub(super) async fn keep(State(bounds): State<Arc<Bounds>>, request: Request, next: Next) -> Response {
    let url = request.uri().path_and_query().map_or(0, |url| url.as_str().len());
    if url > bounds.url {
        let message = format!("the path and query are {url} bytes; {} are allowed", bounds.url);
        return problem(StatusCode::URI_TOO_LONG, message, "ask for less, or in several requests");
    }
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let large = || {
        let message = format!("the body is larger than {} bytes", bounds.body);
        problem(StatusCode::PAYLOAD_TOO_LARGE, message, "views are asked by path and query")
    };
    if body.size_hint().lower() > bounds.body as u64 {
        return large();
    }
    match tokio::time::timeout(bounds.patience, Limited::new(body, bounds.body).collect()).await {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, Body::from(body.to_bytes()))).await,
        Ok(Err(error)) if error.is::<LengthLimitError>() => large(),
        Ok(Err(_)) => problem(StatusCode::BAD_REQUEST, "the body cannot be read".into(), "send it whole"),
        Err(_) => problem(StatusCode::REQUEST_TIMEOUT, "the body has not come".into(), "send it at once"),
    }
}

/// In the shape that PostgREST's clients know. What is left of the request is not read.
fn problem(status: StatusCode, message: String, hint: &str) -> Response {
    let body = json!({ "code": format!("PROJ{}", status.as_u16()), "message": message, "details": null, "hint": hint });
    let headers = [(header::CONTENT_TYPE, "application/json; charset=utf-8"), (header::CONNECTION, "close")];
    (status, headers, body.to_string()).into_response()
}
