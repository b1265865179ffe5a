//! Any text as a projection file and as an upcaster file: read, checked and compiled, or every mistake told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use projector::plan::{compile, compile_upcasters};
use projector::spec::diagnostic::SourceFile;

fuzz_target!(|text: String| {
    let file = SourceFile::new("p.yaml", text);
    let (_, mut found) = compile(&file);
    found.extend(compile_upcasters(&[file]).1);
    for finding in &found {
        let _ = finding.render(false);
        let _ = finding.to_json();
    }
});
