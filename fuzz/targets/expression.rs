//! Any text as an expression, evaluated on an event.
#![no_main]

use libfuzzer_sys::fuzz_target;
use projector::event::Record;
use projector::intake::intake;
use projector::plan::compile;
use projector::spec::diagnostic::SourceFile;

fuzz_target!(|input: (String, String)| {
    let (text, data) = input;
    // As YAML writes any text: quoted, with escapes.
    let quoted = format!("{text:?}");
    let file = format!(
        "projection: p\nsources: {{ s: {{ topic: t, format: json, type: \"'A'\" }} }}\nkey: {{ k: record.offset }}\n\
         columns: {{ k: bigint, v: text, w: jsonb }}\nhandlers: {{ s: {{ A: {{ set: {{ w: {quoted} }} }} }} }}\n"
    );
    let (plan, found) = compile(&SourceFile::new("p.yaml", file));
    for finding in &found {
        let _ = finding.render(false);
    }
    let Some(plan) = plan else { return };
    let record = Record {
        topic: "t",
        partition: 0,
        offset: 1,
        time: Some(5),
        key: Some(b"k"),
        payload: Some(data.as_bytes()),
        headers: Vec::new(),
    };
    let _ = intake(&plan, 0, &record, None, &|_, _| false);
});
