//! What a request's headers ask for beside its query: <https://docs.postgrest.org/en/v13/references/api.html>.

use axum::http::{HeaderMap, StatusCode, header};

use super::problem::Problem;
use crate::query::Query;
use crate::store::read::{Count, Form};

/// `Prefer`: <https://www.rfc-editor.org/rfc/rfc7240>.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Preferences {
    pub count: Option<Count>,
    pub is_strict: Option<bool>,
    pub time_zone: Option<String>,
    /// Seconds to wait for what `Projector-After` names.
    pub wait_s: Option<u64>,
    unknown: Vec<String>,
}

impl Preferences {
    pub fn read(headers: &HeaderMap) -> Result<Preferences, Problem> {
        let mut preferences = Preferences::default();
        let texts = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for text in texts.flat_map(|text| text.split([',', ';'])).map(str::trim).filter(|text| !text.is_empty()) {
            preferences.take(text)?;
        }
        if preferences.is_strict == Some(true) && !preferences.unknown.is_empty() {
            let message = "Invalid preferences given with handling=strict";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "PGRST122", message)
                .details(format!("Invalid preferences: {}", preferences.unknown.join(", "))));
        }
        Ok(preferences)
    }

    fn take(&mut self, text: &str) -> Result<(), Problem> {
        let (name, value) = text.split_once('=').map_or((text, ""), |(name, value)| (name.trim(), value.trim()));
        match (name, value) {
            ("count", "exact") => _ = self.count.get_or_insert(Count::Exact),
            ("count", "planned") => _ = self.count.get_or_insert(Count::Planned),
            ("count", "estimated") => _ = self.count.get_or_insert(Count::Estimated),
            ("handling", "strict") => _ = self.is_strict.get_or_insert(true),
            ("handling", "lenient") => _ = self.is_strict.get_or_insert(false),
            ("timezone", zone) if jiff::tz::db().get(zone).is_ok() => {
                self.time_zone.get_or_insert_with(|| zone.to_string());
            }
            ("wait", seconds) => {
                let seconds = seconds.parse().map_err(|_| {
                    let message = format!("Prefer: wait={seconds} is no number of seconds");
                    Problem::new(StatusCode::BAD_REQUEST, "PROJ400", message).hint("Prefer: wait=5")
                })?;
                self.wait_s = Some(seconds);
            }
            // They mean something where rows are written.
            ("resolution", "merge-duplicates" | "ignore-duplicates")
            | ("return", "representation" | "minimal" | "headers-only")
            | ("tx", "commit" | "rollback")
            | ("missing", "default" | "null")
            | ("max-affected", _) => {}
            _ => self.unknown.push(text.into()),
        }
        Ok(())
    }

    /// `Preference-Applied`, if anything was.
    pub fn applied(&self) -> Option<String> {
        let count = self.count.map(|count| match count {
            Count::Exact => "count=exact",
            Count::Planned => "count=planned",
            Count::Estimated => "count=estimated",
        });
        let handling = self.is_strict.map(|is_strict| if is_strict { "handling=strict" } else { "handling=lenient" });
        let mut applied: Vec<String> = count.into_iter().chain(handling).map(Into::into).collect();
        applied.extend(self.time_zone.as_ref().map(|zone| format!("timezone={zone}")));
        applied.extend(self.wait_s.map(|seconds| format!("wait={seconds}")));
        (!applied.is_empty()).then(|| applied.join(", "))
    }
}

/// How the answer is to be written, and its media type.
///
/// # Errors
/// When none of what the reader takes can be made.
pub(super) fn form(headers: &HeaderMap) -> Result<(Form, &'static str), Problem> {
    let texts: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accepts = texts.join(",");
    if accepts.trim().is_empty() {
        return Ok((Form::Rows { stripped: false }, super::problem::JSON));
    }
    let mut wanted: Vec<(f32, &str)> = accepts.split(',').map(|one| (quality(one), one.trim())).collect();
    wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
    wanted.iter().find_map(|(_, one)| form_of(one)).ok_or_else(|| {
        let told: Vec<&str> = wanted.iter().map(|(_, one)| *one).collect();
        let message = format!("None of these media types are available: {}", told.join(", "));
        Problem::new(StatusCode::NOT_ACCEPTABLE, "PGRST107", message)
    })
}

fn quality(one: &str) -> f32 {
    let parameters = one.split(';').skip(1).map(str::trim);
    parameters.filter_map(|p| p.strip_prefix("q=")?.trim().parse().ok()).next().unwrap_or(1.0)
}

