use super::*;

mod refusals;
mod round_trip;

fn parse(raw: &str) -> Query {
    Query::parse(raw).unwrap_or_else(|error| panic!("{raw}: {error}"))
}

fn text(text: &str) -> String {
    text.to_string()
}

fn column(name: &str) -> Field {
    Field { column: text(name), path: vec![] }
}

fn within(name: &str, path: &[(&str, bool)]) -> Field {
    let key = |key: &str| key.parse().map(Key::Index).unwrap_or(Key::Name(text(key)));
    Field {
        column: text(name),
        path: path.iter().map(|(k, as_text)| Step { key: key(k), as_text: *as_text }).collect(),
    }
}

fn of(field: Field) -> Selected {
    Selected { field: Some(field), ..Selected::default() }
}

fn item(name: &str) -> Item {
    Item::Field(of(column(name)))
}

fn embed(target: &str, select: Vec<Item>) -> Embed {
    Embed { target: text(target), query: Query { select, ..Query::default() }, ..Embed::default() }
}

fn aggregate(function: AggregateFunction, cast: Option<&str>) -> Option<Aggregate> {
    Some(Aggregate { function, cast: cast.map(text) })
}

fn test(name: &str, test: Test) -> Condition {
    Condition::Test(column(name), test)
}

fn compare(name: &str, operator: Operator, operand: &str) -> Condition {
    test(name, Test::Compare(operator, text(operand)))
}

fn eq(name: &str, operand: &str) -> Condition {
    compare(name, Operator::Equal, operand)
}

fn not(condition: Condition) -> Condition {
    Condition::Not(Box::new(condition))
}

fn list(elements: &[&str]) -> Test {
    Test::In(elements.iter().copied().map(text).collect())
}

fn any(operator: Operator, elements: &[Option<&str>]) -> Test {
    Test::Quantified(operator, Quantifier::Any, elements.iter().map(|element| element.map(text)).collect())
}

fn search(kind: SearchKind, language: Option<&str>, words: &str) -> Test {
    Test::Search(Search { kind, language: language.map(text), words: text(words) })
}

#[test]
fn reads_select() {
    let client = || embed("clients", vec![item("id")]);
    let cases: Vec<(&str, Vec<Item>)> = vec![
        ("", vec![Item::All]),
        ("select&select=id", vec![Item::All]),
        ("select=", vec![Item::All]),
        ("select=*", vec![Item::All]),
        ("select=id,*", vec![item("id"), Item::All]),
        ("select=id&select=name&select=,", vec![item("id")]),
        ("select=%20id%20,%20a+b%20", vec![item("id"), item("a b")]),
        ("select=field-with_sep,a$num$,123,موارد", ["field-with_sep", "a$num$", "123", "موارد"].map(item).to_vec()),
        (r#"select=":arr->ow::cast","(in,side)",".dot","  two  ","a\"\\b""#, {
            [":arr->ow::cast", "(in,side)", ".dot", "  two  ", "a\"\\b"].map(item).to_vec()
        }),
        ("select=my:id::double precision", {
            vec![Item::Field(Selected {
                alias: Some(text("my")),
                cast: Some(text("double precision")),
                ..of(column("id"))
            })]
        }),
        ("select=a->b->>0,a->-1,a->0xy1->23-xy-45,a->\"x.y\"->>!@$,clients(a->0)", {
            vec![
                Item::Field(of(within("a", &[("b", false), ("0", true)]))),
                Item::Field(of(within("a", &[("-1", false)]))),
                Item::Field(of(within("a", &[("0xy1", false), ("23-xy-45", false)]))),
                Item::Field(of(within("a", &[("x.y", false), ("!@$", true)]))),
                Item::Embed(embed("clients", vec![Item::Field(of(within("a", &[("0", false)])))])),
            ]
        }),
        ("select=count(),n:count()::text,count", {
            let count = |cast| Selected { aggregate: aggregate(AggregateFunction::Count, cast), ..Selected::default() };
            let named = Selected { alias: Some(text("n")), ..count(Some("text")) };
            vec![Item::Field(count(None)), Item::Field(named), item("count")]
        }),
        ("select=id.count(),s:a->>b::int.sum()::text,max.max(),c.min(),d.avg()", {
            let of = |field, function| Selected { aggregate: aggregate(function, None), ..of(field) };
            let sum = Selected {
                alias: Some(text("s")),
                cast: Some(text("int")),
                aggregate: aggregate(AggregateFunction::Sum, Some("text")),
                ..self::of(within("a", &[("b", true)]))
            };
            vec![
                Item::Field(of(column("id"), AggregateFunction::Count)),
                Item::Field(sum),
                Item::Field(of(column("max"), AggregateFunction::Max)),
                Item::Field(of(column("c"), AggregateFunction::Min)),
                Item::Field(of(column("d"), AggregateFunction::Avg)),
            ]
        }),
        ("select=clients(id)", vec![Item::Embed(client())]),
        ("select=id, clients ( id ) , ...clients(id)", {
            vec![item("id"), Item::Embed(client()), Item::Embed(Embed { spread: true, ..client() })]
        }),
        ("select=c:clients!fk-1!inner(id),clients!left!\"left\"(id),clients!inner(id),clients!left_fk(id)", {
            let hinted = |hint, inner| Embed { hint: Some(text(hint)), inner, ..client() };
            vec![
                Item::Embed(Embed { alias: Some(text("c")), ..hinted("fk-1", true) }),
                Item::Embed(hinted("left", false)),
                Item::Embed(Embed { inner: true, ..client() }),
                Item::Embed(hinted("left_fk", false)),
            ]
        }),
        ("select=a(b(*),c()))", {
            let inner = [embed("b", vec![Item::All]), embed("c", vec![])].map(Item::Embed);
            vec![Item::Embed(embed("a", inner.to_vec()))]
        }),
    ];
    for (raw, select) in cases {
        assert_eq!(parse(raw).select, select, "{raw}");
    }
}

