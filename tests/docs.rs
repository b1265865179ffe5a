//! The examples of the docs hold: whole projections are valid, the cases below them pass in every way, and what is quoted of
//! a shipped file stands in it. No service is needed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use projector::golden;
use projector::plan::{Plan, Units, compile, units};
use projector::spec::diagnostic::{Severity, SourceFile};

const PAGES: &[&str] = &["README.md", "docs/projections.md", "docs/quickstart.md"];
const SYSTEMS: &str = "docs/systems";

/// What whole examples begin with; other blocks are fragments.
const PROJECTION: &str = "projection:";
const SHARED: &str = "# shared/";
const CASES: &str = "cases:";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files of a folder whose names end so, with their texts.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let names = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut paths: Vec<String> = names.map(|name| format!("{folder}/{}", name.to_string_lossy())).collect();
    paths.retain(|path| path.ends_with(ending));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// A fenced block of a page.
struct Block<'p> {
    /// The line of the page on which its text begins.
    line: usize,
    text: &'p str,
    /// What follows, up to the next block of its language.
    after: &'p str,
}

fn blocks<'p>(page: &'p str, language: &str) -> Vec<Block<'p>> {
    let fence = format!("```{language}\n");
    let mut blocks = Vec::new();
    for (at, _) in page.match_indices(fence.as_str()) {
        let (before, rest) = page.split_at(at + fence.len());
        let (text, after) = rest.split_once("```").unwrap_or((rest, ""));
        let after = after.split(fence.as_str()).next().unwrap_or_default();
        blocks.push(Block { line: before.lines().count() + 1, text, after });
    }
    blocks
}

/// The plan of an example, and what is wrong with it. A warning is right where the page goes on to talk about it.
fn compiled(block: &Block<'_>, shared: &[Arc<SourceFile>]) -> (Option<Plan>, Vec<String>) {
    let Units { single, .. } = units(&[SourceFile::new("example.yaml", block.text)], shared);
    let (plan, found) = compile(&single[0]);
    let unexpected = found.iter().filter(|f| f.severity == Severity::Error || !block.after.contains(f.code));
    (plan, unexpected.map(|finding| finding.render(false)).collect())
}

fn failures(plan: &Plan, cases: &str) -> Vec<String> {
    match golden::run(plan, &SourceFile::new("example.test.yaml", cases), None) {
        Err(found) => found.iter().map(|finding| finding.render(false)).collect(),
        Ok(reports) => {
            let failed = reports.iter().filter(|report| !report.differences.is_empty());
            failed.map(|report| format!("{}:\n{}", report.name, report.differences.join("\n"))).collect()
        }
    }
}

#[test]
fn whole_examples_are_valid_and_their_cases_pass() {
    let mut pages: Vec<(String, String)> = PAGES.iter().map(|path| (path.to_string(), read(path))).collect();
    pages.extend(files(SYSTEMS, ".md"));
    let mut wrong = Vec::new();
    let (mut projections, mut cases) = (0, 0);
    for (path, page) in &pages {
        let mut plan = None;
        let mut shared = Vec::new();
        for block in blocks(page, "yaml") {
            let found = if block.text.starts_with(SHARED) {
                shared.push(SourceFile::new("shared.yaml", block.text));
                continue;
            } else if block.text.starts_with(PROJECTION) {
                projections += 1;
                let (compiled, found) = compiled(&block, &shared);
                plan = compiled;
                found
            } else if block.text.starts_with(CASES) {
                cases += 1;
                match &plan {
                    Some(plan) => failures(plan, block.text),
                    None => vec!["there is no valid projection above these cases".to_string()],
                }
            } else {
                continue;
            };
            wrong.extend(found.iter().map(|what| format!("{path}:{}: {what}", block.line)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(projections > 0 && cases > 0, "no examples were found");
}

#[test]
fn quotes_of_shipped_files_stand_in_them() {
    let mut wrong = Vec::new();
    for language in ["yaml", "sql"] {
        let shipped = files("projections", &format!(".{language}"));
        for (path, page) in files(SYSTEMS, ".md") {
            for block in blocks(&page, language) {
                let stands_in = |file: &str| match block.text.starts_with(PROJECTION) {
                    true => file.ends_with(block.text),
                    false => format!("\n{file}").contains(&format!("\n{}", block.text)),
                };
                if !shipped.iter().any(|(_, file)| stands_in(file)) {
                    wrong.push(format!("{path}:{}: no file in projections/ has this:\n{}", block.line, block.text));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
