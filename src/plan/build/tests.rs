//! Every mistake has its code and its place, and one file tells all of its mistakes.

use super::*;
use crate::spec::diagnostic::suggest;

fn found(text: &str) -> Vec<(String, usize, String)> {
    let file = SourceFile::new("p.yaml", text);
    let (_, diagnostics) = compile(&file);
    diagnostics
        .into_iter()
        .map(|d| {
            let (line, _) = d.file.position(d.span.start);
            (d.code.to_string(), line, format!("{} {}", d.message, d.help.unwrap_or_default()))
        })
        .collect()
}

/// A good projection with one place changed.
fn with(from: &str, to: &str) -> Vec<(String, usize, String)> {
    let good = "\
projection: orders
sources:
  shop: { topic: shop.orders, ordered_by: data.id }
tables:
  orders:
    key:
      id: data.id
    columns:
      total: numeric(12,2)
      state: text
      many: { type: bigint, default: 0 }
    handlers:
      shop:
        Placed:
          create: true
          set:
            total: data.total
          const: { state: placed }
          add: { many: 1 }
        Gone: { delete: true }
";
    assert!(found(good).is_empty(), "{:?}", found(good));
    assert!(good.contains(from), "{from}");
    found(&good.replacen(from, to, 1))
}

#[test]
fn each_mistake_has_its_code_and_line() {
    for (from, to, code, line, hint) in [
        ("columns:", "colums:", "unknown-key", 8, "columns"),
        ("total: numeric(12,2)", "total: numerc", "bad-type", 9, "numeric"),
        ("total: numeric(12,2)", "total: varchar(9)", "bad-type", 9, "text"),
        ("state: text", "total: text", "duplicate-key", 10, "line 9"),
        ("total: data.total", "total: dta.total", "unknown-name", 17, "data"),
        ("total: data.total", "totl: data.total", "unknown-column", 17, "total"),
        ("total: data.total", "total: 'open'", "unknown-name", 17, "quotes"),
        ("total: data.total", "total: time", "wrong-kind", 17, "a timestamp"),
        ("total: data.total", "total: data.a / 2", "bare-division", 17, "round"),
        ("total: data.total", "id: data.id", "key-set", 17, "key"),
        ("total: data.total", "state: data.state", "duplicate-column", 18, "twice"),
        ("{ state: placed }", "{ state: 7 }", "wrong-value", 18, "does not fit text"),
        ("add: { many: 1 }", "add: { state: 1 }", "wrong-fold", 19, "text"),
        ("id: data.id", "id:", "no-key", 14, "nothing fills"),
        ("id: data.id", "id: coalesce(data.id", "bad-expression", 7, "bracket"),
        ("shop:\n        Placed", "shp:\n        Placed", "unknown-source", 13, "shop"),
        ("{ topic: shop.orders, ordered_by: data.id }", "{ topic: shop orders }", "bad-topic", 3, "letters"),
        (
            "{ topic: shop.orders, ordered_by: data.id }",
            "{ topic: shop.orders, format: jsn }",
            "unknown-word",
            3,
            "json",
        ),
        ("{ topic: shop.orders, ordered_by: data.id }", "{ topic: shop.orders, format: json }", "no-type", 3, "type"),
        (
            "{ topic: shop.orders, ordered_by: data.id }",
            "{ topic: shop.orders, start: monday }",
            "bad-start",
            3,
            "earliest",
        ),
        (
            "{ topic: shop.orders, ordered_by: data.id }",
            "{ topic: shop.orders, accept_truncated: \"yes\" }",
            "no-reason",
            3,
            "words",
        ),
        ("projection: orders", "projection: Orders", "bad-name", 1, "lower-case"),
        ("projection: orders", "projection: other", "nothing-served", 1, "serve"),
        ("create: true", "create: maybe", "wrong-shape", 15, "neither"),
        (
            "{ topic: shop.orders, ordered_by: data.id }",
            "{ topic: shop.orders }",
            "order-dependent",
            14,
            "ordered_by: data.id",
        ),
        ("create: true", "latest: data.v", "delete-without-latest", 9, "newer"),
        ("delete: true", "delete: maybe", "unknown-word", 20, "final"),
        ("delete: true", "delete: final, latest: data.v", "latest-with", 20, "whatever its version"),
        ("delete: true", "delete: true, create: true", "delete-and-set", 20, "not both"),
        ("delete: true", "ignore: \"true\"", "no-reason", 20, "words"),
        ("delete: true", "ignore: nobody asks, create: true", "ignore-and-more", 20, "not both"),
        ("delete: true", "push: { state: { id: id, of: { id: data.id } } }", "wrong-fold", 20, "jsonb"),
        ("delete: true", "merge: { total: data.x }", "wrong-fold", 20, "jsonb"),
        ("delete: true", "remove: { total: data.x }", "wrong-fold", 20, "jsonb"),
        ("delete: true", "spread: { from: 5 }", "wrong-kind", 20, "spread"),
        ("delete: true", "spread: { from: data.after, except: [nothing] }", "unknown-column", 20, "nothing"),
        ("delete: true", "for_each: { a: data.a, b: a.b }, set: { state: b.c }", "two-elements", 20, "list"),
        ("delete: true", "when: row.nothing == 1, set: { state: data.x }", "unknown-column", 20, "nothing"),
        ("key:\n      id: data.id", "key:\n      id: row.state", "unknown-name", 7, "no row"),
        ("columns:", "show: data.x == 1\n    columns:", "unknown-name", 8, "row."),
        ("columns:", "show: row.state\n    columns:", "wrong-kind", 8, "condition"),
        ("columns:", "flags: { odd: \"row.state.matches('a')\" }\n    columns:", "not-in-sql", 8, "matches"),
        ("columns:", "forget_deleted_after: a while\n    columns:", "bad-window", 8, "P90D"),
        ("columns:", "expire: total\n    columns:", "bad-expire", 8, "timestamptz"),
        ("columns:", "expire: gone_at\n    columns:", "unknown-column", 8, "gone_at"),
        ("columns:", "search: { columns: [total] }\n    columns:", "bad-search", 8, "text"),
        ("columns:", "search: { columns: [state], method: magic }\n    columns:", "unknown-word", 8, "trigram"),
        ("state: text", "state: text\n      g: { type: text, generated: row.g }", "generated-cycle", 11, "itself"),
        (
            "state: text",
            "state: text\n      g: { type: bigint, generated: row.total }",
            "wrong-generated",
            11,
            "numeric",
        ),
        ("state: text", "state: text\n      g: { type: text, generated: row.total }", "wrong-kind", 11, "a number"),
        ("state: text", "state: text\n      g: { type: text, generated: data.x }", "unknown-name", 11, "row."),
        (
            "columns:",
            "indexes: [g]\n    columns:\n      g: { type: text, generated: row.state }",
            "bad-index",
            8,
            "read",
        ),
        ("topic: shop.orders, ", "topic: shop.orders, split: data.list, ", "wrong-kind", 3, "message"),
        ("topic: shop.orders, ", "topic: shop.orders, dedupe: { window: soon }, ", "bad-window", 3, "P7D"),
        (
            "topic: shop.orders, ",
            "topic: shop.orders, dedupe: { window: P1D, older: count }, ",
            "unknown-word",
            3,
            "park",
        ),
        ("many: { type: bigint, default: 0 }", "many: { type: bigint, default: x }", "wrong-value", 11, "does not fit"),
        (
            "state: text",
            "state: { type: text, not_null: true }\n      more: { type: text, not_null: true }",
            "unfilled-not-null",
            11,
            "default",
        ),
    ] {
        let all = with(from, to);
        let hit = all.iter().any(|(c, l, text)| c == code && *l == line && text.contains(hint));
        assert!(hit, "{to}: {code} on line {line} with {hint:?} is not among {all:?}");
    }
}