#[test]
fn reads_filters() {
    use Operator::*;
    let cases: Vec<(&str, Vec<Condition>)> = vec![
        ("id=eq.5;a+b=not.neq.x%26+y", vec![eq("id", "5"), not(compare("a b", NotEqual, "x& y"))]),
        ("string=eq.&bare", vec![eq("string", "")]),
        ("a=eq.\"q\"", vec![eq("a", "\"q\"")]),
        ("a=gt.1&a=gte.2.5&a=lt.3&a=lte.4", {
            let operators = [(Greater, "1"), (GreaterOrEqual, "2.5"), (Less, "3"), (LessOrEqual, "4")];
            operators.map(|(operator, operand)| compare("a", operator, operand)).to_vec()
        }),
        ("k=like.*y*&k=ilike.*Y%25&k=match.^x*$&k=imatch..*Y", {
            let operators = [(Like, "%y%"), (ILike, "%Y%"), (Match, "^x*$"), (IMatch, ".*Y")];
            operators.map(|(operator, operand)| compare("k", operator, operand)).to_vec()
        }),
        ("r=cs.{1,2}&r=cd.[1,6]&r=ov.x&r=sl.(9,10)&r=sr.x&r=nxr.x&r=nxl.x&r=adj.(3,10]&r=isdistinct.2", {
            let simple = [(Contains, "{1,2}"), (ContainedIn, "[1,6]"), (Overlaps, "x"), (StrictlyLeft, "(9,10)")];
            let others = [(StrictlyRight, "x"), (NotRightOf, "x"), (NotLeftOf, "x"), (Adjacent, "(3,10]")];
            let all = simple.into_iter().chain(others).chain([(IsDistinct, "2")]);
            all.map(|(operator, operand)| compare("r", operator, operand)).collect()
        }),
        ("id=in.(1,\"a,b\", c,\"x\" )&id=not.in.()&id=in.(  )&id=in.(\")&id=in.(,3)", {
            let lists = [&["1", "a,b", " c", "\"x\" "] as &[_], &[], &[], &["\""], &["", "3"]];
            let mut all = lists.map(|elements| test("id", list(elements))).to_vec();
            all[1] = not(all[1].clone());
            all
        }),
        (r#"n=in.("a\"b","\\","D\a\vid",\,/\S)"#, vec![test("n", list(&["a\"b", "\\", "David", "\\", "/\\S"]))]),
        ("a=is.null&a=is.NoT_NuLl&a=is.TRUE&a=is.false&a=not.is.unknown", {
            let mut all = [Is::Null, Is::NotNull, Is::True, Is::False, Is::Unknown].map(|is| test("a", Test::Is(is)));
            all[4] = not(all[4].clone());
            all.to_vec()
        }),
        ("t=fts.fun%26!x&t=plfts(german).Art+S&t=not.phfts(my conf).a&t=wfts.a or -b", {
            vec![
                test("t", search(SearchKind::Query, None, "fun&!x")),
                test("t", search(SearchKind::Plain, Some("german"), "Art S")),
                not(test("t", search(SearchKind::Phrase, Some("my conf"), "a"))),
                test("t", search(SearchKind::Web, None, "a or -b")),
            ]
        }),
        (r#"n=like(any).{O*,"a,\"*b\\}",NULL,"null", x\ y\  ,\null}&id=not.gt(any).{}"#, {
            let names = [Some("O%"), Some("a,\"%b\\}"), None, Some("null"), Some("x y "), Some("null")];
            vec![test("n", any(Like, &names)), not(test("id", any(Greater, &[])))]
        }),
        ("id=lt(all).{4}", vec![test("id", Test::Quantified(Less, Quantifier::All, vec![Some(text("4"))]))]),
        ("\"a.order\"=eq.1&\"order\"=eq.2&a->\"b.limit\"=eq.3&data->1->>b=eq.4", {
            let key = Test::Compare(Equal, text("3"));
            let path = Test::Compare(Equal, text("4"));
            vec![
                eq("a.order", "1"),
                eq("order", "2"),
                Condition::Test(within("a", &[("b.limit", false)]), key),
                Condition::Test(within("data", &[("1", false), ("b", true)]), path),
            ]
        }),
        ("select=clients(*)&clients=not.is.null", vec![not(test("clients", Test::Is(Is::Null)))]),
        ("columns=a,\"b c\"&on_conflict=a&columns=!", vec![]),
    ];
    for (raw, filters) in cases {
        assert_eq!(parse(raw).filters, filters, "{raw}");
    }
}

