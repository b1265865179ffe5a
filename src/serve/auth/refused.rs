//! Why a request is not let in, in the words that PostgREST's clients know.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A request that is not let in. The codes are PostgREST's, and the messages where it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: Cow<'static, str>,
    pub hint: Option<Cow<'static, str>>,
}

impl Refused {
    /// The token could not be read or verified.
    pub(super) fn undecoded(message: impl Into<Cow<'static, str>>) -> Refused {
        Refused { status: StatusCode::UNAUTHORIZED, code: "PGRST301", message: message.into(), hint: None }
    }

    /// The token is genuine, and its claims do not let it in.
    pub(super) fn claims(message: impl Into<Cow<'static, str>>) -> Refused {
        Refused { code: "PGRST303", ..Refused::undecoded(message) }
    }

    /// There is no token, or it names no role.
    pub(super) fn nobody(hint: &'static str) -> Refused {
        let message = "Anonymous access is disabled";
        Refused { code: "PGRST302", hint: Some(hint.into()), ..Refused::undecoded(message) }
    }

    /// There is a token, and nothing to verify it by.
    pub(super) fn no_keys() -> Refused {
        Refused {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "PGRST300",
            message: "Server lacks JWT secret".into(),
            hint: Some("serve.auth.jwt_keys_file or serve.auth.jwks_url says what tokens are verified by".into()),
        }
    }

    /// The keys that tokens are verified by have never come yet.
    pub(super) fn not_yet() -> Refused {
        Refused {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "PROJ503",
            message: "the keys that tokens are verified by cannot be fetched right now".into(),
            hint: Some("ask again in some seconds".into()),
        }
    }

    /// The value of `WWW-Authenticate`, for those who can do something about it.
    pub fn challenge(&self) -> Option<HeaderValue> {
        match self.code {
            "PGRST302" => Some(HeaderValue::from_static("Bearer")),
            "PGRST301" | "PGRST303" => {
                let told = self.message.replace('\\', "\\\\").replace('"', "\\\"");
                HeaderValue::from_str(&format!("Bearer error=\"invalid_token\", error_description=\"{told}\"")).ok()
            }
            _ => None,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let challenge = self.challenge();
        let body = json!({ "code": self.code, "message": self.message, "details": null, "hint": self.hint });
        let kind = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
        let mut response = (self.status, kind, body.to_string()).into_response();
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
