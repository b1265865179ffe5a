//! Connections: how they are made, and what is refused at once.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor, PgPool, Row};

use super::error::StoreError;
use super::sql::vouched;
use crate::config::Postgres;

const OLDEST_POSTGRES: i32 = 15;

/// How to reach Postgres, from the settings.
pub fn options(settings: &Postgres, password: Option<&SecretString>) -> PgConnectOptions {
    let mode = match settings.tls.as_str() {
        "disable" => PgSslMode::Disable,
        "require" => PgSslMode::Require,
        "verify-ca" => PgSslMode::VerifyCa,
        "verify-full" => PgSslMode::VerifyFull,
        _ => PgSslMode::Prefer,
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&settings.host)
        .port(settings.port)
        .database(&settings.database)
        .username(&settings.user)
        .ssl_mode(mode)
        .application_name("projector");
    if let Some(password) = password {
        options = options.password(password.expose_secret());
    }
    if let Some(ca_file) = &settings.ca_file {
        options = options.ssl_root_cert(ca_file);
    }
    options
}

/// A pool whose connections read and write values in one form, whatever the server's defaults are.
///
/// Connections are made when they are first needed.
pub fn pool(options: PgConnectOptions, size: u32, statement_timeout_ms: u64) -> PgPool {
    let pool = sized(size, session(statement_timeout_ms, "off"))
        // A begin() that was cancelled leaves its connection inside a transaction.
        .after_release(|connection, _| {
            // One that does not even take this is not kept.
            Box::pin(async move { Ok(connection.execute("ROLLBACK").await.is_ok()) })
        });
    pool.connect_lazy_with(options.disable_statement_logging().extra_float_digits(None))
}

/// The same for readers: its connections cannot write, and nobody begins a transaction on them.
///
/// Every message to Postgres counts here: a connection is only tried before it is used if it has not been for a while.
pub fn readers(options: PgConnectOptions, size: u32, statement_timeout_ms: u64) -> PgPool {
    const FOR_A_WHILE: Duration = Duration::from_secs(1);
    let pool = sized(size, session(statement_timeout_ms, "on")).test_before_acquire(false).before_acquire(
        |connection, known| {
            Box::pin(async move { Ok(known.idle_for < FOR_A_WHILE || connection.ping().await.is_ok()) })
        },
    );
    pool.connect_lazy_with(options.disable_statement_logging().extra_float_digits(None))
}

fn session(statement_timeout_ms: u64, read_only: &str) -> String {
    format!(
        "SET TIME ZONE 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'iso_8601'; \
         SET client_min_messages = 'error'; SET standard_conforming_strings = on; \
         SET statement_timeout = {statement_timeout_ms}; SET idle_in_transaction_session_timeout = '60s'; \
         SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = {read_only}"
    )
}

fn sized(size: u32, session: String) -> PgPoolOptions {
    let options = PgPoolOptions::new().max_connections(size).acquire_timeout(Duration::from_secs(10));
    options.after_connect(move |connection, _| {
        let session = session.clone();
        Box::pin(async move { connection.execute(vouched(session)).await.map(|_| ()) })
    })
}

/// Refuses servers that are too old, and a pooler that mixes sessions.
///
/// # Errors
/// What is wrong with the server, and what to do.
pub async fn check_server(pool: &PgPool) -> Result<(), StoreError> {
    // Without the pool first: it would try on in silence where the reason is wanted.
    let probe = pool.connect_options().connect().await?;
    probe.close().await?;
    let mut first = pool.acquire().await?;
    // Not prepared: a pooler in transaction mode would already stumble there.
    let row = first
        .fetch_one(sqlx::raw_sql("SELECT current_setting('server_version_num')::int / 10000, pg_backend_pid()"))
        .await?;
    let version: i32 = row.try_get(0)?;
    if version < OLDEST_POSTGRES {
        return Err(StoreError::Catalog(format!(
            "the server is PostgreSQL {version}; {OLDEST_POSTGRES} to 18 are supported"
        )));
    }
    // Two sessions at once have two backends, unless a pooler lends the same one to both between transactions.
    let mut second = pool.acquire().await?;
    let mine: i32 = row.try_get(1)?;
    let theirs: i32 = second.fetch_one(sqlx::raw_sql("SELECT pg_backend_pid()")).await?.try_get(0)?;
    if mine == theirs {
        return Err(StoreError::Catalog(
            "a pooler in transaction mode stands before Postgres: session settings and prepared statements would be \
             mixed between clients. Set `pool_mode = session` for this database, or connect to Postgres directly"
                .into(),
        ));
    }
    Ok(())
}
