//! The direction of imports, held by a test: what each module may name of the others.

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up. A module may use itself and what stands in its own list.
const MAY_USE: &[(&str, &[&str])] = &[
    ("value", &[]),
    ("query", &[]),
    ("proof", &[]),
    ("spec", &[]),
    ("codes", &["error_kind"]),
    ("error_kind", &["codes"]),
    ("config", &[]),
    ("json_paths", &[]),
    ("event", &["json_paths"]),
    ("checkpoint", &["event"]),
    ("plan", &["error_kind", "event", "json_paths", "patch", "spec", "value"]),
    ("version", &["value"]),
    ("patch", &["event", "plan", "value", "version"]),
    ("parking", &["batch", "error_kind", "event", "plan", "value"]),
    ("demand", &[]),
    ("batch", &["checkpoint", "demand", "fold", "parking", "patch", "plan", "proof", "seen", "value"]),
    ("decode", &["event", "json_paths", "plan", "spec", "value"]),
    ("fold", &["batch", "event", "json_paths", "patch", "plan", "value", "version"]),
    ("sample", &["value"]),
    ("seen", &["checkpoint", "fold"]),
    ("intake", &["batch", "checkpoint", "decode", "error_kind", "event", "fold", "plan", "seen"]),
    (
        "golden",
        &[
            "batch",
            "checkpoint",
            "decode",
            "error_kind",
            "event",
            "fold",
            "intake",
            "patch",
            "plan",
            "query",
            "seen",
            "spec",
            "value",
            "sample",
        ],
    ),
    ("source", &["checkpoint", "config", "event", "parking", "plan"]),
    (
        "store",
        &[
            "batch",
            "checkpoint",
            "config",
            "demand",
            "error_kind",
            "event",
            "fold",
            "parking",
            "patch",
            "plan",
            "proof",
            "query",
            "seen",
            "spec",
            "value",
            "version",
        ],
    ),
    ("ops", &["config"]),
    ("serve", &["config", "demand", "event", "proof", "query", "spec", "store"]),
    (
        "pipeline",
        &[
            "batch",
            "checkpoint",
            "config",
            "demand",
            "error_kind",
            "event",
            "fold",
            "intake",
            "parking",
            "plan",
            "proof",
            "seen",
            "source",
            "store",
        ],
    ),
    (
        "rebuild",
        &[
            "batch",
            "checkpoint",
            "config",
            "event",
            "fold",
            "golden",
            "intake",
            "parking",
            "patch",
            "plan",
            "source",
            "store",
            "value",
        ],
    ),
    ("demo", &["plan"]),
    (
        "cli",
        &[
            "checkpoint",
            "config",
            "demand",
            "demo",
            "error_kind",
            "event",
            "golden",
            "ops",
            "parking",
            "pipeline",
            "plan",
            "rebuild",
            "sample",
            "serve",
            "source",
            "spec",
            "store",
        ],
    ),
];

/// What only one module may name: broker types, SQL, HTTP.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("rdkafka", &["source", "demo", "pipeline"]),
    ("axum", &["ops", "serve"]),
    ("AssertSqlSafe", &["store"]),
    ("unsafe {", &["source"]),
];

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

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let inner = file.strip_prefix(&root).unwrap();
        let module =
            inner.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_string();
        if module == "lib" || module == "main" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        let (_, allowed) =
            MAY_USE.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("{module} has no place"));
        // Tests may build what they need.
        if !inner.ends_with("tests.rs") {
            for used in code.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if used != module && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{} uses {used}", inner.display()));
                }
            }
        }
        for (name, places) in ONLY_IN {
            if code.contains(name) && !places.contains(&module.as_str()) {
                wrong.push(format!("{} names {name}", inner.display()));
            }
        }
        let lines = text.lines().count();
        if lines > 800 {
            wrong.push(format!("{} has {lines} lines", inner.display()));
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
