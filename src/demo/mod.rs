//! What the demo needs beside the product: a Postgres, a Kafka, and a day of events.

pub mod kafka;
pub mod postgres;
pub mod story;

/// The demo cannot go on: what, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DemoError(pub String);

impl DemoError {
    fn new(what: impl Into<String>) -> DemoError {
        DemoError(what.into())
    }
}
