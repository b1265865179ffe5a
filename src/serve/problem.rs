//! Errors in the shape that PostgREST's clients know: <https://docs.postgrest.org/en/v13/references/errors.html>.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use super::auth::Refused;
use crate::query::Unreadable;
use crate::store::read::{Refusal, Unanswered};

pub(super) const JSON: &str = "application/json; charset=utf-8";

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Problem {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
    pub details: Option<Box<Json>>,
    pub hint: Option<String>,
    /// Further headers of the answer.
    pub headers: Vec<(header::HeaderName, String)>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Problem {
        let (code, message) = (code.into(), message.into());
        Problem { status, code, message, details: None, hint: None, headers: Vec::new() }
    }

    pub fn details(self, details: impl Into<Json>) -> Problem {
        Problem { details: Some(Box::new(details.into())), ..self }
    }

    pub fn hint(self, hint: impl Into<String>) -> Problem {
        Problem { hint: Some(hint.into()), ..self }
    }

    pub fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Problem {
        self.headers.push((name, value.into()));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "code": self.code, "details": self.details, "hint": self.hint, "message": self.message });
        let mut response = (self.status, [(header::CONTENT_TYPE, JSON)], body.to_string()).into_response();
        // RFC 9209, for those between us and the reader.
        if let Ok(value) = HeaderValue::from_str(&format!("projector; error={}", self.code)) {
            response.headers_mut().insert("proxy-status", value);
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        let problem = Problem::new(refused.status, refused.code, refused.message.clone());
        let challenge = refused.challenge().and_then(|value| value.to_str().map(ToString::to_string).ok());
        let problem = match challenge {
            Some(challenge) => problem.header(header::WWW_AUTHENTICATE, challenge),
            None => problem,
        };
        Problem { hint: refused.hint.map(Into::into), ..problem }
    }
}

impl From<Unreadable> for Problem {
    fn from(unreadable: Unreadable) -> Problem {
        let status = StatusCode::from_u16(unreadable.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let problem = Problem::new(status, unreadable.code, unreadable.message);
        match status {
            StatusCode::RANGE_NOT_SATISFIABLE => problem.details("Limit should be greater than or equal to zero."),
            _ => problem.hint(unreadable.hint),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let status = match refusal.code {
            "PGRST201" => StatusCode::MULTIPLE_CHOICES,
            "PGRST205" => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        let Refusal { code, message, details, hint } = refusal;
        Problem { status, code: code.into(), message, details, hint, headers: Vec::new() }
    }
}

impl From<Unanswered> for Problem {
    fn from(unanswered: Unanswered) -> Problem {
        match unanswered {
            Unanswered::Refused(refusal) => refusal.into(),
            Unanswered::TooCostly { cost, limit } => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "PROJ422",
                format!("the query would cost {cost:.0} by the planner's reckoning, and {limit:.0} is allowed"),
            )
            .hint("filter by an indexed column, or ask for fewer rows"),
            Unanswered::Postgres(error) => error.into(),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Problem {
        let Some(told) = error.as_database_error() else {
            tracing::warn!("a query failed: {error}");
            let (status, code) = match error {
                sqlx::Error::PoolTimedOut => (StatusCode::GATEWAY_TIMEOUT, "PGRST003"),
                _ => (StatusCode::SERVICE_UNAVAILABLE, "PGRST000"),
            };
            return Problem::new(status, code, "the database cannot answer right now").header(header::RETRY_AFTER, "1");
        };
        let code = told.code().unwrap_or_default().to_string();
        let message = told.message().to_string();
        let status = status(&code, &message);
        if code == "57014" {
            return Problem::new(status, "57014", "the query took longer than the endpoint allows")
                .hint("filter by an indexed column, or ask for fewer rows");
        }
        if status.is_server_error() {
            tracing::warn!("a query failed: {error}");
            return Problem::new(status, &code, "the database cannot answer right now");
        }
        let told = told.try_downcast_ref::<sqlx::postgres::PgDatabaseError>();
        let details = told.and_then(|told| told.detail()).map(|detail| Box::new(Json::from(detail)));
        let hint = told.and_then(|told| told.hint()).map(ToString::to_string);
        Problem { status, code, message, details, hint, headers: Vec::new() }
    }
}

/// PostgREST's table, but that a query that ran out of time is no fault of the server's.
fn status(code: &str, message: &str) -> StatusCode {
    let class = code.get(..2).unwrap_or_default();
    match (code, class) {
        ("57014", _) => StatusCode::GATEWAY_TIMEOUT,
        ("23503" | "23505", _) => StatusCode::CONFLICT,
        ("25006", _) => StatusCode::METHOD_NOT_ALLOWED,
        ("22023", _) if message.starts_with("role ") => StatusCode::UNAUTHORIZED,
        ("42883" | "42P01", _) => StatusCode::NOT_FOUND,
        ("42501", _) | (_, "0L" | "0P" | "28") => StatusCode::FORBIDDEN,
        (_, "08" | "53" | "57" | "58" | "40" | "55" | "25" | "XX" | "F0" | "HV" | "54") => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::BAD_REQUEST,
    }
}
