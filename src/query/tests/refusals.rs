//! What is refused, how, and how fast.

use std::time::{Duration, Instant};

use super::super::*;

fn code(raw: &str) -> &'static str {
    Query::parse(raw).err().unwrap_or_else(|| panic!("{raw} is read")).code
}

#[test]
fn refuses_what_it_cannot_read() {
    let syntax = [
        "a=b",
        "a=",
        "=eq.1",
        "a=eqq.1",
        "a=eq",
        "a=EQ.1",
        "a=.1",
        "a=not.not.eq.1",
        "a=not.b",
        "a=eq().1",
        "a=eq(some).1",
        "a=neq(any).{1}",
        "a=in(any).{1}",
        "a=is().null",
        "a=fts().x",
        "a=fts(a-b).x",
        "a=fts(a.x",
        "a=is.maybe",
        "a=is.nullx",
        "a=is.",
        "a=in.1",
        "a=in.(1",
        "a=in.(1,2)x",
        "a=in.",
        "a=in.((1))",
        "a!b=eq.1",
        "a::text=eq.1",
        "a..b=eq.1",
        "a.=eq.1",
        ".a=eq.1",
        "a->=eq.1",
        "a->b.c=eq.1",
        "\"a=eq.1",
        "\"\"=eq.1",
        "a-=eq.1",
        "a--b=eq.1",
        "*=eq.1",
        "a=eq.%ff",
        "%ff=eq.1",
        "+=eq.1",
        "select=a,,b",
        "select=,",
        "select=a,",
        "select=a b:c:d",
        "select=a(",
        "select=a(b",
        "select=a(b))c",
        "select=id!x",
        "select=id::",
        "select=id::int[]",
        "select=id::a::b",
        "select=id.total()",
        "select=id.sum(x)",
        "select=id.sum",
        "select=count(id)",
        "select=x:*",
        "select=*x",
        "select=x:...a(b)",
        "select=...a",
        "select=a!b!c(d)",
        "select=a!inner!left(d)",
        "select=a!(d)",
        "select=a->b(c)",
        "select=a->",
        "select=a->>--3",
        "select=a->(b",
        "select=a->\"b",
        "select=a->99999999999999999999",
        "select=\"a",
        "select=:a",
        "select=a::int:b",
        "select=id,clients(name[])",
        "select=data->>-78xy",
        "order=",
        "order=a.down",
        "order=a.desc.asc",
        "order=a.nullsfirst.desc",
        "order=a,",
        "order=a.ascx",
        "order=c(a,b)",
        "order=c(a",
        "order=c(a).x",
        "order=a->b(c)",
        "order.a->b.order=x",
        "a->b.order=id",
        "and=",
        "and=()",
        "or=a.eq.1",
        "or=(a.eq.1",
        "or=(a.eq.1,)",
        "or=(a.eq.1)x",
        "or=)(",
        "or=(id.in.1,2)",
        "or=(a.1)",
        "or=(a)",
        "or=(a.is.nullx)",
        "or=(xor(a.eq.1))",
        "or=(not.xor(a.eq.1))",
        "or=(a.eq.{1,2}x,b.eq.{2)",
        "or=(a.in.(1)x)",
        "or=(a.b.eq.1)",
        "a!.or=(a.eq.1)",
        "columns=",
        "columns=a,",
        "on_conflict=!",
        "columns=a b!",
        "a.limit.->b.limit=1",
    ];
    for raw in syntax {
        assert_eq!(code(raw), "PGRST100", "{raw}");
    }
    let others = [
        ("b.a=eq.1", "PGRST108", 400),
        ("select=a(*)&a.b.c=eq.1", "PGRST108", 400),
        ("select=x:a(*)&y.or=(b.eq.1)", "PGRST108", 400),
        ("b.order=id", "PGRST108", 400),
        ("b.limit=x", "PGRST108", 400),
        ("order=clients(id)", "PGRST108", 400),
        ("select=x:clients(*)&order=clients(id)", "PGRST108", 400),
        ("select=a(*,b(*))&a.order=c(id)", "PGRST108", 400),
        ("limit=-1", "PGRST103", 416),
        ("limit=2&offset=-4", "PGRST103", 416),
        ("limit=-5&offset=5", "PGRST103", 416),
        ("select=a(*)&a.limit=-1", "2201W", 400),
        ("select=a(*)&a.offset=-1", "2201X", 400),
        ("limit=9223372036854775808", "22003", 400),
        ("offset=-99999999999999999999", "22003", 400),
        ("a=eq.%00", "22021", 400),
    ];
    for (raw, expected, status) in others {
        let error = Query::parse(raw).expect_err(raw);
        assert_eq!((error.code, error.status()), (expected, status), "{raw}");
    }
    for array in ["1,2", "{1", "{1,}", "{,1}", "{\"a}", "{\"a\"b}", "{a\"b\"}", "{{1},{2}}", "{a\\}", "{\"a\\\"}"] {
        assert_eq!(code(&format!("a=eq(any).{array}")), "22P02", "{array}");
    }
}