fn form_of(one: &str) -> Option<(Form, &'static str)> {
    let mut parts = one.split(';').map(|part| part.trim().to_ascii_lowercase());
    let type_ = parts.next()?;
    let stripped = parts.any(|part| part == "nulls=stripped");
    Some(match (type_.as_str(), stripped) {
        ("*/*" | "application/json", _)
        | ("application/vnd.pgrst.array+json" | "application/vnd.pgrst.array", false) => {
            (Form::Rows { stripped: false }, super::problem::JSON)
        }
        ("application/vnd.pgrst.array+json" | "application/vnd.pgrst.array", true) => {
            (Form::Rows { stripped }, "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8")
        }
        ("application/vnd.pgrst.object+json" | "application/vnd.pgrst.object", false) => {
            (Form::Row { stripped }, "application/vnd.pgrst.object+json; charset=utf-8")
        }
        ("application/vnd.pgrst.object+json" | "application/vnd.pgrst.object", true) => {
            (Form::Row { stripped }, "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8")
        }
        ("text/csv", _) => (Form::Csv, "text/csv; charset=utf-8"),
        _ => return None,
    })
}

/// Narrows a query to the rows that a `Range` header names. Others than `from-to` are nobody's.
///
/// # Errors
/// 416 when there can be no such rows.
pub(super) fn narrow(query: &mut Query, headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |details: &str| {
        Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "PGRST103", "Requested range not satisfiable").details(details)
    };
    let Some((from, to)) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(range) else {
        return Ok(());
    };
    if to.is_some_and(|to| to < from) {
        return Err(refused(
            "The lower boundary must be lower than or equal to the upper boundary in the Range header.",
        ));
    }
    // The end is the first row that is not meant.
    let end = query.limit.map(|limit| query.offset.saturating_add(limit));
    let to = to.map(|to| to.saturating_add(1));
    let end = match (end, to) {
        (Some(end), Some(to)) => Some(end.min(to)),
        (one, other) => one.or(other),
    };
    query.offset = query.offset.max(from);
    if let Some(end) = end {
        if end <= query.offset && query.limit != Some(0) {
            return Err(refused("Limit should be greater than or equal to zero."));
        }
        query.limit = Some(end.saturating_sub(query.offset));
    }
    Ok(())
}

fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let (from, to) = text.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(from) || !(to.is_empty() || is_number(to)) {
        return None;
    }
    // Rows beyond what a number can say are beyond all rows.
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    Some((number(from), (!to.is_empty()).then(|| number(to))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_best_form_that_can_be_made_is_made() {
        let form = |accept: &str| form(&headers(&[("accept", accept)])).map(|(form, _)| form).ok();
        assert_eq!(form("text/unknown, text/csv"), Some(Form::Csv));
        assert_eq!(form("text/csv;q=0.5, */*"), Some(Form::Rows { stripped: false }));
        let stripped = "application/vnd.pgrst.object+json;nulls=stripped";
        assert_eq!(form(stripped), Some(Form::Row { stripped: true }));
        assert_eq!(form("text/html"), None);
    }

    #[test]
    fn ranges_are_cut_to_what_both_ask_for() {
        let cut = |range: &str, limit: Option<u64>, offset: u64| {
            let mut query = Query { limit, offset, ..Query::default() };
            narrow(&mut query, &headers(&[("range", range)])).map(|()| (query.offset, query.limit)).ok()
        };
        assert_eq!(cut("0-9", Some(5), 3), Some((3, Some(5))));
        assert_eq!(cut("2-9", Some(5), 0), Some((2, Some(3))));
        assert_eq!(cut("5-", None, 0), Some((5, None)));
        assert_eq!(cut("5-2", None, 0), None);
        assert_eq!(cut("7-9", Some(5), 0), None);
        assert_eq!(cut("items=0-9", None, 0), Some((0, None)));
    }

    #[test]
    fn preferences_are_read() {
        let read = |text: &str| Preferences::read(&headers(&[("prefer", text)]));
        let found = read("count=exact, timezone=Europe/Berlin,foo").unwrap();
        assert_eq!(found.applied().unwrap(), "count=exact, timezone=Europe/Berlin");
        let details = read("handling=strict, foo, bar").unwrap_err().details;
        assert_eq!(details.unwrap().as_str(), Some("Invalid preferences: foo, bar"));
        assert!(read("wait=x").is_err());
    }
}
