use super::*;
use crate::event::{Event, Record};
use crate::json_paths::Paths;

fn with_data(text: &str, data: &str) -> Result<Value, String> {
    let mut scopes = vec![Paths::default(); FIRST_ELEMENT];
    let mut compiler = Compiler {
        scopes: &mut scopes,
        elements: vec![],
        captures: vec![],
        key_format: crate::spec::KeyFormat::String,
        splits: false,
        row: &[],
        event: true,
        bare: false,
    };
    let expr = compiler.compile(text).map_err(|e| format!("{}: {}", e.code, e.message))?;
    let record = Record {
        topic: "t",
        partition: 0,
        offset: 7,
        time: Some(0),
        key: Some(b"k1"),
        payload: None,
        headers: vec![("source", Some(b"web".as_slice()))],
    };
    let event = Event {
        record: &record,
        type_: "Placed".into(),
        id: None,
        subject: None,
        time: Some(1_000_000),
        source: None,
        body: None,
        message: scopes[MESSAGE].missing(),
        index: 0,
        clock: None,
        data: scopes[DATA].read(data).unwrap(),
        key: scopes[KEY].missing(),
        captures: vec![],
    };
    let value = expr.eval(&Env::event(&event, &[]));
    value.map_err(|f| f.message)
}

fn json(text: &str) -> String {
    with_data(text, "{}").map_or_else(|e| format!("error: {e}"), |v| v.to_json_text())
}

#[test]
fn every_function_does_what_its_example_says() {
    for entry in FUNCTIONS {
        let (expression, expected) = entry.example;
        assert_eq!(json(expression), expected, "{expression}");
    }
}