/// A table of one source, whose columns and handlers are given.
fn table(columns: &str, handlers: &str) -> Vec<(String, usize, String)> {
    let text = format!(
        "projection: t\nsources: {{ s: {{ topic: a, ordered_by: data.id }}, o: {{ topic: b }} }}\nkey: {{ id: data.id }}\ncolumns: {{ {columns} }}\nhandlers:\n{handlers}"
    );
    found(&text)
}

#[test]
fn what_does_not_go_together_is_refused() {
    let jsonb = "a: jsonb, b: text";
    for (columns, handlers, code, line, hint) in [
        (
            jsonb,
            "  s: { A: { latest: data.v, set: { b: data.b } }, B: { set: { b: data.b } } }\n",
            "mixed-latest",
            4,
            "line 6",
        ),
        (
            "b: text, t: timestamptz",
            "  s: { A: { latest: data.at, set: { b: data.b, t: data.at } } }\n  o: { B: { latest: data.n, set: { b: data.b } } }\n",
            "mixed-versions",
            4,
            "lines 6 and 7",
        ),
        ("n: bigint", "  s: { A: { latest: data.v, add: { n: 1 } } }\n", "latest-with", 6, "beside"),
        ("n: bigint", "  s: { A: { latest: [data.v, true], set: { n: 1 } } }\n", "wrong-kind", 6, "version"),
        (
            jsonb,
            "  s: { A: { create: true, latest: data.v, set: { b: data.b } }, B: { delete: true } }\n",
            "delete-without-latest",
            4,
            "final",
        ),
        (
            jsonb,
            "  s: { A: { create: true, set: { b: data.b } }, B: { delete: true, latest: data.v } }\n",
            "mixed-latest",
            4,
            "same source",
        ),
        (
            "n: bigint",
            "  s: { A: { add: { n: 1 } }, D: { delete: true } }\n  o: { A: { add: { n: 1 } } }\n",
            "shared-sum",
            4,
            "several sources",
        ),
        (jsonb, "  s: { A: { push: { a: { id: x, of: { y: data.y } } } } }\n", "unknown-column", 6, "no field `x`"),
        (jsonb, "  s: { A: { push: { a: { of: { y: data.y } } } } }\n", "no-record-id", 6, "id"),
        (jsonb, "  s: { A: { remove: { a: data.y } } }\n", "no-record-id", 4, "push"),
        (
            jsonb,
            "  s: { A: { push: { a: { id: y, of: { y: data.y }, limit: 3 } } }, B: { remove: { a: data.y } } }\n",
            "limited-remove",
            4,
            "limit",
        ),
        (
            jsonb,
            "  s: { A: { push: { a: { id: y, of: { y: data.y } } } }, B: { push: { a: { id: z, of: { z: data.z } } } } }\n",
            "mixed-push",
            6,
            "two ways",
        ),
        (
            jsonb,
            "  s: { A: { push: { a: { id: y, of: { y: data.y } } } }, B: { merge: { a: data.z } } }\n",
            "mixed-folds",
            4,
            "merge and by push",
        ),
        (jsonb, "  s: { A: { merge: { a: 5 } } }\n", "wrong-kind", 6, "object"),
        (jsonb, "  s: { A: { push: { a: { id: y, of: { y: row.b } } } } }\n", "push-of-row", 6, "event alone"),
        (jsonb, "  s: { A: { set: { b: data.b } } }\n  o: { B: { set: { b: data.b } } }\n", "two-owners", 4, "later"),
        (
            "b: text, g: { type: text, generated: row.b }",
            "  s: { A: { set: { g: data.b } } }\n",
            "generated-set",
            6,
            "generated",
        ),
        ("b: text", "  s: { A: { for_each: { l: 5 }, set: { b: l.b } } }\n", "wrong-kind", 6, "list"),
    ] {
        let all = table(columns, handlers);
        let hit = all.iter().any(|(c, l, text)| c == code && *l == line && text.contains(hint));
        assert!(hit, "{handlers}: {code} on line {line} with {hint:?} is not among {all:?}");
    }
}

