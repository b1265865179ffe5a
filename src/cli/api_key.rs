//! `projector api-key`

use super::{Failure, Outcome};
use crate::serve::NewApiKey;

pub fn api_key(name: &str, role: &str) -> Outcome {
    let NewApiKey { key, line } = NewApiKey::of(name, role).map_err(Failure::refused)?;
    eprintln!("The key, shown this once:\n{key}\nThe line for serve.auth.api_keys_file:");
    println!("{line}");
    Ok(())
}
