//! `projector dev`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use clap::Args;
use notify::{RecursiveMode, Watcher};

use super::{Failure, Outcome, compiled, count, files, print_diagnostics, summary, test, upcasters};
use crate::golden;
use crate::plan::{Plan, Units, compile_each};
use crate::sample;
use crate::spec::diagnostic::Severity;

#[derive(Debug, Args)]
pub struct Options {
    /// A projection file or a folder of them.
    #[arg(default_value = "projections")]
    path: PathBuf,
    /// A file of messages, one JSON a line: the rows that they make are shown.
    #[arg(long, value_name = "FILE.jsonl")]
    events: Option<PathBuf>,
    /// Look once and stop.
    #[arg(long)]
    once: bool,
}

pub fn dev(options: &Options) -> Outcome {
    if options.once {
        return if look(options) { Ok(()) } else { Err(Failure::told(super::FAILED)) };
    }
    // Watched before the first look, so that no save falls between the two.
    let (watcher, saved) = watch(options)?;
    loop {
        if std::io::stdout().is_terminal() {
            print!("\x1b[2J\x1b[H");
        }
        look(options);
        println!("\nwatching {}; Ctrl-C ends it", options.path.display());
        if saved.recv().is_err() {
            break;
        }
        // Editors write in several steps: what comes right after belongs to the same save.
        while saved.recv_timeout(Duration::from_millis(80)).is_ok() {}
    }
    drop(watcher);
    Ok(())
}

/// Reports every save of a file that matters.
fn watch(options: &Options) -> Result<(notify::RecommendedWatcher, Receiver<()>), Failure> {
    let (sender, receiver) = channel();
    let failed = |error: notify::Error| Failure::failed(format!("files cannot be watched: {error}"));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let matters = |path: &PathBuf| {
            path.extension().is_some_and(|ending| ["yaml", "yml", "sql", "jsonl"].iter().any(|known| ending == *known))
        };
        if !event.kind.is_access() && event.paths.iter().any(matters) {
            // The receiver is gone when the program ends.
            let _ = sender.send(());
        }
    })
    .map_err(failed)?;
    for path in [Some(&options.path), options.events.as_ref()].into_iter().flatten() {
        // A folder is watched, because editors replace files rather than write them.
        let folder = if path.is_dir() { path.as_path() } else { parent(path) };
        let beside = ["shared", "upcasters"].map(|name| folder.join(name)).into_iter().filter(|folder| folder.is_dir());
        for folder in std::iter::once(folder.to_path_buf()).chain(beside) {
            watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(failed)?;
        }
    }
    Ok((watcher, receiver))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Validates, tests and shows rows once. False when anything is wrong.
fn look(options: &Options) -> bool {
    let looked = files(&options.path).and_then(|Units { single, found, .. }| {
        let (plans, diagnostics) = compiled(&options.path, compile_each(&single))?;
        Ok((plans, [found, diagnostics].concat()))
    });
    let (plans, diagnostics) = match looked {
        Ok(looked) => looked,
        Err(failure) => {
            println!("{}", failure.message);
            return false;
        }
    };
    print_diagnostics(&diagnostics);
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    println!("{}", summary(plans.len(), errors, diagnostics.len() - errors));
    let shown = options.events.as_ref().is_none_or(|events| show_rows(&plans, events));
    let (mut passed, mut failed) = (0, 0);
    let of_upcasters = upcasters(&options.path).unwrap_or_default();
    let tests = of_upcasters.iter().map(test::run_upcaster).chain(plans.iter().map(|plan| test::run(plan, None)));
    for test in tests {
        match test {
            Ok((more_passed, more_failed)) => {
                passed += more_passed;
                failed += more_failed;
            }
            Err(failure) => {
                println!("{}", failure.message);
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    errors == 0 && failed == 0 && shown
}

/// Rows of a table that are shown; the verdict of the tests stands below them.
const SHOWN: usize = 20;

fn show_rows(plans: &[Plan], path: &Path) -> bool {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    let messages = match text.and_then(|text| sample::messages(&text)) {
        Ok(messages) => messages,
        Err(error) => {
            println!("{}: {error}", path.display());
            return false;
        }
    };
    let mut fine = true;
    for plan in plans {
        match golden::rows(plan, &messages) {
            Ok(made) => {
                for (table, rows) in made.tables {
                    println!("{table}:");
                    rows.iter().take(SHOWN).for_each(|row| println!("  {row}"));
                    if rows.len() > SHOWN {
                        println!("  … and {} more", count(rows.len() - SHOWN, "row"));
                    }
                }
                made.notes.iter().for_each(|note| println!("{}: {note}", plan.name));
                println!();
            }
            Err(message) => {
                println!("{}: {message}\n", plan.name);
                fine = false;
            }
        }
    }
    fine
}
