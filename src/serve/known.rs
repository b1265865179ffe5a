//! The relations that can be read, as Postgres' catalog has them; read again when that has changed.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::store::read::Schema;
use crate::store::read::schema;

pub(super) struct Known {
    pool: PgPool,
    names: Vec<String>,
    schemas: RwLock<Arc<Vec<Schema>>>,
    /// The version of what was read last; whoever reads anew holds it.
    version: Mutex<Option<String>>,
}

impl Known {
    pub fn new(pool: PgPool, names: Vec<String>) -> Known {
        Known { pool, names, schemas: RwLock::default(), version: Mutex::default() }
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What is known now. Nothing before the catalog was read once.
    pub fn schemas(&self) -> Arc<Vec<Schema>> {
        self.schemas.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Reads the catalog if it has changed. True if it had.
    ///
    /// # Errors
    /// What Postgres says.
    pub async fn refresh(&self) -> Result<bool, sqlx::Error> {
        let mut known = self.version.lock().await;
        let version = schema::version(&self.pool, &self.names).await?;
        if known.as_ref() == Some(&version) {
            return Ok(false);
        }
        let read = Arc::new(schema::read(&self.pool, &self.names).await?);
        *self.schemas.write().unwrap_or_else(|e| e.into_inner()) = read;
        *known = Some(version);
        Ok(true)
    }

    /// Follows the catalog until told to stop.
    pub async fn follow(self: Arc<Known>, stop: CancellationToken) {
        const EVERY: Duration = Duration::from_secs(2);
        loop {
            if let Err(error) = self.refresh().await {
                tracing::debug!("the catalog cannot be read: {error}");
            }
            if tokio::time::timeout(EVERY, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }
}