#[test]
fn decimals_are_exact() {
    assert_eq!(json("19.99 * 3"), "59.97");
    assert_eq!(json("0.1 + 0.2 == 0.3"), "true");
    assert_eq!(json("round(10 / 3, 2)"), "3.33");
    assert_eq!(json("-1.50 - 2"), "-3.50");
    assert_eq!(with_data("data.p * data.q", r#"{"p":19.99,"q":3}"#).unwrap().to_json_text(), "59.97");
    assert!(json("10 / 3").contains("bare-division"));
    assert!(json("round(1 / 0, 2)").contains("division by zero"));
    assert!(json("12345678901234567890 * 12345678901234567890").starts_with("error"));
}

#[test]
fn null_is_as_in_sql() {
    assert_eq!(json("null == null"), "true");
    assert_eq!(json("null != 1"), "true");
    assert_eq!(json("null < 1"), "null");
    assert_eq!(json("null && false"), "false");
    assert_eq!(json("null || true"), "true");
    assert_eq!(json("!(null < 1)"), "null");
    assert_eq!(json("null < 1 ? 'a' : 'b'"), "\"b\"");
    assert_eq!(json("null + 1"), "null");
}

#[test]
fn fields_are_there_or_told() {
    assert_eq!(with_data("data.a.b", r#"{"a":{"b":"x"}}"#), Ok(Value::text("x")));
    assert_eq!(with_data("data['odd name']", r#"{"odd name":1}"#), Ok(Value::Int(1)));
    assert!(with_data("data.a.b", r#"{"a":null}"#).unwrap_err().contains("data.a.b"));
    assert_eq!(with_data("opt(data.a.b)", r#"{"a":null}"#), Ok(Value::Null));
    assert_eq!(with_data("has(data.a)", r#"{"a":null}"#), Ok(Value::Bool(true)));
    assert_eq!(with_data("has(data.b)", r#"{"a":null}"#), Ok(Value::Bool(false)));
    assert_eq!(with_data("data.s in ['a', 'b']", r#"{"s":"b"}"#), Ok(Value::Bool(true)));
    assert_eq!(json("record.key + '@' + string(record.offset)"), "\"k1@7\"");
    assert_eq!(json("headers.source"), "\"web\"");
    assert_eq!(json("time"), "\"1970-01-01T00:00:01Z\"");
}

#[test]
fn mistakes_are_named_before_the_first_event() {
    assert!(json("dta.x").contains("unknown-name"));
    assert!(json("placed").contains("unknown-name"));
    assert!(json("sizes(data.x)").contains("unknown-function"));
    assert!(json("round(data.x)").contains("wrong-arguments"));
    assert!(json("bucket(time, 'huor')").contains("wrong-arguments"));
    assert!(json("date(time, 'Mars/Olympus')").contains("wrong-arguments"));
    assert!(json("1 + true").contains("wrong-kind"));
    assert!(json("time < '2026-01-01T00:00:00Z'").contains("wrong-kind"));
    assert!(json("coalesce(data.a").contains("bad-expression"));
    assert!(json("row.x").contains("no row"));
    assert!(json("data.lines.map(l, l.x)").contains("has, exists and all"));
    assert!(json("data.lines.exists(l, line.x == 1)").contains("unknown-name"));
    assert!(json("duration('a while')").contains("wrong-arguments"));
    assert!(json("duration('P1M')").contains("no fixed length"));
    assert!(json("time + 5").contains("wrong-kind"));
    assert!(json("extract('a', '(')").contains("regular expression"));
}

#[test]
fn lists_are_asked_element_by_element() {
    let lines = r#"{"lines":[{"q":1},{"q":3}],"none":[],"nil":null}"#;
    let of = |text: &str| with_data(text, lines).map(|value| value.to_json_text());
    assert_eq!(of("data.lines.exists(l, l.q > 2)"), Ok("true".into()));
    assert_eq!(of("data.lines.exists(l, l.q > 5)"), Ok("false".into()));
    assert_eq!(of("data.lines.all(l, l.q > 0)"), Ok("true".into()));
    assert_eq!(of("data.none.exists(l, l.q > 0)"), Ok("false".into()));
    assert_eq!(of("data.nil.exists(l, l.q > 0)"), Ok("null".into()));
    assert_eq!(of("opt(data.gone).exists(l, l.q > 0)"), Ok("null".into()));
    assert!(of("data.gone.exists(l, l.q > 0)").unwrap_err().contains("data.gone"));
    assert!(of("data.lines.exists(l, l.p > 0)").unwrap_err().contains("l.p"));
}

#[test]
fn functions_name_what_they_cannot_take() {
    for (text, hint) in [
        ("'abc'.substring(2, 9)", "no characters"),
        ("digits('12a')", "decimal digits"),
        ("digits('')", "decimal digits"),
        ("'a'.padStart(3, 'ab')", "one character"),
        ("urlDecode('%ff')", "UTF-8"),
        ("decimalFromBytes('#', 2)", "base64"),
        ("dateFromDays(99999999999)", "calendar"),
        ("timestampMillis(99999999999999999)", "calendar"),
        ("timestamp('tomorrow')", "RFC 3339"),
    ] {
        assert!(json(text).contains(hint), "{text}: {}", json(text));
    }
    assert_eq!(json("extract('order-77-b', '([0-9]+)')"), "\"77\"");
    assert_eq!(json("extract('order', '[0-9]+')"), "null");
    assert_eq!(json("decimalFromBytes('/w==', 2)"), "-0.01");
    assert_eq!(
        json("timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') > duration('PT23H')"),
        "true"
    );
}

#[test]
fn text_compares_by_bytes() {
    assert_eq!(json("'Z' < 'a'"), "true");
    assert_eq!(json("'é' > 'z'"), "true");
}

#[test]
fn a_misread_points_at_its_place() {
    let mut scopes = vec![Paths::default(); FIRST_ELEMENT];
    let mut compiler = Compiler {
        scopes: &mut scopes,
        elements: vec![],
        captures: vec![],
        key_format: crate::spec::KeyFormat::String,
        splits: false,
        row: &[],
        event: true,
        bare: false,
    };
    let misread = compiler.compile("1 + dta.x").unwrap_err();
    assert_eq!(&"1 + dta.x"[misread.span], "dta.x");
}
