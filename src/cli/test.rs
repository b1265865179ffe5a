//! `projector test`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{FAILED, Failure, Outcome, print_diagnostics, single_plans, upcasters};
use crate::golden::{self, Report, Trouble};
use crate::plan::{Plan, Upcaster};
use crate::spec::diagnostic::SourceFile;

#[derive(Debug, Args)]
pub struct Options {
    /// A projection file or a folder of them.
    #[arg(default_value = "projections")]
    path: PathBuf,
    /// Write the golden rows anew, from what the events make now, and show what changed.
    #[arg(long)]
    bless: bool,
    /// Run one interleaving of the partitions alone: the seed that a failure printed.
    #[arg(long)]
    seed: Option<u64>,
}

pub fn test(options: &Options) -> Outcome {
    let (mut passed, mut failed) = (0, 0);
    for upcaster in upcasters(&options.path)? {
        let (more_passed, more_failed) = run_upcaster(&upcaster)?;
        passed += more_passed;
        failed += more_failed;
    }
    for plan in single_plans(&options.path)? {
        let Some(file) = test_file(&plan.path)? else {
            println!("{}: no tests beside it", plan.path);
            continue;
        };
        if options.bless {
            bless(&plan, &file)?;
        }
        let (more_passed, more_failed) = run(&plan, options.seed)?;
        passed += more_passed;
        failed += more_failed;
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 { Err(Failure::told(FAILED)) } else { Ok(()) }
}

/// Runs the tests beside a projection and prints how they went: how many passed, how many failed.
pub fn run(plan: &Plan, seed: Option<u64>) -> Result<(usize, usize), Failure> {
    let Some(file) = test_file(&plan.path)? else { return Ok((0, 0)) };
    match golden::run(plan, &file, seed) {
        Err(diagnostics) => {
            print_diagnostics(&diagnostics);
            Ok((0, 1))
        }
        Ok(reports) => {
            reports.iter().for_each(|report| print(&plan.name, report));
            // The same for every case of a projection.
            let left_out = reports.iter().map(|report| &report.left_out).max_by_key(|ways| ways.len());
            for (way, why) in left_out.into_iter().flatten() {
                println!("{}: not tried {way}: {why}", plan.name);
            }
            let failed = reports.iter().filter(|report| !report.differences.is_empty()).count();
            Ok((reports.len() - failed, failed))
        }
    }
}

/// The same of an upcaster.
pub fn run_upcaster(upcaster: &Arc<Upcaster>) -> Result<(usize, usize), Failure> {
    let Some(file) = test_file(&upcaster.path)? else { return Ok((0, 0)) };
    match golden::run_upcaster(upcaster, &file) {
        Err(diagnostics) => {
            print_diagnostics(&diagnostics);
            Ok((0, 1))
        }
        Ok(reports) => {
            reports.iter().for_each(|report| print(&upcaster.name, report));
            let failed = reports.iter().filter(|report| !report.differences.is_empty()).count();
            Ok((reports.len() - failed, failed))
        }
    }
}

fn print(projection: &str, report: &Report) {
    let ways = report.passed.join(", ");
    if report.differences.is_empty() {
        println!("{projection}: {} ... ok ({ways})", report.name);
    } else {
        println!("{projection}: {} ... FAILED", report.name);
        report.differences.iter().for_each(|line| println!("    {line}"));
        if !ways.is_empty() {
            println!("    passed: {ways}");
        }
    }
}

fn bless(plan: &Plan, file: &Arc<SourceFile>) -> Outcome {
    match golden::bless(plan, file) {
        Err(Trouble::File(diagnostics)) => {
            print_diagnostics(&diagnostics);
            Err(Failure::told(FAILED))
        }
        Err(Trouble::Event(message)) => Err(Failure::failed(format!("{}: {message}", file.path))),
        Ok(blessed) if blessed.changes.is_empty() => {
            println!("{}: the golden rows are what the events make", file.path);
            Ok(())
        }
        Ok(blessed) => {
            println!("{}: written anew", file.path);
            blessed.changes.iter().for_each(|line| println!("    {line}"));
            std::fs::write(&file.path, blessed.text)
                .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.path)))
        }
    }
}

/// `orders.test.yaml` beside `orders.yaml`.
fn test_file(projection: &str) -> Result<Option<Arc<SourceFile>>, Failure> {
    let projection = Path::new(projection);
    let paths = ["test.yaml", "test.yml"].iter().map(|ending| projection.with_extension(ending));
    let Some(path) = paths.into_iter().find(|path| path.exists()) else { return Ok(None) };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::refused(format!("cannot read {}: {error}", path.display())))?;
    Ok(Some(SourceFile::new(path.display().to_string(), text)))
}
