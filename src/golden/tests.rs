//! Golden tests that should fail do, and `--bless` changes what it should and nothing else.

use super::*;
use crate::plan::compile;

const PROJECTION: &str = "
projection: orders
sources: { s: { topic: orders, ordered_by: data.id }, o: { topic: others } }
key: { id: data.id }
columns: { n: { type: smallint, default: 0 }, state: text, noted: text }
handlers:
  s:
    Placed: { add: { n: data.n }, const: { state: placed } }
    Cancelled: { const: { state: cancelled } }
  o:
    Noted: { set: { noted: data.text } }
";

fn plan(text: &str) -> Plan {
    let (plan, found) = compile(&SourceFile::new("orders.yaml", text));
    plan.unwrap_or_else(|| panic!("{found:?}"))
}

fn ran(projection: &str, cases: &str) -> Result<Vec<Report>, Vec<String>> {
    let file = SourceFile::new("orders.test.yaml", cases);
    run(&plan(projection), &file, None).map_err(|found| found.into_iter().map(|d| d.code.to_string()).collect())
}

fn differences(cases: &str) -> String {
    ran(PROJECTION, cases).unwrap().remove(0).differences.join("\n")
}

const PLACED: &str = "{ source: s, type: Placed, data: { id: a, n: 1 } }";

#[test]
fn a_case_that_is_wrong_fails_with_what_is_wrong() {
    for (cases, hint) in [
        (format!("cases:\n  - {{ name: x, events: [{PLACED}], rows: {{ orders: [] }} }}"), "+ { id: \"a\", n: 1"),
        (
            format!("cases:\n  - {{ name: x, events: [{PLACED}], rows: {{ orders: [{{ id: a, n: 2, state: placed }}] }} }}"),
            "n is 1, expected 2",
        ),
        (
            format!("cases:\n  - {{ name: x, events: [{PLACED}], rows: {{ orders: [{{ id: b }}] }} }}"),
            "- { id: \"b\"",
        ),
        (
            format!("cases:\n  - {{ name: x, events: [{PLACED}], rows: {{ orders: [{{ id: a, n: 1, state: placed }}, {{ id: a, n: 1, state: placed }}] }} }}"),
            "expected twice",
        ),
        (
            format!("cases:\n  - {{ name: x, events: [{{ source: s, type: Placed, data: {{}} }}, {PLACED}], error: missing }}"),
            "expected of the last event",
        ),
        (format!("cases:\n  - {{ name: x, events: [{PLACED}], error: missing }}"), "every event was applied"),
        (
            "cases:\n  - { name: x, events: [{ source: s, type: Placed, data: { id: a, n: 40000 } }], rows: { orders: [] } }".into(),
            "line 2 cannot be applied: `40000`",
        ),
        (
            format!("cases:\n  - {{ name: x, events: [{PLACED}], queries: [{{ get: \"orders?select=n&n=gt.0\", rows: [] }}] }}"),
            "orders?select=n&n=gt.0 answers:",
        ),
    ] {
        let found = differences(&cases);
        assert!(found.contains(hint), "{cases}: {hint:?} is not in {found}");
    }
}

#[test]
fn a_test_file_that_is_wrong_is_told_once() {
    let nothing = format!("cases:\n  - {{ name: x, events: [{PLACED}] }}");
    assert_eq!(ran(PROJECTION, &nothing).unwrap_err(), ["empty-case"]);
    let query =
        format!("cases:\n  - {{ name: x, events: [{PLACED}], queries: [{{ get: \"orders?n=is.odd\", rows: [] }}] }}");
    assert_eq!(ran(PROJECTION, &query).unwrap_err(), ["bad-query"]);
}

