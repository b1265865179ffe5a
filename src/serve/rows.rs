//! A page of rows, and all that is said of it.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::auth::Caller;
use super::problem::{JSON, Problem};
use super::request::{self, Preferences};
use super::{Endpoint, keyset, wait};
use crate::query::Query;
use crate::store::read::{self, Answer, Form, Limits, Reader, Relation, Schema};

/// A request for rows.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub schema: &'a Schema,
    pub relation: &'a Relation,
    pub caller: &'a Caller,
    pub method: &'a Method,
    pub path: &'a str,
    /// The query string, and as a tree; the place of a page's beginning.
    pub raw: &'a str,
    pub query: &'a Query,
    pub place: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

impl Endpoint {
    pub(super) async fn rows(&self, asked: Asked<'_>) -> Result<Response, Problem> {
        let Asked { schema, relation, caller, headers, raw, .. } = asked;
        let limits = self.limits_of(&caller.role);
        let allowed = Limits { rows: limits.rows, aggregates: self.settings.aggregates };
        let mut query = asked.query.clone();
        if asked.method == Method::GET {
            request::narrow(&mut query, headers)?;
        }
        let (form, media_type) = match request::form(headers) {
            Ok(form) => form,
            // What is wrong with the query comes first.
            Err(problem) => {
                return match read::check(schema, relation, &query, allowed) {
                    Ok(()) => Err(problem),
                    Err(refusal) => Err(refusal.into()),
                };
            }
        };
        let preferences = Preferences::read(headers)?;
        // A page that a header cuts out has no address of its own.
        let ordered_by = match asked.query.limit {
            Some(_) if !headers.contains_key(header::RANGE) => keyset::order(&mut query, relation),
            _ => None,
        };
        if let Some(place) = asked.place {
            if ordered_by.is_none() {
                return Err(keyset::no_place());
            }
            keyset::begin_behind(&mut query, place)?;
        }
        if headers.contains_key("projector-after")
            && !read::may_read(&self.pool, &caller.role, &schema.name, &relation.name).await?
        {
            let message = format!("permission denied for table {}", relation.name);
            return Err(Problem::new(StatusCode::FORBIDDEN, "42501", message));
        }
        let role = caller.role.as_str();
        wait::wait(&self.pool, role, &relation.name, &relation.reflects, headers, preferences.wait_s).await?;
        let reader = Reader {
            role: &caller.role,
            claims: &caller.claims,
            method: asked.method.as_str(),
            path: asked.path,
            time_zone: preferences.time_zone.as_deref(),
            statement_timeout_ms: limits.statement_timeout_ms,
            max_cost: limits.max_cost,
        };
        let of_rows = read::Asked { schema, relation, query: &query, limits: allowed, form, count: preferences.count };
        let answer = read::answer(&self.pool, &reader, of_rows).await?;
        fresh_enough(headers, &answer)?;
        let status = status(form, &query, &answer)?;
        let mut said = Said::default();
        said.say(header::CONTENT_TYPE, media_type);
        said.say(header::CONTENT_RANGE, content_range(query.offset, &answer));
        said.say(header::CONTENT_LOCATION, canonical(&relation.name, raw));
        if let Some(applied) = preferences.applied() {
            said.say(HeaderName::from_static("preference-applied"), applied);
        }
        if headers.contains_key("accept-profile") || self.known.names().len() > 1 {
            said.say(HeaderName::from_static("content-profile"), &schema.name);
        }
        said.freshness(&answer);
        let is_full = query.limit.map(|limit| limit.min(limits.rows)) == Some(answer.rows as u64) && answer.rows > 0;
        if let (Some(columns), true, true) = (&ordered_by, is_full, media_type == JSON) {
            let link = keyset::last(&answer.body).and_then(|last| keyset::next(asked.path, raw, columns, &last));
            link.into_iter().for_each(|link| said.say(header::LINK, link));
        }
        let body = if asked.method == Method::HEAD { String::new() } else { answer.body };
        Ok((status, said.0, body).into_response())
    }
}

/// The headers of an answer.
#[derive(Default)]
struct Said(HeaderMap);