#[test]
fn order_is_proved_or_named() {
    let reasons = |columns: &str, handlers: &str| -> Vec<String> {
        let all = table(columns, handlers);
        all.into_iter().filter(|(code, ..)| code == "order-dependent").map(|(.., text)| text).collect()
    };
    // One partition, or a fold that commutes, or versions, or an end for good: proved.
    for (columns, handlers) in [
        ("b: text", "  s: { A: { create: true, set: { b: data.b } }, D: { delete: true } }\n"),
        ("n: bigint, m: bigint", "  s: { A: { add: { n: 1 } } }\n  o: { B: { max: { m: data.m } } }\n"),
        (
            "b: text, c: text",
            "  s: { A: { set: { b: data.b } } }\n  o: { B: { latest: data.v, set: { c: data.c } } }\n",
        ),
        ("c: text", "  o: { B: { latest: data.v, set: { c: data.c } }, D: { delete: true, latest: data.v } }\n"),
        ("c: text", "  o: { B: { const: { c: done } }, D: { delete: final } }\n"),
        ("a: jsonb", "  o: { B: { push: { a: { id: y, of: { y: data.y }, limit: 3 } } } }\n"),
    ] {
        assert_eq!(reasons(columns, handlers), Vec::<String>::new(), "{handlers}");
    }
    for (columns, handlers, reason) in [
        ("b: text", "  o: { A: { set: { b: data.b } } }\n", "`b` is set, and the later stands (two events of line 6)"),
        ("b: text", "  o: { A: { create: true, const: { b: x } }, D: { delete: true } }\n", "begun and ended"),
        ("b: text", "  o: { A: { const: { b: x } }, B: { const: { b: y } } }\n", "`b` is set"),
        ("n: bigint", "  o: { A: { add: { n: 1 } }, B: { const: { n: 0 } } }\n", "folded into before or after"),
        ("a: jsonb", "  o: { B: { merge: { a: data.a } } }\n", "merged into"),
        ("a: jsonb", "  o: { B: { push: { a: { id: y, of: { y: data.y } } } } }\n", "one id"),
        (
            "b: text, n: bigint",
            "  s: { A: { const: { b: x } } }\n  o: { B: { when: \"row.b == 'x'\", add: { n: 1 } } }\n",
            "`row.b` is read",
        ),
    ] {
        let found = reasons(columns, handlers);
        assert!(found.iter().any(|text| text.contains(reason)), "{handlers}: {reason:?} is not in {found:?}");
    }
}