#[test]
fn says_what_and_where() {
    let error = Query::parse("select=id,,name").unwrap_err();
    assert_eq!(error.message, "select cannot be read: character 4 of `id,,name` is `,name`, expected a name");
    assert!(error.hint.contains("select=id"));
    let error = Query::parse("a=b").unwrap_err();
    assert_eq!(error.message, "a cannot be read: character 1 of `b` is `b`, expected an operator and `.`");
    let error = Query::parse("clients.or=(a.eq.1").unwrap_err();
    assert_eq!(error.message, "clients.or cannot be read: character 8 of `(a.eq.1` is its end, expected `,` or `)`");
    let error = Query::parse(&format!("select={}!", "é".repeat(9000))).unwrap_err();
    assert!(error.message.len() < 500, "{error}");
    let error = Query::parse("projectss.id=eq.1&select=projects(*)").unwrap_err();
    assert_eq!(error.message, "'projectss' is not an embedded resource in this request");
}

#[test]
fn limits_what_is_in_one_another() {
    let relations = |depth: usize| format!("select={}id{}", "a(".repeat(depth), ")".repeat(depth));
    let trees = |depth: usize| format!("or=({}a.eq.1{}", "and(".repeat(depth - 1), ")".repeat(depth));
    for nested in [relations, trees] {
        assert!(Query::parse(&nested(parse::DEPTH)).is_ok());
        for depth in [parse::DEPTH + 1, 10_000] {
            assert_eq!(code(&nested(depth)), "PGRST100");
        }
    }
    assert_eq!(code(&format!("{}a=eq.1", "a.".repeat(30_000))), "PGRST100");
}

/// Each would take minutes if it took quadratic time.
#[test]
fn takes_linear_time() {
    let times = |part: &str| part.repeat((1 << 18) / part.len());
    let closing = |head: &str, part: &str, tail: &str| {
        let count = (1 << 18) / (part.len() + tail.len());
        format!("{head}{}{}", part.repeat(count), tail.repeat(count))
    };
    let texts = [
        format!("select={}", times("a(),")),
        format!("select={}&{}", times("a:b(),"), times("b.a=is.null&")),
        format!("a=in.({}", times("\",")),
        format!("a=in.({}", times("\"\\\",")),
        format!("a=in.({})", times("\"a\"b,")),
        format!("or=({}", times("a.eq.{,")),
        format!("or=({}", times("a.eq.{\",")),
        format!("or=({}", times("a.cs.[,")),
        format!("or=({}", times("a.cs.{{,")),
        closing("or=(", "a.cs.[,", "]") + "x)",
        closing("or=(", "a.cs.{,", "}") + "x)",
        format!("or=({}", times("and(a.eq.1),")),
        format!("order={}&select={}", times("a(b),"), times("a(),") + "a()"),
        format!("a{}=eq.1", times("->b")),
        format!("a=eq(any).{{{}}}", times("\\ ,")),
        times("limit=1&"),
        times("a"),
        times("\""),
        times("%22&"),
    ];
    for text in texts {
        let start = Instant::now();
        let read = Query::parse(&text).is_ok();
        assert!(start.elapsed() < Duration::from_secs(10), "{} ({read})", &text[..40]);
    }
}
