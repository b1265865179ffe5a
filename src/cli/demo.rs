//! `projector demo`
use std::path::Path;
use super::{Failure, Outcome};
pub fn demo(_once: bool, _projections: &Path, _listen: &str) -> Outcome { Err(Failure::failed("")) }