#[test]
fn a_dedupe_that_is_not_needed_is_told() {
    let of = |handlers: &str| {
        let text = format!(
            "projection: t\nsources: {{ s: {{ topic: a, dedupe: {{ window: P1D }} }} }}\nkey: {{ id: data.id }}\ncolumns: {{ n: bigint }}\nhandlers: {{ s: {{ {handlers} }} }}\n"
        );
        found(&text).into_iter().any(|(code, ..)| code == "dedupe-not-needed")
    };
    assert!(of("A: { latest: data.v, set: { n: data.n } }"));
    assert!(of("A: { max: { n: data.n } }"));
    assert!(!of("A: { add: { n: data.n } }"));
    assert!(!of("A: { create: true, max: { n: data.n } }, D: { delete: true }"));
}

#[test]
fn the_four_traps_are_spelt_out() {
    let all = with("            total: data.total\n", "            total: data.a ? 'p' : 'q'\n");
    assert!(all[0].2.contains("quote the whole expression"), "{all:?}");
    let all = with("add: { many: 1 }", "add: { many: coalesce(data.a, 0) }");
    assert!(
        all.iter().any(|(c, l, t)| c == "yaml-trap" && *l == 19 && t.contains("\"coalesce(data.a, 0)\"")),
        "{all:?}"
    );
    let all = with("create: true", "when: !has(data.x)");
    let traps: Vec<_> = all.iter().filter(|(code, ..)| code == "yaml-trap").collect();
    assert!(traps.len() == 1 && traps[0].1 == 15 && traps[0].2.contains("\"!has(data.x)\""), "{all:?}");
    assert!(all.iter().all(|(code, ..)| code != "bad-expression"), "{all:?}");
    let all = with("total: data.total", "state: 'placed'");
    assert!(all.iter().any(|(c, _, t)| c == "unknown-name" && t.contains("\"'placed'\"")), "{all:?}");
}

#[test]
fn one_file_tells_all_of_its_mistakes() {
    let text = "projection: 9a\nsource: {}\ntables:\n  t:\n    key: { id: dta.id }\n    columns: { a: txt, b: [1] }\n    handlers: {}\n";
    let codes: Vec<String> = found(text).into_iter().map(|(code, ..)| code).collect();
    for code in ["bad-name", "unknown-key", "no-source", "bad-type", "wrong-shape", "no-handler"] {
        assert!(codes.iter().any(|c| c == code), "{code} is not among {codes:?}");
    }
}

#[test]
fn files_are_compared_with_each_other() {
    let text = "projection: a\nsources: { s: { topic: t } }\nkey: { id: data.id }\ncolumns: { n: bigint }\nhandlers: { s: { A: { add: { n: 1 } } } }\n";
    let files = [SourceFile::new("one.yaml", text), SourceFile::new("two.yaml", text)];
    let (_, found) = compile_all(&files);
    assert!(found.iter().any(|d| d.code == "name-taken" && d.message.contains("one.yaml")), "{found:?}");
}

