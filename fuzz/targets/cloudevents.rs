//! Any bytes as a CloudEvent in either mode: decoded, folded and parked, or refused; never a panic.
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
    // The first byte chooses the mode and whether there is a payload; a line that is a header each comes before it.
    let Some((mode, rest)) = bytes.split_first() else { return };
    let (headers, payload) = match rest.windows(2).position(|window| window == b"\n\n") {
        Some(at) => (&rest[..at], Some(&rest[at + 2..])),
        None => (&rest[..0], Some(rest)),
    };
    let lines = std::str::from_utf8(headers).unwrap_or_default().lines();
    let mut record = Record {
        topic: "t",
        partition: 0,
        offset: 1,
        time: Some(5),
        key: (mode & 1 == 0).then_some(&b"k"[..]),
        payload: payload.filter(|_| mode & 2 == 0),
        headers: lines.filter_map(|line| line.split_once(':')).map(|(n, v)| (n, Some(v.as_bytes()))).collect(),
    };
    if mode & 4 == 0 {
        record.headers.push(("content-type", Some(b"application/cloudevents+json")));
    }
    let _ = intake(&PLAN, 0, &record, Some(0), &|_, _| false);
});
