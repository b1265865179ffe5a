//! What a genuine token says: until when it counts, for whom it is meant, and which role it names.

use serde_json::{Map, Value};

use super::refused::Refused;

/// Claims as they stand in a token.
pub(super) type Claims = Map<String, Value>;

/// What claims are held against. Empty texts are not.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) leeway_s: i64,
    pub(super) audience: String,
    pub(super) issuer: String,
}

impl Wanted {
    /// Checks the claims at a time, in seconds since 1970. Returns the last second at which they count.
    ///
    /// # Errors
    /// Why they do not.
    pub(super) fn check(&self, claims: &Claims, now: i64) -> Result<i64, Refused> {
        let until = seconds(claims, "exp", "The JWT 'exp' claim must be a number")?
            .map_or(i64::MAX, |until| until.saturating_add(self.leeway_s));
        if now > until {
            return Err(Refused::claims("JWT expired"));
        }
        let starts = [
            ("nbf", "The JWT 'nbf' claim must be a number", "JWT not yet valid"),
            ("iat", "The JWT 'iat' claim must be a number", "JWT issued at future"),
        ];
        for (name, mistyped, early) in starts {
            if seconds(claims, name, mistyped)?.is_some_and(|from| now < from.saturating_sub(self.leeway_s)) {
                return Err(Refused::claims(early));
            }
        }
        if !self.is_meant(claims)? {
            return Err(Refused::claims("JWT not in audience"));
        }
        if !self.issuer.is_empty() && claims.get("iss").and_then(Value::as_str) != Some(self.issuer.as_str()) {
            return Err(Refused::claims("JWT not from the expected issuer"));
        }
        Ok(until)
    }

    /// PostgREST lets tokens without an audience pass where one is wanted. Here they do not.
    fn is_meant(&self, claims: &Claims) -> Result<bool, Refused> {
        let mistyped = || Refused::claims("The JWT 'aud' claim must be a string or an array of strings");
        let named = match claims.get("aud") {
            None | Some(Value::Null) => false,
            Some(Value::String(audience)) => *audience == self.audience,
            Some(Value::Array(audiences)) if audiences.iter().all(Value::is_string) => {
                audiences.iter().any(|audience| audience.as_str() == Some(self.audience.as_str()))
            }
            Some(_) => return Err(mistyped()),
        };
        Ok(self.audience.is_empty() || named)
    }
}

fn seconds(claims: &Claims, name: &str, mistyped: &'static str) -> Result<Option<i64>, Refused> {
    match claims.get(name) {
        None => Ok(None),
        // What is beyond an i64 is as good as its end; `as` keeps to it.
        Some(value) => match value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds.floor() as i64)) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(Refused::claims(mistyped)),
        },
    }
}

