//! What can go wrong with Postgres, classified once: kind, policy, sentence.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::checkpoint::Progress;
use crate::error_kind::{ErrorKind, Reason};
use crate::event::Place;
use crate::seen::Counted;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Goes away by itself: no connection, a deadlock, a full disk. Back off and try again.
    #[error("Postgres is not usable right now: {0}")]
    Transient(#[source] sqlx::Error),
    /// The checkpoint is not where this batch began: someone else has moved it, or the generation is gone.
    #[error("another process has moved the checkpoint of {partitions}")]
    Superseded { partitions: String },
    /// Events of the batch that were counted before.
    #[error("{} events were counted before", .0.len())]
    Repeated(Vec<Counted>),
    /// Events whose patches cannot be applied to the rows that are there.
    #[error("{} events cannot be applied to their rows", .0.len())]
    Misapplied(Vec<(Place, Reason)>),
    /// The same, and which event it was is not known.
    #[error("{0}")]
    Unapplied(Reason),
    /// A statement ran out of its time.
    #[error("a statement took longer than postgres.statement_timeout_ms allows: {0}")]
    TimedOut(#[source] sqlx::Error),
    /// More is parked than the projection allows; nothing of the batch is written.
    #[error(
        "more than {limit} {what}; the last one was {first}: {reason}. Look with `projector dead-letters list`, retry or \
         discard some and `projector resume`, or raise the limit and start the daemon again"
    )]
    TooManyParked { what: &'static str, limit: u32, first: Place, reason: String },
    /// Postgres refuses the data of some row.
    #[error("Postgres refuses the data: {}", told(.0))]
    Data(#[source] sqlx::Error),
    /// A person has to do something.
    #[error("{what}: {}; {cure}", told(cause))]
    Refused {
        what: &'static str,
        cure: &'static str,
        #[source]
        cause: sqlx::Error,
    },
    /// The answer to a COMMIT was lost; whether it happened is in the checkpoint.
    #[error("the answer to a COMMIT was lost: {0}")]
    Unknown(#[source] sqlx::Error),
    #[error("{0}")]
    Catalog(String),
    #[error("the catalog cannot be migrated: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// What Postgres says, without the line of its own source; else the error as it is.
fn told(error: &sqlx::Error) -> String {
    let Some(database) = error.as_database_error() else { return error.to_string() };
    let detail = database.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::detail);
    match (database.code().as_deref(), detail) {
        // What stands on it.
        (Some("2BP01"), Some(detail)) => format!("{}: {detail}", database.message()),
        _ => database.message().to_string(),
    }
}

impl StoreError {
    pub fn superseded(progress: &Progress) -> StoreError {
        let partitions: Vec<String> = progress.0.keys().map(ToString::to_string).collect();
        StoreError::Superseded { partitions: partitions.join(", ") }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            StoreError::Transient(_) | StoreError::Unknown(_) | StoreError::TimedOut(_) => ErrorKind::Transient,
            StoreError::Superseded { .. } | StoreError::Repeated(_) => ErrorKind::Superseded,
            StoreError::Misapplied(_) => ErrorKind::Invalid,
            StoreError::Unapplied(reason) => reason.kind(),
            StoreError::Data(_) => ErrorKind::Refused,
            StoreError::TooManyParked { .. }
            | StoreError::Refused { .. }
            | StoreError::Catalog(_)
            | StoreError::Migrate(_) => ErrorKind::Setup,
        }
    }

    /// Two transactions were in each other's way; nothing is broken and nobody needs to be told.
    pub fn is_collision(&self) -> bool {
        let StoreError::Transient(error) = self else { return false };
        let code = error.as_database_error().and_then(DatabaseError::code);
        let collided = matches!(code.as_deref(), Some("40P01" | "40001"));
        if collided {
            tracing::debug!("a transaction collided with another: {error}");
        }
        collided
    }

    /// A lock was not to be had in the time that was allowed for it.
    pub fn is_lock_timeout(&self) -> bool {
        let StoreError::Transient(error) = self else { return false };
        error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("55P03")
    }

    pub fn is_transient(&self) -> bool {
        self.kind() == ErrorKind::Transient
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        let code = error.as_database_error().and_then(DatabaseError::code).map(|code| code.to_string());
        match (&error, code.as_deref()) {
            (_, Some(code)) => classify(code, error),
            (
                sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed,
                _,
            ) => StoreError::Transient(error),
            (sqlx::Error::Tls(_), _) => StoreError::Refused {
                what: "the encrypted connection to Postgres failed",
                cure: "check postgres.tls and postgres.ca_file against the server's certificate",
                cause: error,
            },
            (sqlx::Error::Protocol(_), _) => StoreError::Transient(error),
            _ => StoreError::Refused { what: "Postgres cannot be used", cure: "see the cause", cause: error },
        }
    }
}

/// SQLSTATE classes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn classify(code: &str, cause: sqlx::Error) -> StoreError {
    let refused = |what, cure, cause| StoreError::Refused { what, cure, cause };
    match code {
        "28P01" | "28000" => refused(
            "Postgres does not accept the user or the password",
            "check postgres.user, postgres.password_file and the server's pg_hba.conf",
            cause,
        ),
        "3D000" => refused("the database does not exist", "create it, or check postgres.database", cause),
        "42501" => refused(
            "the Postgres user lacks a right",
            "grant it; docs/operating.md lists the rights that the projector needs",
            cause,
        ),
        "2BP01" => refused(
            "something that a person made stands on a view that would have to go",
            "drop it first and make it again afterwards; the cause names it",
            cause,
        ),
        "42P01" | "3F000" | "42703" => refused(
            "something that the catalog lists is not in the database",
            "was it dropped by hand? `projector apply --recreate NAME` builds it anew",
            cause,
        ),
        "57014" => StoreError::TimedOut(cause),
        // Someone is shutting the server down, or it starts, or is out of something, or two transactions collided.
        _ if matches!(&code[..2], "08" | "53" | "57" | "40" | "55" | "58" | "25" | "XX") => {
            StoreError::Transient(cause)
        }
        _ if matches!(&code[..2], "22" | "23" | "54") => StoreError::Data(cause),
        _ => refused("Postgres refuses a statement", "this is likely a bug in the projector; please report it", cause),
    }
}
