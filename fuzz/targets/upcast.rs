//! Any bytes as the data of an old event that upcasters bring up to date.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use projector::event::Record;
use projector::intake::intake;
use projector::plan::{Plan, attach, compile, compile_upcasters};
use projector::spec::diagnostic::SourceFile;

const PROJECTION: &str = include_str!("../projections/events.yaml");
const UPCASTER: &str = include_str!("../projections/upcasters/said.yaml");

static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let (upcasters, found) = compile_upcasters(&[SourceFile::new("said.yaml", UPCASTER)]);
    assert!(found.is_empty(), "{found:?}");
    let mut plans = [compile(&SourceFile::new("events.yaml", PROJECTION)).0.unwrap()];
    attach(&mut plans, &upcasters.iter().map(Arc::clone).collect::<Vec<_>>());
    let [plan] = plans;
    plan
});

fuzz_target!(|bytes: &[u8]| {
    let record = Record {
        topic: "plain",
        partition: 0,
        offset: 1,
        time: Some(5),
        key: None,
        payload: Some(bytes),
        headers: vec![("type", Some(b"Said"))],
    };
    let _ = intake(&PLAN, 1, &record, None, &|_, _| false);
});
