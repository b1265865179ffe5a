//! The built binary against a real Kafka and a real Postgres. `scripts/test` starts them.
//!
//! Every promise has a scenario that tries to break it and returns what it found wrong. A test runs the scenario as it
//! is, which must find nothing, and with the promise's sabotage switch on, which must find something.

mod bad_input;
mod built;
mod capabilities;
mod compared;
mod dashboards;
mod dead_letters;
mod derived;
mod differences;
mod endpoint;
mod exactly_once;
mod explained;
mod generated;
mod generations;
mod history;
mod kills;
mod language;
mod parking;
mod promoted;
mod proxy;
mod querying;
mod rebuilt;
mod restarts;
mod rows;
mod surroundings;
mod world;
