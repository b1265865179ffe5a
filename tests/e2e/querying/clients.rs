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

#[test]
fn are_content() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = Command::new(here.join("scripts/clients")).output().unwrap();
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let home = PathBuf::from(String::from_utf8(installed.stdout).unwrap().trim());
    let (_world, _daemon, port) = served("clients", "");
    // Node looks for what a file imports beside the file.
    let check = home.join("check.mjs");
    std::fs::copy(here.join("tests/clients/postgrest-js/check.mjs"), &check).unwrap();
    content(Command::new("node").arg(&check), port);
    content(Command::new(home.join("python/bin/python")).arg(here.join("tests/clients/python/check.py")), port);
}
