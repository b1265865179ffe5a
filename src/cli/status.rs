//! `projector status`
use super::{Common, Failure, Format, Outcome};
pub fn status(_common: &Common, _format: Format) -> Outcome { Err(Failure::failed("")) }
