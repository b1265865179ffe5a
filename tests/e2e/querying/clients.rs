//! Clients that others wrote, with assertions of ours in their own languages: `tests/clients`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::served;

/// Runs a client's checks against an endpoint, without a token and with one.
fn content(client: &mut Command, port: u16) {
    let token = include_str!("cases/roles.http").lines().find_map(|line| line.strip_prefix("Authorization: Bearer "));
    let output = client.args([&format!("http://127.0.0.1:{port}"), token.unwrap()]).output().unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{told}");
    println!("{}", told.lines().last().unwrap_or_default());
}

/// The folder that they are in.
fn home() -> PathBuf {
    let installed = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/clients")).output().unwrap();
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    PathBuf::from(String::from_utf8(installed.stdout).unwrap().trim())
}

#[test]
fn are_content() {
    let (here, home) = (Path::new(env!("CARGO_MANIFEST_DIR")), home());
    let (_world, _daemon, port) = served("clients", "");
    // Node looks for what a file imports beside the file.
    let check = home.join("check.mjs");
    std::fs::copy(here.join("tests/clients/postgrest-js/check.mjs"), &check).unwrap();
    content(Command::new("node").arg(&check), port);
    content(Command::new(home.join("python/bin/python")).arg(here.join("tests/clients/python/check.py")), port);
}

/// Of Schemathesis: what answers have to be, whatever is asked. The others do not fit:
/// - `negative_data_rejection`: as PostgREST does, a limit that is no number is passed over, and so are headers that
///   cannot be read;
/// - `positive_data_acceptance`: JSON Schema cannot tell the grammar of `select` or of a condition, for which it has any
///   text therefore;
/// - `ignored_auth`, `missing_required_header`: nothing here needs a token or a header;
/// - `use_after_free`, `ensure_resource_availability`, `object_level_authorization`: nothing is made or deleted.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,unsupported_method,allow_header_conformance";

/// The seconds in which the document is tried.
const SECONDS: &str = "30";

#[test]
fn answers_are_what_the_document_says() {
    let seed = std::env::var("PROJECTOR_TEST_SEED").unwrap_or_else(|_| "1".into());
    let home = home();
    let (world, _daemon, port) = served("document", "");
    let mut schemathesis = Command::new(home.join("python/bin/python"));
    schemathesis.args([
        "-m",
        "schemathesis.cli",
        "run",
        &format!("http://127.0.0.1:{port}/"),
        "--checks",
        CHECKS,
        "--max-time",
        SECONDS,
    ]);
    schemathesis.args(["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--no-color"]);
    schemathesis.args(["--seed", &seed, "--generation-database", "none"]).current_dir(world.projections());
    let output = schemathesis.output().unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "PROJECTOR_TEST_SEED={seed}\n{told}");
    println!("PROJECTOR_TEST_SEED={seed} {}", told.lines().last().unwrap_or_default());
}