/// Of two sources that set one column, validate says that the order decides; the interleavings show it.
#[test]
fn the_smallest_order_that_fails_is_shown_and_can_be_run_again() {
    let cases = "cases:\n  - name: x\n    events:\n      - { source: s, type: Placed, data: { id: a, n: 1 } }\n      - { source: s, type: Placed, data: { id: b, n: 1 } }\n      - { source: o, type: Noted, data: { id: a, text: late } }\n    rows: { orders: [{ id: a, n: 1, state: placed, noted: late }, { id: b, n: 1, state: placed }] }\n";
    let both = PROJECTION.replace("const: { state: placed }", "const: { state: placed, noted: early }");
    let mut dependent = plan(&both);
    assert!(!dependent.tables[0].order_free);
    let left_out = run(
        &dependent,
        &SourceFile::new(
            "t.yaml",
            cases.replace("noted: late }, { id: b, n: 1,", "noted: late }, { id: b, n: 1, noted: early,"),
        ),
        None,
    );
    assert!(left_out.unwrap()[0].left_out.iter().any(|(way, _)| *way == "interleaved"));
    // Were it taken for proved, the interleavings would show that it is not.
    dependent.tables[0].order_free = true;
    let wrong = cases.replace("{ id: b, n: 1, state", "{ id: b, n: 1, noted: early, state");
    let reports = run(&dependent, &SourceFile::new("t.yaml", wrong.clone()), None).unwrap();
    let told = reports[0].differences.join("\n");
    assert!(told.contains("interleaved:") && told.contains("noted is \"early\", expected \"late\""), "{told}");
    let seed: u64 = told.split("--seed ").nth(1).unwrap().split(')').next().unwrap().parse().unwrap();
    let lines: Vec<&str> = told.lines().filter(|line| line.contains("@")).collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert!(lines[0].contains("others/") || lines[1].contains("others/"), "{told}");
    let again = run(&dependent, &SourceFile::new("t.yaml", wrong), Some(seed)).unwrap();
    assert!(!again[0].differences.is_empty());
}

#[test]
fn blessing_writes_the_rows_that_differ_and_nothing_else() {
    let cases = format!(
        "cases:\n  - name: right\n    events: [{PLACED}]\n    rows: &r\n      orders: [{{ id: a, n: 1, state: placed }}]   # by hand\n  - name: asked\n    events: [{PLACED}]\n    queries:\n      - get: orders\n        rows: []\n  - name: wrong\n    events:\n      - {PLACED}\n    rows:\n      orders: []\n    now: 2026-01-01T00:00:00Z\n"
    );
    let blessed = bless(&plan(PROJECTION), &SourceFile::new("t.yaml", cases.clone())).unwrap();
    let expected = cases.replace(
        "    rows:\n      orders: []\n",
        "    rows:\n      orders:\n        - { id: a, n: 1, state: placed }\n",
    );
    assert_eq!(blessed.text, expected);
    assert_eq!(blessed.changes[0], "wrong:");
    let again = bless(&plan(PROJECTION), &SourceFile::new("t.yaml", expected.clone())).unwrap();
    assert!(again.changes.is_empty() && again.text == expected);
}

