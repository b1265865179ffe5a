//! Every code has its page, and every page its code. `UPDATE_REFERENCE=1 cargo test --test errors` writes the index
//! anew, and in the pages what `projector validate` says of their examples.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use projector::codes::{CODES, Kind};
use projector::plan::{Units, compile_all, units};
use projector::spec::diagnostic::{Severity, SourceFile};
use regex::Regex;

/// Pages without an example that could be checked here, and why.
const NO_EXAMPLE: &[(&str, &str)] = &[("bad-steps", "it is about upcaster files")];

/// Codes that are found between files: the second file is the page's second block.
const BETWEEN_FILES: &[&str] = &["name-taken", "shared-errors", "unknown-shared", "unused-shared"];

const INDEX: &str = "\
# Codes

Generated from the code.

Whatever is refused has a code. It stands above each finding of `projector validate`, and in brackets at the end of the
sentence that says why an event is parked or a projection stands still. Codes are stable: scripts and
alerts may go by them.

- **error**: `projector validate` refuses the file; **warning**: it has a doubt about the file and lets it pass.
- **test**: a golden test file is wrong.
- **event**: an event cannot be applied, and is parked unless its projection says otherwise; what to do then is in
  [operating/dead-letters.md](../operating/dead-letters.md). **halt**: a projection stands still for another reason; how to
  go on from there is in [operating.md](../operating.md#halts).

| code | kind | meaning |
|---|---|---|
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page_path(code: &str) -> PathBuf {
    root().join("docs/errors").join(format!("{code}.md"))
}

fn page(code: &str) -> String {
    fs::read_to_string(page_path(code)).unwrap_or_else(|error| panic!("docs/errors/{code}.md: {error}"))
}

fn is_update() -> bool {
    std::env::var_os("UPDATE_REFERENCE").is_some()
}

/// The fenced blocks of a page in one language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let fence = format!("```{language}\n");
    page.split(fence.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

#[test]
fn every_code_has_its_page_and_every_page_its_code() {
    assert!(CODES.is_sorted_by(|a, b| a.code < b.code), "CODES are sorted, and each is there once");
    let mut wrong = Vec::new();
    for code in CODES {
        let start = format!("# {}\n\n{}\n", code.code, code.summary);
        if !page_path(code.code).exists() {
            wrong.push(format!("docs/errors/{}.md is missing", code.code));
        } else if !page(code.code).starts_with(&start) {
            wrong.push(format!("docs/errors/{}.md does not begin with its code and summary", code.code));
        }
    }
    for entry in fs::read_dir(root().join("docs/errors")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let known = CODES.iter().any(|code| format!("{}.md", code.code) == name);
        if !known && name != "README.md" {
            wrong.push(format!("docs/errors/{name} is about no code"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_index_is_fresh() {
    let rows =
        CODES.iter().map(|code| format!("| [{0}]({0}.md) | {1} | {2} |\n", code.code, code.kind.word(), code.summary));
    let text: String = std::iter::once(INDEX.to_string()).chain(rows).collect();
    if is_update() {
        fs::write(page_path("README"), &text).unwrap();
    }
    let found = fs::read_to_string(page_path("README")).unwrap_or_default();
    assert!(found == text, "docs/errors/README.md is stale: UPDATE_REFERENCE=1 cargo test --test errors");
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The codes that the program gives, read off its source: the first text among the arguments of `error(`, `warning(`,
/// `wrong(` and `halted(`, after one other argument at most, and what stands after `code:`.
fn given_codes() -> BTreeSet<String> {
    let call = r"\b(?:error|warning|wrong|halted|Reason::new)\(\s*(?:[\w.&\[\]]+,\s*)?";
    let given = Regex::new(&format!(r#"(?:{call}|\bcode:\s*)"([a-z-]+)""#)).unwrap();
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut codes = BTreeSet::new();
    for file in files.iter().filter(|file| !file.ends_with("codes.rs") && !file.ends_with("tests.rs")) {
        let text = fs::read_to_string(file).unwrap();
        // Tests stand at the end of a file.
        let program = text.split("#[cfg(test)]").next().unwrap_or_default();
        codes.extend(given.captures_iter(program).map(|found| found[1].to_string()));
    }
    codes
}

#[test]
fn the_list_is_what_the_program_gives() {
    let listed: BTreeSet<String> = CODES.iter().map(|code| code.code.to_string()).collect();
    let given = given_codes();
    let unlisted: Vec<&String> = given.difference(&listed).collect();
    let unused: Vec<&String> = listed.difference(&given).collect();
    assert!(unlisted.is_empty(), "not in src/codes.rs: {unlisted:?}");
    assert!(unused.is_empty(), "in src/codes.rs, and given nowhere: {unused:?}");
}

/// What `projector validate` says of the files: the codes that it finds, and its output.
fn validated(texts: &[&str]) -> (Vec<&'static str>, String) {
    let (shared, own): (Vec<&str>, Vec<&str>) = texts.iter().partition(|text| text.starts_with("# shared/"));
    let file = |(name, text): (&&str, &&str)| SourceFile::new(*name, *text);
    let own: Vec<_> = ["example.yaml", "other.yaml"].iter().zip(&own).map(file).collect();
    let shared: Vec<_> = ["shared/people.yaml"].iter().zip(&shared).map(file).collect();
    let Units { built, mut found, .. } = units(&own, &shared);
    let (plans, more) = compile_all(&built);
    found.extend(more);
    let errors = found.iter().filter(|finding| finding.severity == Severity::Error).count();
    let warnings = found.len() - errors;
    let mut output: String = found.iter().map(|finding| format!("{}\n", finding.render(false))).collect();
    output += &format!("{}\n", projector::cli::summary(plans.len(), errors, warnings));
    (found.iter().map(|finding| finding.code).collect(), output.trim_start_matches('\n').to_string())
}

#[test]
fn examples_give_their_codes() {
    let of_files = CODES.iter().filter(|code| matches!(code.kind, Kind::Error | Kind::Warning));
    let mut wrong = Vec::new();
    for code in of_files.map(|code| code.code).filter(|code| NO_EXAMPLE.iter().all(|(other, _)| other != code)) {
        let page = page(code);
        let examples = blocks(&page, "yaml");
        let files = if BETWEEN_FILES.contains(&code) { 2 } else { 1 };
        let (codes, output) = validated(&examples[..files.min(examples.len())]);
        if !codes.contains(&code) {
            wrong.push(format!("the example of docs/errors/{code}.md gives {codes:?}"));
            continue;
        }
        match blocks(&page, "text").first() {
            Some(shown) if **shown == *output => {}
            Some(shown) if is_update() => fs::write(page_path(code), page.replacen(shown, &output, 1)).unwrap(),
            _ => wrong.push(format!("docs/errors/{code}.md shows another output than this:\n{output}")),
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_REFERENCE=1 cargo test --test errors writes outputs anew", wrong.join("\n"));
}
