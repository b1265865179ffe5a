//! Word that there is a new generation: who folds need not ask all the time, nor does who begins one have to wait.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnection, PgListener, PgPoolOptions};
use tokio::sync::Notify;

use super::error::StoreError;

const CHANNEL: &str = "projector_generations";

/// Tells the news when the transaction is committed.
///
/// # Errors
/// What Postgres says.
pub(super) async fn tell(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(connection).await?;
    Ok(())
}

/// Listens on a connection of its own, for as long as it is let. News that come while Postgres is away are missed: whoever
/// is told has to look by himself now and then.
pub async fn listen(pool: &PgPool, heard: &Notify) {
    const REST: Duration = Duration::from_secs(5);
    let options = pool.connect_options().as_ref().clone();
    let own = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    loop {
        let listened = async {
            let mut listener = PgListener::connect_with(&own).await?;
            listener.listen(CHANNEL).await?;
            loop {
                listener.recv().await?;
                heard.notify_one();
            }
        };
        let ended: Result<std::convert::Infallible, sqlx::Error> = listened.await;
        let Err(error) = ended;
        tracing::debug!("no news of generations: {error}");
        tokio::time::sleep(REST).await;
    }
}