#[test]
fn an_image_is_spread_onto_the_columns_of_its_names() {
    let projection = "
projection: people
sources: { db: { topic: db, format: json, type: data.op, ordered_by: data.key }, o: { topic: o } }
key: { id: data.key }
columns: { name: text, city: text, note: text, big: text, first_seen: text, noted: text }
handlers:
  db:
    c | u:
      create: true
      spread: { from: data.after, rename: { town: city }, except: [first_seen] }
    d: { delete: true }
  o:
    Noted: { set: { noted: data.text } }
";
    let cases = "
cases:
  - name: absent is NULL, a placeholder leaves the column, other sources' columns are not touched
    events:
      - { source: db, data: { op: c, key: 1, after: { id: 1, name: Ada, town: Paris, note: x, big: long text } } }
      - { source: o, type: Noted, data: { key: \"1\", text: hello } }
      - { source: db, data: { op: u, key: 1, after: { name: Ada L, town: null, big: __debezium_unavailable_value } } }
    rows:
      people: [{ id: \"1\", name: Ada L, big: long text, noted: hello }]
  - name: a row that is deleted and made again has nothing of before
    events:
      - { source: db, data: { op: c, key: 1, after: { name: Ada, note: x } } }
      - { source: db, data: { op: d, key: 1, after: null } }
      - { source: db, data: { op: c, key: 1, after: { name: Bo } } }
    rows:
      people: [{ id: \"1\", name: Bo }]
";
    let projection = projection.replace("data.key }\ncolumns", "string(data.key) }\ncolumns");
    for report in ran(&projection, cases).unwrap() {
        assert!(report.differences.is_empty(), "{}: {:?}", report.name, report.differences);
    }
}

#[test]
fn a_tuple_of_versions_decides_column_by_column() {
    let projection = "
projection: parts
sources: { s: { topic: s } }
key: { id: data.id }
columns: { a: text, b: text, c: jsonb }
handlers:
  s:
    Both: { create: true, latest: [data.epoch, data.seq], set: { a: data.a, b: data.b } }
    OnlyA: { latest: [data.epoch, data.seq], set_if_present: { a: data.a } }
    Merged: { latest: [data.epoch, data.seq], merge: { c: data.c } }
    Gone: { delete: true, latest: [data.epoch, data.seq] }
";
    let cases = "
cases:
  - name: a late partial update loses only where something newer was said
    events:
      - { type: Both, key: a, data: { id: x, epoch: 1, seq: 9, a: a1, b: b1 } }
      - { type: OnlyA, key: b, data: { id: x, epoch: 2, seq: 1, a: a2 } }
      - { type: Both, key: c, data: { id: x, epoch: 1, seq: 10, a: a3, b: b3 } }
      - { type: OnlyA, key: d, data: { id: x, epoch: 3, seq: 0 } }
    rows: { parts: [{ id: x, a: a2, b: b3 }] }
  - name: a delete wins only if it is the newest, and what was made again after it stays
    events:
      - { type: Both, key: a, data: { id: x, epoch: 1, seq: 1, a: a1, b: b1 } }
      - { type: Gone, key: b, data: { id: x, epoch: 1, seq: 2 } }
      - { type: Both, key: c, data: { id: x, epoch: 1, seq: 3, a: a3, b: b3 } }
      - { type: Both, key: d, data: { id: y, epoch: 1, seq: 1, a: a1, b: b1 } }
      - { type: Gone, key: e, data: { id: y, epoch: 1, seq: 2 } }
    rows: { parts: [{ id: x, a: a3, b: b3 }] }
  - name: the members of a document are each as new as what was said of them
    events:
      - { type: Both, key: a, data: { id: x, epoch: 1, seq: 1, a: a1, b: b1 } }
      - { type: Merged, key: b, data: { id: x, epoch: 1, seq: 5, c: { p: 5, q: { r: 5 } } } }
      - { type: Merged, key: c, data: { id: x, epoch: 1, seq: 4, c: { p: 4, q: { s: 4 }, t: 4 } } }
      - { type: Merged, key: d, data: { id: x, epoch: 1, seq: 6, c: { q: { r: null } } } }
    rows: { parts: [{ id: x, a: a1, b: b1, c: { p: 5, q: { s: 4 }, t: 4 } }] }
";
    for report in ran(projection, cases).unwrap() {
        assert!(report.differences.is_empty(), "{}: {:?}", report.name, report.differences);
        assert!(report.passed.contains(&"interleaved") && report.passed.contains(&"repeated"), "{report:?}");
    }
}

/// A field that fills an instant is compared as one in every handler of the table, the delete's too.
#[test]
fn instants_are_compared_as_instants() {
    let projection = "
projection: checks
sources: { s: { topic: s } }
key: { id: data.id }
columns: { result: text, at: timestamptz }
handlers:
  s:
    Checked: { create: true, latest: data.at, set: { result: data.result, at: data.at } }
    Corrected: { latest: data.at, set: { result: data.result } }
    Gone: { delete: true, latest: data.at }
";
    let cases = "
cases:
  - name: an offset does not make an instant later
    events:
      - { type: Checked, key: a, data: { id: x, result: new, at: \"2026-11-20T11:30:00Z\" } }
      - { type: Checked, key: b, data: { id: x, result: old, at: \"2026-11-20T12:00:00+01:00\" } }
      - { type: Corrected, key: c, data: { id: x, result: older, at: \"2026-11-20T12:15:00.5+01:00\" } }
    rows: { checks: [{ id: x, result: new, at: \"2026-11-20T11:30:00Z\" }] }
  - name: a delete is as new as its instant
    events:
      - { type: Checked, key: a, data: { id: x, result: new, at: \"2026-11-20T12:00:00+01:00\" } }
      - { type: Gone, key: b, data: { id: x, at: \"2026-11-20T11:30:00Z\" } }
      - { type: Checked, key: a, data: { id: y, result: new, at: \"2026-11-20T11:30:00Z\" } }
      - { type: Gone, key: b, data: { id: y, at: \"2026-11-20T12:00:00+01:00\" } }
    rows: { checks: [{ id: y, result: new, at: \"2026-11-20T11:30:00Z\" }] }
";
    for report in ran(projection, cases).unwrap() {
        assert!(report.differences.is_empty(), "{}: {:?}", report.name, report.differences);
    }
}

#[test]
fn ended_rows_are_forgotten_in_time() {
    let projection = "
projection: people
sources: { s: { topic: s, ordered_by: data.id } }
tables:
  people:
    key: { id: data.id }
    columns: { name: text, n: { type: bigint, default: 0 } }
    forget_deleted_after: P1D
    handlers:
      s:
        Came: { create: true, latest: data.v, set: { name: data.name } }
        Went: { delete: true, latest: data.v }
";
    let projection = projection.replace(", n: { type: bigint, default: 0 }", "");
    let came =
        |v: u32, time: &str| format!("{{ type: Came, time: \"{time}\", data: {{ id: x, v: {v}, name: n{v} }} }}");
    let went = |v: u32, time: &str| format!("{{ type: Went, time: \"{time}\", data: {{ id: x, v: {v} }} }}");
    let case = |name: &str, events: &[String], then: &str| {
        format!("  - name: {name}\n    events: [{}]\n    {then}\n", events.join(", "))
    };
    let cases = [
        "cases:\n".to_string(),
        // Remembered: what is older than the end loses.
        case(
            "remembered",
            &[came(1, "2026-01-01T00:00:00Z"), went(5, "2026-01-01T01:00:00Z"), came(3, "2026-01-01T12:00:00Z")],
            "rows: { people: [] }",
        ),
        // Forgotten: the row starts from nothing, whatever its versions were.
        case(
            "forgotten",
            &[came(1, "2026-01-01T00:00:00Z"), went(5, "2026-01-01T01:00:00Z"), came(3, "2026-01-02T01:00:00Z")],
            "rows: { people: [{ id: x, name: n3 }] }",
        ),
        case(
            "too old",
            &[went(5, "2026-01-03T00:00:00Z"), came(6, "2026-01-01T23:59:59Z")],
            "error: ended rows are remembered",
        ),
    ]
    .concat();
    for report in ran(&projection, &cases).unwrap() {
        assert!(report.differences.is_empty(), "{}: {:?}", report.name, report.differences);
    }
}

#[test]
fn the_events_of_a_split_message_are_no_repeats_of_one_another() {
    let projection = "
projection: parts
sources: { s: { topic: s, split: message.parts, dedupe: { window: P1D } } }
key: { id: data.id }
columns: { n: { type: bigint, default: 0 } }
handlers: { s: { Sent: { add: { n: data.n } } } }
";
    let cases = "
cases:
  - name: a message of two, sent twice
    events:
      - { type: Sent, id: m1, data: { parts: [{ id: x, n: 1 }, { id: x, n: 1 }] } }
      - { type: Sent, id: m1, data: { parts: [{ id: x, n: 1 }, { id: x, n: 1 }] } }
      - { type: Sent, id: m2, data: { parts: [{ id: x, n: 5 }] } }
    rows: { parts: [{ id: x, n: 7 }] }
";
    let report = ran(projection, cases).unwrap().remove(0);
    assert!(report.differences.is_empty() && report.passed.contains(&"repeated"), "{report:?}");
}

#[test]
fn an_event_that_no_handler_takes_needs_no_identity() {
    let projection = "
projection: payments
sources: { s: { topic: s, dedupe: { by: data.payment_id, window: P1D } } }
key: { id: data.id }
columns: { n: { type: bigint, default: 0 } }
handlers: { s: { Paid: { add: { n: 1 } }, Seen: { ignore: nobody counts who looked } } }
";
    let cases = "
cases:
  - name: types that are ignored or not known
    events:
      - { type: Paid, id: 1, data: { id: x, payment_id: p1 } }
      - { type: Seen, id: 2, data: {} }
      - { type: Unknown, id: 3, data: {} }
      - { type: Paid, id: 4, data: { id: x, payment_id: p1 } }
    rows: { payments: [{ id: x, n: 1 }] }
  - name: one that is counted needs it
    events: [{ type: Paid, id: 1, data: { id: x } }]
    error: \"the event has no `data.payment_id`\"
";
    for report in ran(projection, cases).unwrap() {
        assert!(report.differences.is_empty(), "{}: {:?}", report.name, report.differences);
    }
}
