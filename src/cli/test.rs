//! `projector test`

use std::path::{Path, PathBuf};

use super::{FAILED, Failure, Outcome, plans, print_diagnostics};
use crate::golden;
use crate::spec::diagnostic::SourceFile;

pub fn test(path: &Path) -> Outcome {
    let mut passed = 0;
    let mut failed = 0;
    for plan in plans(path)? {
        let Some(test_file) = test_file(Path::new(&plan.path)) else {
            println!("{}: no tests beside it", plan.path);
            continue;
        };
        let text = std::fs::read_to_string(&test_file)
            .map_err(|error| Failure::refused(format!("cannot read {}: {error}", test_file.display())))?;
        match golden::run(&plan, &SourceFile::new(test_file.display().to_string(), text)) {
            Err(diagnostics) => {
                print_diagnostics(&diagnostics);
                failed += 1;
            }
            Ok(reports) => {
                for report in reports {
                    let verdict = if report.differences.is_empty() { "ok" } else { "FAILED" };
                    println!("{}: {} ... {verdict}", plan.name, report.name);
                    for line in &report.differences {
                        println!("    {line}");
                    }
                    passed += usize::from(report.differences.is_empty());
                    failed += usize::from(!report.differences.is_empty());
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 { Err(Failure::told(FAILED)) } else { Ok(()) }
}

/// `orders.test.yaml` beside `orders.yaml`.
fn test_file(projection: &Path) -> Option<PathBuf> {
    ["test.yaml", "test.yml"].iter().map(|ending| projection.with_extension(ending)).find(|path| path.exists())
}