impl Said {
    fn say(&mut self, name: HeaderName, value: impl AsRef<str>) {
        // A name of whatever letters is written as its bytes are.
        if let Ok(value) = HeaderValue::from_bytes(value.as_ref().as_bytes()) {
            self.0.insert(name, value);
        }
    }

    fn freshness(&mut self, answer: &Answer) {
        if answer.parked > 0 {
            self.say(HeaderName::from_static("projector-parked"), answer.parked.to_string());
        }
        let Some(token) = &answer.token else { return };
        self.say(HeaderName::from_static("projector-token"), &token.text);
        self.say(HeaderName::from_static("projector-generation"), token.generation.to_string());
        if let Some(stale_s) = token.stale_s {
            self.say(HeaderName::from_static("projector-staleness"), format!("{stale_s:.3}"));
        }
    }
}

/// `Projector-Max-Staleness: SECONDS`.
fn fresh_enough(headers: &HeaderMap, answer: &Answer) -> Result<(), Problem> {
    let Some(asked) = headers.get("projector-max-staleness") else { return Ok(()) };
    let most: f64 = asked.to_str().ok().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "PROJ400", "Projector-Max-Staleness is no number of seconds")
            .hint("Projector-Max-Staleness: 5")
    })?;
    let stale_s = answer.token.as_ref().and_then(|token| token.stale_s);
    if stale_s.is_some_and(|stale_s| stale_s <= most) {
        return Ok(());
    }
    let message = match stale_s {
        Some(stale_s) => format!("the rows are complete as of {stale_s:.1} s ago, and {most} s are allowed"),
        None => "nobody knows how fresh these rows are".into(),
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "PROJ503", message).header(header::RETRY_AFTER, "1"))
}

fn status(form: Form, query: &Query, answer: &Answer) -> Result<StatusCode, Problem> {
    if matches!(form, Form::Row { .. }) && answer.rows != 1 {
        let message = "Cannot coerce the result to a single JSON object";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "PGRST116", message)
            .details(format!("The result contains {} rows", answer.rows)));
    }
    match answer.total {
        Some(total) if query.offset as i64 > total => {
            Err(Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "PGRST103", "Requested range not satisfiable")
                .details(format!("An offset of {} was requested, but there are only {total} rows.", query.offset))
                .header(header::CONTENT_RANGE, format!("*/{total}")))
        }
        Some(total) if answer.rows < total => Ok(StatusCode::PARTIAL_CONTENT),
        _ => Ok(StatusCode::OK),
    }
}

fn content_range(offset: u64, answer: &Answer) -> String {
    let total = answer.total.map_or_else(|| "*".to_string(), |total| total.to_string());
    match answer.rows {
        0 => format!("*/{total}"),
        rows => format!("{offset}-{}/{total}", offset as i64 + rows - 1),
    }
}

/// The address of the same rows, however it was written: parameters in the order of their names.
fn canonical(relation: &str, raw: &str) -> String {
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let mut sorted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        sorted.entry(decoded(name)).or_default().push(decoded(value));
    }
    let encoded = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
    let pairs: Vec<String> = sorted
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| format!("{}={}", encoded(name), encoded(value))))
        .collect();
    if pairs.is_empty() { format!("/{relation}") } else { format!("/{relation}?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_canonical() {
        assert_eq!(canonical("t", "b=eq.1&a=in.(1,2)"), "/t?a=in.%281%2C2%29&b=eq.1");
        assert_eq!(canonical("t", ""), "/t");
        assert_eq!(canonical("t", "d"), "/t?d=");
    }

    #[test]
    fn ranges_are_told() {
        let answer = |rows, total| Answer { rows, total, ..Answer::default() };
        assert_eq!(content_range(0, &answer(15, None)), "0-14/*");
        assert_eq!(content_range(24, &answer(0, Some(15))), "*/15");
        assert!(status(Form::Csv, &Query { offset: 100, ..Query::default() }, &answer(0, Some(15))).is_err());
        let partial = status(Form::Csv, &Query::default(), &answer(5, Some(15))).unwrap();
        assert_eq!(partial, StatusCode::PARTIAL_CONTENT);
    }
}
