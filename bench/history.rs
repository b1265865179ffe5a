//! A history that is folded from its beginning: what is produced, what rows it comes to.

use std::future::Future;
use std::ops::Range;

use sqlx::postgres::PgConnection;

use crate::Result;

/// Everything about a history follows from numbers, so that the rows that have to come out are known beforehand.
pub trait History {
    const WORKLOAD: &'static str;
    const TOPIC: &'static str;
    const PROJECTION: &'static str;
    /// Folder below `bench/` with the one projection.
    const FOLDER: &'static str;
    /// Makes the table `bench_floor` with the columns that the projector's table has.
    const CREATE_FLOOR: &'static str;

    fn events(&self) -> u64;
    /// The rows that the history comes to.
    fn rows(&self) -> usize;
    /// Produces all of it; returns the bytes of all payloads.
    fn produce(&self, brokers: &str) -> Result<u64>;
    /// Upserts some of the final rows into `bench_floor`, in one statement.
    fn upsert(&self, connection: &mut PgConnection, rows: Range<usize>) -> impl Future<Output = Result<()>>;
    /// A fast wrong answer is none: whether the view holds the rows.
    fn check(&self, connection: &mut PgConnection) -> impl Future<Output = Result<()>>;
}

/// Spreads the bits of a number (the finaliser of SplitMix64).
pub fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A CloudEvent in structured mode.
pub fn event(source: &str, type_: &str, id: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/bench/{source}","type":"com.example.bench.{type_}","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","data":{{{data}}}}}"#
    )
}

/// An amount of money with two decimals.
pub fn amount(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