/// Customers add up orders, and orders copy the sum. What the sum depends on is to be put in.
fn circle(by: &str, condition: &str) -> Vec<(String, usize, String)> {
    found(&format!(
        "
projection: shop
serve: [orders, customers]
sources: {{ s: {{ topic: s, ordered_by: data.id }} }}
tables:
  orders:
    key: {{ order_id: data.id }}
    columns: {{ customer: text, total: bigint }}
    join: {{ table: customers, by: customer, fill: {{ spent_before: spent, main: main }} }}
    handlers: {{ s: {{ Placed: {{ create: true, set: {{ customer: data.customer, total: data.total }} }} }} }}
  customers:
    key: {{ customer: data.customer }}
    columns: {{ main: text }}
    rollups: {{ table: orders, by: {by}, {condition}fill: {{ spent: {{ sum: total }} }} }}
    handlers: {{ s: {{ Registered: {{ create: true, set: {{ main: data.main }} }} }} }}
"
    ))
}

#[test]
fn circles_by_way_of_what_is_taken_are_refused() {
    let has = |found: &[(String, usize, String)]| found.iter().any(|(code, ..)| code == "derived-cycle");
    assert!(!has(&circle("customer", "")));
    // A column that is copied and does not depend on the sum may group and choose.
    assert!(!has(&circle("main", "where: main != 'x', ")));
    assert!(has(&circle("customer", "where: spent_before > 5, ")));
}

#[test]
fn the_most_specific_pattern_of_a_table_applies_alone() {
    let text = "
projection: a
sources: { s: { topic: t } }
serve: [one]
tables:
  one:
    key: { id: data.id }
    columns: { n: bigint }
    handlers: { s: { A: { add: { n: 1 } }, \"Ab*\": { add: { n: 2 } }, \"*\": { add: { n: 3 } } } }
  two:
    key: { id: data.id }
    columns: { n: bigint }
    handlers: { s: { \"B | C\": { add: { n: 4 } }, \"A*\": { add: { n: 5 } } } }
";
    let (plan, found) = compile(&SourceFile::new("a.yaml", text));
    let plan = plan.unwrap_or_else(|| panic!("{found:?}"));
    let handlers = |type_: &str| plan.sources[0].routes.handlers(type_).to_vec();
    assert_eq!(handlers("A"), [(0, 0), (1, 1)]);
    assert_eq!(handlers("Abc"), [(0, 1), (1, 1)]);
    assert_eq!(handlers("C"), [(0, 2), (1, 0)]);
    assert_eq!(handlers("Z"), [(0, 2)]);
}

#[test]
fn layout_and_comments_change_no_digest() {
    let one = "projection: a\nsources: { s: { topic: t } }\nkey: { id: data.id }\ncolumns: { n: bigint }\nhandlers: { s: { A: { add: { n: 1 } } } }\n";
    let two = format!("# a comment\n{}", one.replace("columns: { n: bigint }", "columns:\n  n: bigint # why"));
    let digest = |text: &str| compile(&SourceFile::new("a.yaml", text)).0.unwrap().digest;
    assert_eq!(digest(one), digest(&two));
    assert_ne!(digest(one), digest(&one.replace("n: 1", "n: 2")));
}

#[test]
fn suggestions_are_near() {
    assert_eq!(suggest("colums", ["columns", "key"]), Some("did you mean `columns`?".into()));
    assert_eq!(suggest("xyz", ["columns", "key"]), None);
}

#[test]
fn the_records_time_deciding_a_result_is_told() {
    let of = |format: &str, handler: &str| {
        let text = format!(
            "projection: t\nsources: {{ s: {{ topic: a{format} }} }}\nkey: {{ id: data.id }}\ncolumns: {{ n: bigint }}\nhandlers: {{ s: {{ A: {handler} }} }}\n"
        );
        found(&text).into_iter().any(|(code, ..)| code == "record-time")
    };
    let json = ", format: json, type: data.kind";
    assert!(of(json, "{ latest: time, set: { n: data.n } }"));
    assert!(
        of(json, "{ key: { id: string(bucket(time, 'day')) }, add: { n: 1 } }")
            || of(json, "{ key: { id: \"string(bucket(time, 'day'))\" }, add: { n: 1 } }")
    );
    assert!(!of(json, "{ latest: timestamp(data.at), set: { n: data.n } }"));
    assert!(!of("", "{ latest: time, set: { n: data.n } }"));
}
