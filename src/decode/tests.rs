use std::sync::Arc;

use super::*;
use crate::plan::{Plan, compile};
use crate::spec::diagnostic::SourceFile;

fn plan(source: &str) -> Plan {
    let text = format!(
        "projection: t\nsources:\n  s: {source}\ntables:\n  t:\n    key: {{ id: data.id }}\n    columns: {{ v: text }}\n    handlers: {{ s: {{ A: {{ set: {{ v: data.v }} }} }} }}\n"
    );
    let file: Arc<SourceFile> = SourceFile::new("t.yaml", text);
    let (plan, found) = compile(&file);
    plan.unwrap_or_else(|| panic!("{found:?}"))
}

fn record<'a>(payload: Option<&'a [u8]>, headers: &[(&'a str, &'a str)]) -> Record<'a> {
    let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
    Record { topic: "orders", partition: 0, offset: 0, time: Some(5), key: Some(b"k"), payload, headers }
}

fn decoded(payload: Option<&[u8]>, headers: &[(&str, &str)]) -> Result<(String, Option<String>), String> {
    let plan = plan("{ topic: orders }");
    let record = record(payload, headers);
    let arena = Bump::new();
    let event = decode(&plan.sources[0], &record, None, &arena).map_err(|f| f.message)?.remove(0);
    let first = event.data.iter().flatten().next().map(|raw| raw.to_string());
    Ok((event.type_.to_string(), first))
}

const CE: &[(&str, &str)] = &[("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/s"), ("ce_type", "A")];

#[test]
fn structured_and_binary_say_the_same() {
    let structured = br#"{"specversion":"1.0","type":"A","id":"1","source":"/s","data":{"id":"x","v":"y"}}"#;
    assert_eq!(decoded(Some(structured), &[]), Ok(("A".into(), Some("\"x\"".into()))));
    let content = [("content-type", "application/cloudevents+json; charset=UTF-8")];
    assert_eq!(decoded(Some(structured), &content), Ok(("A".into(), Some("\"x\"".into()))));
    assert_eq!(decoded(Some(br#"{"id":"x","v":"y"}"#), CE), Ok(("A".into(), Some("\"x\"".into()))));
}

#[test]
fn a_null_value_is_an_event_or_a_tombstone() {
    assert_eq!(decoded(None, CE), Ok(("A".into(), None)));
    assert_eq!(decoded(None, &[]), Ok(("tombstone".into(), None)));
}

#[test]
fn what_is_no_cloudevent_is_told() {
    assert!(decoded(Some(b"\xff"), &[]).unwrap_err().contains("UTF-8"));
    assert!(decoded(Some(b"{"), &[]).unwrap_err().contains("not a CloudEvent"));
    assert!(decoded(Some(b"{}"), &[]).unwrap_err().contains("specversion"));
    assert!(decoded(Some(b"[1]"), &[]).is_err());
    let twice = br#"{"specversion":"1.0","type":"A","type":"B","id":"1","source":"/s"}"#;
    assert!(decoded(Some(twice), &[]).unwrap_err().contains("stands twice"));
    let data = br#"{"specversion":"1.0","type":"A","id":"1","source":"/s","data":{"id":1,"id":2}}"#;
    assert!(decoded(Some(data), &[]).unwrap_err().contains("stands twice"));
    let late = br#"{"specversion":"1.0","type":"A","id":"1","source":"/s","time":"12000-01-01T00:00:00Z"}"#;
    assert!(decoded(Some(late), &[]).unwrap_err().contains("12000"));
    assert!(decoded(Some(b"{}"), &[("content-type", "application/cloudevents+avro")]).unwrap_err().contains("avro"));
}

#[test]
fn json_takes_its_type_from_where_the_source_says() {
    for (source, expected) in [
        ("{ topic: orders, format: json, type: data.v }", "y"),
        ("{ topic: orders, format: json, type: headers.kind }", "H"),
        ("{ topics: \"(?<name>ord).*\", format: json, type: topic.name }", "ord"),
        ("{ topic: orders, format: json, type: \"'Fixed'\", type_prefix: Fi }", "xed"),
    ] {
        let plan = plan(source);
        let record = record(Some(br#"{"id":1,"v":"y"}"#), &[("kind", "H")]);
        assert_eq!(decode(&plan.sources[0], &record, None, &Bump::new()).unwrap()[0].type_, expected, "{source}");
    }
}
