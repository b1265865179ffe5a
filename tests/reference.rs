//! The generated references are fresh. `UPDATE_REFERENCE=1 cargo test --test reference` writes them anew.

use std::path::Path;

use projector::plan::expr::FUNCTIONS;

fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(name);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/reference/{name} is stale: UPDATE_REFERENCE=1 cargo test --test reference");
}

#[test]
fn the_schema_for_editors() {
    check("projection.schema.json", &projector::spec::json_schema());
    check("upcaster.schema.json", &projector::spec::upcaster_schema());
}

#[test]
fn the_function_table() {
    let mut text = String::from(
        "# Functions\n\nGenerated from the code. Every example is a test.\n\n| function | example | gives |\n|---|---|---|\n",
    );
    for entry in FUNCTIONS {
        let (example, result) = entry.example;
        text += &format!("| `{}` | `{example}` | `{result}` |\n", entry.signature.replace('|', "\\|"));
    }
    check("functions.md", &text);
}

#[test]
fn the_command_line() {
    check("cli.md", &projector::cli::reference());
}
