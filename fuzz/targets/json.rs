//! Any bytes as plain JSON, as a message that is split, and as a JSON key.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use projector::event::Record;
use projector::intake::intake;
use projector::plan::{Plan, compile};
use projector::spec::diagnostic::SourceFile;

const PROJECTION: &str = include_str!("../projections/events.yaml");

static PLAN: LazyLock<Plan> = LazyLock::new(|| compile(&SourceFile::new("events.yaml", PROJECTION)).0.unwrap());

fuzz_target!(|bytes: &[u8]| {
    for (source, topic) in [(1, "plain"), (2, "split")] {
        let record = Record {
            topic,
            partition: 0,
            offset: 1,
            time: Some(5),
            key: Some(bytes),
            payload: Some(bytes),
            headers: vec![("type", Some(b"Said"))],
        };
        let _ = intake(&PLAN, source, &record, None, &|_, _| false);
    }
});
