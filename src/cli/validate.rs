//! `projector validate`

use std::path::Path;

use super::{Failure, Format, Outcome, REFUSED, compiled, files, print_diagnostics, summary};
use crate::plan::{Units, compile_all};
use crate::spec::diagnostic::{Diagnostic, Severity};
use crate::spec::json_schema;

pub fn validate(path: &Path, format: Format, schema: bool, graph: bool) -> Outcome {
    if schema {
        print!("{}", json_schema());
        return Ok(());
    }
    let Units { built, found, .. } = files(path)?;
    let (plans, mut diagnostics) = compiled(path, compile_all(&built))?;
    diagnostics.extend(found);
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    match format {
        _ if graph && errors == 0 => print!("{}", super::graph::graph(&plans)),
        Format::Json => {
            let list: Vec<_> = diagnostics.iter().map(Diagnostic::to_json).collect();
            println!("{}", serde_json::Value::from(list));
        }
        Format::Text => {
            print_diagnostics(&diagnostics);
            let warnings = diagnostics.len() - errors;
            println!("{}", summary(plans.len(), errors, warnings));
        }
    }
    if built.is_empty() {
        return Err(Failure::refused(format!("there is no projection file in {}", path.display())));
    }
    if errors > 0 { Err(Failure::told(REFUSED)) } else { Ok(()) }
}
