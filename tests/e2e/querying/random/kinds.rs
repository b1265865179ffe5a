//! Names and types that tables are drawn from.

/// Names that the grammar, JSON, SQL or the endpoint's own statements may take for something else.
pub const STEMS: [&str; 40] = [
    "plain",
    "other",
    "Upper",
    "a space",
    "quo\"te",
    "it's",
    "do.t",
    "com,ma",
    "par(en)",
    "col:on",
    "größe",
    "日本",
    "back\\slash",
    "dash-ed",
    "arrow->x",
    "select",
    "order",
    "limit",
    "and",
    "or",
    "star*",
    "do$lar",
    "semi;",
    "per%",
    "am&p",
    "plus+",
    "eq=",
    "ha#sh",
    "{br}",
    "q",
    "row",
    "c1",
    "e1",
    "r1",
    "a",
    "count",
    "id",
    "true",
    "user",
    "inner",
];

/// A type, how it is declared, and some of its values as text. None of them are equal and yet look different.
pub struct Kind {
    pub type_: &'static str,
    pub values: &'static [&'static str],
    /// JSON, or in JSON's clothes: paths lead into it.
    pub has_paths: bool,
}

const fn kind(type_: &'static str, values: &'static [&'static str]) -> Kind {
    Kind { type_, values, has_paths: false }
}

const DOCUMENTS: &[&str] = &[
    r#"{"a":1,"b":{"c":[10,20,30]},"s":"x"}"#,
    r#"{"a":2,"b":{"c":[]},"s":"y z"}"#,
    r#"{"a":null,"k y":"1"}"#,
    r#"[1,2,{"a":3}]"#,
    r#"[]"#,
    r#"{}"#,
    r#"{"a":10,"s":"the fat cat","a,b":true}"#,
];

pub const INTEGER: usize = 0;
pub const TEXT: usize = 4;
pub const JSONB: usize = 13;
/// All types, integers and texts more often than others when they are drawn.
pub const KINDS: [Kind; 26] = [
    kind("integer", &["0", "1", "-1", "2", "3", "7", "2147483647"]),
    kind("bigint", &["9007199254740993", "-5", "0", "1", "2"]),
    kind("numeric", &["0", "1.5", "-2.25", "100", "12345678901234567890.123", "NaN"]),
    kind("double precision", &["0.5", "1.25", "-2", "Infinity", "NaN"]),
    kind(
        "text",
        &[
            "",
            "a",
            "A",
            "abc",
            "a b",
            "a,b",
            "a\"b",
            "a\\b",
            "it's",
            "(x)",
            "{y}",
            "null",
            "NULL",
            "*",
            "100%",
            "a_b",
            "ümlaut",
            "日本 🚢",
            " padded ",
            "eq.1",
            "tab\there",
            "line\nbreak",
            "a.b",
            "x:y",
            "--",
            "$1",
            "fat cats",
            "the rat and the cat",
            "not.a",
            "[1,2)",
            "a)b",
            "+1&b=2",
            "true",
        ],
    ),
    kind("varchar(12)", &["", "a", "short", "a, b", "Ä"]),
    kind("char(4)", &["ab", "abcd", "q", ""]),
    kind("boolean", &["t", "f"]),
    kind(
        "timestamptz",
        &["2024-03-01 10:00:00+00", "1999-12-31 23:59:59.123456+00", "2024-07-01 00:00:00+00", "infinity"],
    ),
    kind("timestamp", &["2024-03-01 10:00:00", "1999-12-31 23:59:59.5"]),
    kind("date", &["2024-03-01", "1999-12-31", "2024-02-29"]),
    kind("interval", &["1 day", "02:03:04", "-3 mons", "1 year 2 days"]),
    kind("uuid", &["6f1c2a9e-0d5b-4a53-9f0e-0b7c2f4d8a01", "00000000-0000-0000-0000-000000000000"]),
    Kind { type_: "jsonb", values: DOCUMENTS, has_paths: true },
    Kind { type_: "jsonb", values: &["1", "\"text\"", "null", "true", "[2]", "{\"a\":1}"], has_paths: true },
    Kind { type_: "json", values: DOCUMENTS, has_paths: true },
    Kind {
        type_: "text[]",
        values: &["{}", "{a,b}", "{b}", "{\"a,b\",NULL}", "{\"q\\\"\",\"{\"}", "{NULL}"],
        has_paths: true,
    },
    Kind { type_: "integer[]", values: &["{}", "{1,2,3}", "{3,NULL}", "{7}"], has_paths: true },
    kind("int4range", &["[1,10)", "[10,20)", "empty", "(,3)", "[5,)"]),
    kind("numrange", &["[1.5,2.5]", "(,0]", "[2.5,9)", "empty"]),
    kind("daterange", &["[2024-01-01,2024-02-01)", "[2024-02-01,2024-03-01)", "[1999-12-31,)"]),
    kind("mood", &["grim", "calm", "merry", "so, so"]),
    kind("above_zero", &["1", "2", "3", "2147483647"]),
    kind("tsvector", &["'cat':2 'fat':1", "'rat':3", ""]),
    kind("bytea", &["\\xdeadbeef", "\\x", "\\x00ff"]),
    Kind { type_: "spot", values: &["(60.45,a)", "(0,)", "(,\"b,c\")"], has_paths: true },
];