/// Where in the claims something stands, as PostgREST writes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    /// Reads `role`, `.role`, `.app_metadata.roles[0]` or `."https://example.com/role"`.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) fn parse(text: &str) -> Result<Path, String> {
        let dotted = if text.starts_with(['.', '[']) { text.to_string() } else { format!(".{text}") };
        let (mut rest, mut steps) = (dotted.as_str(), Vec::new());
        while !rest.is_empty() {
            let (step, after) = step(rest).ok_or_else(|| {
                format!(
                    "`{rest}` of `{text}` is neither .key, .\"quoted key\" nor [0]; for example .app_metadata.roles[0]"
                )
            })?;
            steps.push(step);
            rest = after;
        }
        Ok(Path(steps))
    }

    /// What stands there.
    pub(super) fn find<'c>(&self, claims: &'c Claims) -> Option<&'c Value> {
        let (first, further) = self.0.split_first()?;
        let Step::Key(first) = first else { return None };
        further.iter().try_fold(claims.get(first)?, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
        })
    }
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(index) = text.strip_prefix('[') {
        let (index, rest) = index.split_once(']')?;
        let digits = index.bytes().all(|byte| byte.is_ascii_digit());
        return Some((Step::Index(index.parse().ok().filter(|_| digits)?), rest));
    }
    let key = text.strip_prefix('.')?;
    if let Some(quoted) = key.strip_prefix('"') {
        let (key, rest) = quoted.split_once('"')?;
        return Some((Step::Key(key.to_string()), rest));
    }
    let plain = |c: char| c.is_alphanumeric() || "_$@-".contains(c);
    let (key, rest) = key.split_at(key.find(|c| !plain(c)).unwrap_or(key.len()));
    (!key.is_empty()).then(|| (Step::Key(key.to_string()), rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn paths_lead_to_the_role() {
        let claims = claims(json!({
            "role": "a", "app_metadata": { "roles": ["b", "c"] }, "https://x.y/role": "d", "$at@-": { "": "e" }
        }));
        let found = |path: &str| Path::parse(path).unwrap().find(&claims).and_then(Value::as_str).map(str::to_string);
        assert_eq!(found("role").as_deref(), Some("a"));
        assert_eq!(found(".role").as_deref(), Some("a"));
        assert_eq!(found(".app_metadata.roles[1]").as_deref(), Some("c"));
        assert_eq!(found("app_metadata.roles[0]").as_deref(), Some("b"));
        assert_eq!(found(".\"https://x.y/role\"").as_deref(), Some("d"));
        assert_eq!(found(".$at@-.\"\"").as_deref(), Some("e"));
        for missing in [".other", ".app_metadata.roles[2]", ".role.inner", ".app_metadata[0]", "[0]"] {
            assert_eq!(found(missing), None, "{missing}");
        }
    }

    #[test]
    fn paths_that_cannot_be_read_are_told() {
        for bad in ["", ".", ".a..b", ".a[", ".a[x]", ".a[-1]", ".a[+1]", ".a[]", ".\"open", "a b", ".a\"b\""] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
        assert!(Path::parse(".a..b").unwrap_err().contains("`..b` of `.a..b`"));
    }

    #[test]
    fn times_have_a_leeway_on_both_sides() {
        let wanted = Wanted { leeway_s: 30, audience: String::new(), issuer: String::new() };
        let at = |value: Value| wanted.check(&claims(value), 1_000).map_err(|refused| refused.message.into_owned());
        assert_eq!(at(json!({ "exp": 970 })), Ok(1_000));
        assert_eq!(at(json!({ "exp": 970.9 })), Ok(1_000));
        assert_eq!(at(json!({ "exp": 969 })), Err("JWT expired".into()));
        assert_eq!(at(json!({ "exp": 1e300 })), Ok(i64::MAX));
        assert_eq!(at(json!({ "exp": -1e300 })), Err("JWT expired".into()));
        assert_eq!(at(json!({ "exp": "2000" })), Err("The JWT 'exp' claim must be a number".into()));
        assert_eq!(at(json!({ "exp": null })), Err("The JWT 'exp' claim must be a number".into()));
        assert_eq!(at(json!({ "nbf": 1_030, "iat": 1_030 })), Ok(i64::MAX));
        assert_eq!(at(json!({ "nbf": 1_031 })), Err("JWT not yet valid".into()));
        assert_eq!(at(json!({ "nbf": [] })), Err("The JWT 'nbf' claim must be a number".into()));
        assert_eq!(at(json!({ "iat": 1_031 })), Err("JWT issued at future".into()));
        assert_eq!(at(json!({ "iat": true })), Err("The JWT 'iat' claim must be a number".into()));
    }

    #[test]
    fn the_audience_and_the_issuer_are_wanted_if_set() {
        let wanted = Wanted { leeway_s: 0, audience: "me".into(), issuer: "them".into() };
        let at = |value: Value| wanted.check(&claims(value), 0).map_err(|refused| refused.message.into_owned());
        assert_eq!(at(json!({ "aud": "me", "iss": "them" })), Ok(i64::MAX));
        assert_eq!(at(json!({ "aud": ["you", "me"], "iss": "them" })), Ok(i64::MAX));
        for aud in [json!(null), json!([]), json!("you"), json!(["you"]), json!("")] {
            assert_eq!(at(json!({ "aud": aud, "iss": "them" })), Err("JWT not in audience".into()), "{aud}");
        }
        assert_eq!(at(json!({ "iss": "them" })), Err("JWT not in audience".into()));
        assert!(at(json!({ "aud": ["me", 1], "iss": "them" })).unwrap_err().contains("an array of strings"));
        for iss in [json!(null), json!("you"), json!(["them"])] {
            assert_eq!(at(json!({ "aud": "me", "iss": iss })), Err("JWT not from the expected issuer".into()), "{iss}");
        }
        let any = Wanted { leeway_s: 0, audience: String::new(), issuer: String::new() };
        assert!(any.check(&claims(json!({ "aud": ["x"] })), 0).is_ok());
        assert!(any.check(&claims(json!({ "aud": 3 })), 0).is_err());
    }
}