#[test]
fn reads_trees_of_conditions() {
    use Condition::{All, Any};
    use Operator::*;
    let cases: Vec<(&str, Condition)> = vec![
        ("or=(id.eq.1,id.not.eq.2)", Any(vec![eq("id", "1"), not(eq("id", "2"))])),
        ("and=(id.eq.1,id.eq.2))", All(vec![eq("id", "1"), eq("id", "2")])),
        ("not.or=(id.eq.1)", not(Any(vec![eq("id", "1")]))),
        ("not.and=(a.eq.1,not.or(a.eq.2,and(a.eq.3)))", {
            not(All(vec![eq("a", "1"), not(Any(vec![eq("a", "2"), All(vec![eq("a", "3")])]))]))
        }),
        ("and=( and ( id.in.( 1, 2) , b.eq.3 ) , or ( a.is.null , a.eq.\"3\") )", {
            let first = All(vec![test("id", list(&["1", " 2"])), eq("b", "3 ")]);
            All(vec![first, Any(vec![test("a", Test::Is(Is::Null)), eq("a", "3")])])
        }),
        (r#"or=(a.eq."x,(y)\"z",b.eq."x"y,c.like."*a,b*",d.eq."x" ,e.eq.)"#, {
            let like = compare("c", Like, "%a,b%");
            Any(vec![eq("a", "x,(y)\"z"), eq("b", "\"x\"y"), like, eq("d", "\"x\" "), eq("e", "")])
        }),
        ("or=(and_col.eq.1,or.eq.2,not.eq.3,\"and\".eq.4)", {
            Any(vec![eq("and_col", "1"), eq("or", "2"), eq("not", "3"), eq("and", "4")])
        }),
        ("or=(a->b->>-1.eq.1,\"c.d\"->e.in.(1,2),t.not.fts(english).x)", {
            Any(vec![
                Condition::Test(within("a", &[("b", false), ("-1", true)]), Test::Compare(Equal, text("1"))),
                Condition::Test(within("c.d", &[("e", false)]), list(&["1", "2"])),
                not(test("t", search(SearchKind::Query, Some("english"), "x"))),
            ])
        }),
        (r#"and=(a.cs.{1,2},b.eq.{x,b.cs.{"k":{"a":[1,2]}},c.ov.{"a}b",c} ,d.eq(any).{1,2},e.cd."{3,4}")"#, {
            All(vec![
                compare("a", Contains, "{1,2}"),
                eq("b", "{x"),
                compare("b", Contains, "{\"k\":{\"a\":[1,2]}}"),
                compare("c", Overlaps, "{\"a}b\",c}"),
                test("d", any(Equal, &[Some("1"), Some("2")])),
                compare("e", ContainedIn, "{3,4}"),
            ])
        }),
        (r#"or=(a.eq.{x"y},b.eq.{z"w})"#, Any(vec![eq("a", "{x\"y}"), eq("b", "{z\"w}")])),
        ("or=(r.adj.(3,10],r.sl.\"[1,2)\",r.cs.[[1,2],[3]],r.nxl.[1)", {
            let ranges = [(Adjacent, "(3,10]"), (StrictlyLeft, "[1,2)"), (Contains, "[[1,2],[3]]"), (NotLeftOf, "[1")];
            Any(ranges.map(|(operator, operand)| compare("r", operator, operand)).to_vec())
        }),
    ];
    for (raw, tree) in cases {
        assert_eq!(parse(raw).filters, [tree], "{raw}");
    }
}

