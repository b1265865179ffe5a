//! The settings of the query endpoint.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// Address of the query endpoint; empty: none.
    pub listen: String,
    /// The schema that holds the served views.
    pub schema: String,
    /// Further schemas whose relations may be read; `Accept-Profile` names one.
    pub more_schemas: Vec<String>,
    /// Rows an answer holds at most, and each relation that is embedded in it.
    pub max_rows: u32,
    pub statement_timeout_ms: u64,
    pub max_connections: u32,
    /// Whether sums and counts may be asked for.
    pub aggregates: bool,
    /// Origins whose pages may read answers; `*` for all.
    pub cors_origins: Vec<String>,
    pub auth: Auth,
    pub tls: Tls,
    pub limits: Limits,
}

impl Serve {
    /// All schemas that are served, the projections' own first.
    pub fn schemas(&self) -> Vec<String> {
        std::iter::once(&self.schema).chain(&self.more_schemas).cloned().collect()
    }
}

impl Default for Serve {
    fn default() -> Serve {
        Serve {
            listen: "127.0.0.1:8080".into(),
            schema: "views".into(),
            more_schemas: Vec::new(),
            max_rows: 1_000,
            statement_timeout_ms: 5_000,
            max_connections: 8,
            aggregates: true,
            cors_origins: Vec::new(),
            auth: Auth::default(),
            tls: Tls::default(),
            limits: Limits::default(),
        }
    }
}

/// Who may ask, and as whom.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Postgres role of requests without a token; empty: they are refused.
    pub anonymous_role: String,
    /// File of the keys that tokens are verified by: a secret, PEM public keys, a JWK or a JWK set.
    pub jwt_keys_file: Option<PathBuf>,
    /// Address of a JWK set.
    pub jwks_url: Option<String>,
    /// Seconds after which the JWK set is fetched again.
    pub jwks_refresh_s: u64,
    /// Audience that tokens have to be meant for; empty: any.
    pub audience: String,
    /// Issuer that tokens have to be from; empty: any.
    pub issuer: String,
    /// Where in the claims the role stands: `role`, `.app_metadata.roles[0]`, `."https://example.com/role"`.
    pub role_claim: String,
    /// Seconds that clocks may differ by.
    pub leeway_s: u32,
    /// File of API keys: `name role sha256:HEX`, one a line.
    pub api_keys_file: Option<PathBuf>,
    /// Postgres role of tokens that name none; empty: they are refused.
    pub default_role: String,
}

/// The certificate of the query endpoint; both or none.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// File of the certificate and those between it and its authority, PEM.
    pub cert_file: Option<PathBuf>,
    /// File of its private key, PEM.
    pub key_file: Option<PathBuf>,
}

/// What one client, and all of them together, can take of the query endpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Seconds from a connection's or a request's first byte until its headers, and then its body, have come.
    pub header_timeout_s: u64,
    /// Bytes of a request's line and headers.
    pub max_header_bytes: usize,
    /// Bytes of a request's path and query.
    pub max_url_bytes: usize,
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Seconds that a connection may stand idle between two requests.
    pub idle_timeout_s: u64,
    /// Seconds without progress after which a client that does not read its answer is cut.
    pub write_timeout_s: u64,
    /// Connections open at once; further ones wait.
    pub max_connections_open: usize,
    /// Seconds that answers under way are given when the endpoint stops.
    pub stop_s: u64,
    /// Requests a second of one caller; 0: any number.
    pub requests_per_s: f64,
    /// Requests of one caller at once; 0: as many as in one second.
    pub burst: u32,
    /// Costs, as the planner reckons, that a query may have at most; null: any.
    pub max_cost: Option<f64>,
    /// Other limits for the callers of a role.
    pub by_role: BTreeMap<String, Rate>,
}

/// The limits of one role's callers.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// Requests a second of one caller; 0: any number; null: as many as others.
    pub requests_per_s: Option<f64>,
    /// Requests of one caller at once; 0: as many as in one second.
    pub burst: u32,
    pub max_rows: Option<u32>,
    pub statement_timeout_ms: Option<u64>,
    pub max_cost: Option<f64>,
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            anonymous_role: String::new(),
            jwt_keys_file: None,
            jwks_url: None,
            jwks_refresh_s: 300,
            audience: String::new(),
            issuer: String::new(),
            role_claim: "role".into(),
            leeway_s: 30,
            api_keys_file: None,
            default_role: String::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            header_timeout_s: 10,
            max_header_bytes: 16_384,
            max_url_bytes: 8_192,
            max_body_bytes: 65_536,
            idle_timeout_s: 75,
            write_timeout_s: 30,
            max_connections_open: 2_000,
            stop_s: 15,
            requests_per_s: 0.0,
            burst: 0,
            max_cost: None,
            by_role: BTreeMap::new(),
        }
    }
}
