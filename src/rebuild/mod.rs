//! Generations beside the live one: they catch up, are compared, and take its place.

mod building;
pub mod diff;
pub mod explain;
pub mod verify;

pub use building::keep_building;