#[test]
fn reads_order_and_windows() {
    let by = |field, descending, nulls_first| Order { of: None, field, descending, nulls_first };
    let cases: Vec<(&str, Vec<Order>)> = vec![
        ("order=id", vec![by(column("id"), false, None)]),
        ("order=a.desc.nullslast, b.asc.nullsfirst,c.nullsfirst&order=z", {
            let c = by(column("c"), false, Some(true));
            vec![by(column("a"), true, Some(false)), by(column("b"), false, Some(true)), c]
        }),
        ("order=a->b->>0.desc,\"x.y\".asc", {
            vec![by(within("a", &[("b", false), ("0", true)]), true, None), by(column("x.y"), false, None)]
        }),
        ("select=c:clients(*)&order=c(a->>b).desc,id", {
            let embedded = Order { of: Some(text("c")), ..by(within("a", &[("b", true)]), true, None) };
            vec![embedded, by(column("id"), false, None)]
        }),
    ];
    for (raw, order) in cases {
        assert_eq!(parse(raw).order, order, "{raw}");
    }
    let cases = [
        ("limit=5&offset=10", Some(5), 10),
        ("limit=0", Some(0), 0),
        ("limit=0&offset=5", Some(0), 5),
        ("limit=1&limit=2&offset=7&offset=+8+", Some(2), 8),
        ("limit=&offset=x", None, 0),
        ("limit=1.5", None, 0),
        ("offset=-4", None, 0),
        ("limit=5&offset=-4", Some(1), 0),
        ("limit=4&offset=-4", Some(0), 0),
        ("limit=9223372036854775807&offset=-9223372036854775807", Some(0), 0),
    ];
    for (raw, limit, offset) in cases {
        let query = parse(raw);
        assert_eq!((query.limit, query.offset), (limit, offset), "{raw}");
    }
}

#[test]
fn gives_parameters_to_the_embeds_that_they_name() {
    let raw = "select=c:clients(id,lines(*),...\"a.b\"(*)),lines(*)&c.name=eq.x&clients.total=gt.1&c.lines.or=(a.eq.1)\
        &c.lines.order=id.desc&c.lines.limit=3&c.lines.offset=2&lines.not.and=(b.eq.2)&c.\"a.b\".d->>e=eq.3&id=eq.4\
        &c.not.lines.or=(c.eq.5)&lines.limit=x";
    let query = parse(raw);
    let embeds = |query: &Query| -> Vec<Embed> {
        let embeds = query.select.iter().filter_map(|item| match item {
            Item::Embed(embed) => Some(embed.clone()),
            _ => None,
        });
        embeds.collect()
    };
    let [clients, lines] = embeds(&query).try_into().unwrap();
    let [inner, spread] = embeds(&clients.query).try_into().unwrap();
    assert_eq!(query.filters, [eq("id", "4")]);
    assert_eq!(clients.query.filters, [eq("name", "x"), compare("total", Operator::Greater, "1")]);
    let negated = not(Condition::Any(vec![eq("c", "5")]));
    assert_eq!(inner.query.filters, [Condition::Any(vec![eq("a", "1")]), negated]);
    assert_eq!((inner.query.limit, inner.query.offset), (Some(3), 2));
    assert_eq!(inner.query.order, [Order { field: column("id"), descending: true, ..Order::default() }]);
    assert_eq!(lines.query.filters, [not(Condition::All(vec![eq("b", "2")]))]);
    assert_eq!(lines.query.limit, None);
    let path = Condition::Test(within("d", &[("e", true)]), Test::Compare(Operator::Equal, text("3")));
    assert_eq!(spread.query.filters, [path]);
    // The first one that is called so.
    let [first, second] = embeds(&parse("select=a:x(*),x:y(*)&x.id=eq.1")).try_into().unwrap();
    assert_eq!((first.query.filters.len(), second.query.filters.len()), (1, 0));
}
