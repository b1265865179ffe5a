//! Benchmarks of the projector's binary against a real Kafka and a real Postgres.
//!
//! `bench/run` starts the services and calls this. What is measured, and how, is in `bench/README.md`.

mod dirty;
mod fanout;
mod floor;
mod fold;
mod history;
mod hot;
mod http;
mod join;
mod kafka;
mod latency;
mod locked;
mod micro;
mod orders;
mod product;
mod query;
mod rebuild;
mod wide;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Executor as _};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures one workload; the last line of standard output is the result as JSON.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(flatten)]
    services: Services,
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// How fast a long history is folded, against what reading it and writing its rows cost at least.
    Fold {
        /// Events in all, five an order.
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
    },
    /// The same with one bad event in a hundred, beside the same without.
    Dirty {
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
    },
    /// The same of as many keys as events, twelve columns of mixed types wide.
    Wide {
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
    },
    /// The same of arrays of records and handlers that read their row, which the store has to lock and load.
    Locked {
        /// Events in all, five a basket.
        #[arg(long, default_value_t = 500_000)]
        events: u64,
    },
    /// Orders with their customers' names, which change.
    Join {
        #[arg(long, default_value_t = 200_000)]
        orders: u64,
        /// Customers; each is renamed once, and once more live.
        #[arg(long, default_value_t = 50_000)]
        customers: u64,
    },
    /// One customer is renamed whom all orders show, while other events keep coming.
    Fanout {
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
        orders: u64,
    },
    /// A row that all events change, beside rows that few change, with one lane and with several.
    Hot {
        /// Events that are produced and folded at a time.
        #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
        events: u64,
    },
    /// A rebuild beside the view that readers see: how fast it is, and what they notice of it.
    Rebuild {
        /// Events in all, five an order.
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
    },
    /// The query endpoint: how many answers, how fast, and what they cost, beside Postgres itself.
    Query {
        /// Events in all, five an order.
        #[arg(long, default_value_t = 500_000)]
        events: u64,
    },
    /// Decoding, expressions and folding alone: no Kafka, no Postgres.
    Micro,
    /// How long it takes from producing an event until a reader sees it.
    Latency {
        #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
        events_per_s: u64,
        /// Seconds to produce for, the warm-up included.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
}

/// What `bench/run` has started and built.
#[derive(Debug, Args)]
pub struct Services {
    /// Address of the Kafka broker, host:port.
    #[arg(long)]
    pub brokers: String,
    /// Host of Postgres, or the folder with its socket. Its user and database are both named `projector`.
    #[arg(long)]
    pub postgres_host: String,
    #[arg(long, default_value_t = 5432)]
    pub postgres_port: u16,
    /// The projector's binary.
    #[arg(long)]
    pub projector: PathBuf,
    /// Folder for the projector's settings and its log.
    #[arg(long)]
    pub directory: PathBuf,
}

impl Services {
    /// A connection of the harness's own.
    pub async fn connect(&self) -> Result<PgConnection> {
        Ok(self.options().connect().await?)
    }

    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host(&self.postgres_host)
            .port(self.postgres_port)
            .database("projector")
            .username("projector")
            .application_name("bench")
    }
}

/// Writes out what earlier steps left in memory, so that the next one does not pay for it.
pub async fn settle(connection: &mut PgConnection) -> Result<()> {
    connection.execute("CHECKPOINT").await?;
    Ok(())
}

/// A measurement as it is reported: three decimals.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn measure(arguments: &Arguments) -> Result<Value> {
    match arguments.workload {
        Workload::Fold { events } => fold::run(&arguments.services, &orders::Orders::new(events)?).await,
        Workload::Dirty { events } => dirty::run(&arguments.services, events).await,
        Workload::Wide { events } => fold::run(&arguments.services, &wide::Readings::new(events)).await,
        Workload::Locked { events } => fold::run(&arguments.services, &locked::Baskets::new(events)?).await,
        Workload::Join { orders, customers } => join::run(&arguments.services, orders, customers).await,
        Workload::Fanout { orders } => fanout::run(&arguments.services, orders).await,
        Workload::Hot { events } => hot::run(&arguments.services, events).await,
        Workload::Rebuild { events } => rebuild::run(&arguments.services, events).await,
        Workload::Query { events } => query::run(&arguments.services, events).await,
        Workload::Micro => micro::run(),
        Workload::Latency { events_per_s, seconds } => latency::run(&arguments.services, events_per_s, seconds).await,
    }
}
