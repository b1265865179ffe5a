//! From patches to rows. SQL text stays in this module.

pub mod bind;
pub mod catalog;
pub mod commit;
mod companion;
pub mod compare;
pub mod connect;
mod copy;
pub mod error;
pub mod explain;
pub mod facts;
mod fill;
pub mod generations;
mod load;
mod locked;
pub mod marks;
pub mod meeting;
mod observe;
pub mod parked;
pub mod partitions;
pub mod promotion;
pub mod propagate;
pub mod read;
mod relations;
mod rollup;
mod row_sql;
pub mod seen;
pub mod shown;
pub mod sql;
pub mod status;
pub mod sweep;
pub mod tables;
pub mod upcasters;
mod views;
pub mod write;

pub use commit::Generation;
pub use error::StoreError;
