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
  shop: { topic: shop.orders }
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
        ("{ topic: shop.orders }", "{ topic: shop orders }", "bad-topic", 3, "letters"),
        ("{ topic: shop.orders }", "{ topic: shop.orders, format: jsn }", "unknown-word", 3, "json"),
        ("{ topic: shop.orders }", "{ topic: shop.orders, format: json }", "no-type", 3, "type"),
        ("{ topic: shop.orders }", "{ topic: shop.orders, start: monday }", "bad-start", 3, "earliest"),
        ("{ topic: shop.orders }", "{ topic: shop.orders, accept_truncated: \"yes\" }", "no-reason", 3, "words"),
        ("projection: orders", "projection: Orders", "bad-name", 1, "lower-case"),
        ("projection: orders", "projection: other", "nothing-served", 1, "serve"),
        ("create: true", "create: maybe", "wrong-shape", 15, "neither"),
        ("create: true", "latest: data.v", "not-yet", 15, "latest"),
        ("delete: true", "delete: final", "not-yet", 20, "final"),
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
