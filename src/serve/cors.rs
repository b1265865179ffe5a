//! Pages of other origins: <https://fetch.spec.whatwg.org/#http-cors-protocol>.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};

const EXPOSED: &str = "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Link, Location, \
    Preference-Applied, Projector-Generation, Projector-Parked, Projector-Staleness, Projector-Token, Retry-After";
const METHODS: &str = "GET, HEAD, OPTIONS";

/// The origins whose pages may read answers.
#[derive(Debug, Clone)]
pub(super) struct Cors {
    origins: Vec<String>,
}

impl Cors {
    /// `*` stands for all origins.
    pub fn new(origins: &[String]) -> Cors {
        Cors { origins: origins.to_vec() }
    }

    /// What is said to the origin that asks, if it may read the answer.
    pub fn allowed(&self, asked: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some(origin) = asked.get(header::ORIGIN) else { return headers };
        let is_listed = self.origins.iter().any(|known| known == "*" || known.as_bytes() == origin.as_bytes());
        if is_listed {
            let all = self.origins.iter().any(|known| known == "*");
            let said = if all { HeaderValue::from_static("*") } else { origin.clone() };
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, said);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
            headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        }
        headers
    }

    /// The answer to a browser that asks before it reads.
    pub fn preflight(&self, method: &Method, asked: &HeaderMap) -> Option<Response> {
        let wanted = HeaderName::from_static("access-control-request-method");
        if method != Method::OPTIONS || !asked.contains_key(wanted) || !asked.contains_key(header::ORIGIN) {
            return None;
        }
        let mut headers = self.allowed(asked);
        if !headers.is_empty() {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
            if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
        }
        Some((headers, "").into_response())
    }
}
