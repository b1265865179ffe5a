//! Any tree, written out, is read as itself.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use proptest::{collection::vec, option, sample::select, strategy::Union};

use super::super::*;

const COMPARISONS: [(&str, Operator); 19] = [
    ("eq", Operator::Equal),
    ("gt", Operator::Greater),
    ("gte", Operator::GreaterOrEqual),
    ("lt", Operator::Less),
    ("lte", Operator::LessOrEqual),
    ("like", Operator::Like),
    ("ilike", Operator::ILike),
    ("match", Operator::Match),
    ("imatch", Operator::IMatch),
    ("neq", Operator::NotEqual),
    ("isdistinct", Operator::IsDistinct),
    ("cs", Operator::Contains),
    ("cd", Operator::ContainedIn),
    ("ov", Operator::Overlaps),
    ("sl", Operator::StrictlyLeft),
    ("sr", Operator::StrictlyRight),
    ("nxr", Operator::NotRightOf),
    ("nxl", Operator::NotLeftOf),
    ("adj", Operator::Adjacent),
];
/// The first so many of them can be quantified.
const QUANTIFIABLE: usize = 9;
const SEARCHES: [(&str, SearchKind); 4] = [
    ("fts", SearchKind::Query),
    ("plfts", SearchKind::Plain),
    ("phfts", SearchKind::Phrase),
    ("wfts", SearchKind::Web),
];
const IS: [(&str, Is); 5] =
    [("null", Is::Null), ("not_null", Is::NotNull), ("true", Is::True), ("false", Is::False), ("unknown", Is::Unknown)];
const AGGREGATES: [(&str, AggregateFunction); 5] = [
    ("count", AggregateFunction::Count),
    ("sum", AggregateFunction::Sum),
    ("avg", AggregateFunction::Avg),
    ("max", AggregateFunction::Max),
    ("min", AggregateFunction::Min),
];

fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], of: T) -> &'static str {
    words.iter().find(|(_, value)| *value == of).expect("all are listed").0
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Without quotes if it can be.
fn name(name: &str) -> String {
    let words = ["count", "inner", "left", "not", "and", "or", "order", "limit", "offset", "select", "columns"];
    let plain = |part: &str| part.starts_with(|c: char| c.is_ascii_lowercase()) && part.trim() == part;
    let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_$- ".contains(c);
    match !words.contains(&name) && name.split('-').all(plain) && name.chars().all(of_name) {
        true => name.to_string(),
        false => quoted(name),
    }
}

fn element(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(char::is_alphanumeric);
    if plain { text.to_string() } else { quoted(text) }
}

fn field(field: &Field) -> String {
    let step = |step: &Step| {
        let key = match &step.key {
            Key::Name(key) => name(key),
            Key::Index(index) => index.to_string(),
        };
        format!("{}{key}", if step.as_text { "->>" } else { "->" })
    };
    name(&field.column) + &field.path.iter().map(step).collect::<String>()
}

fn joined<T>(items: &[T], write: impl Fn(&T) -> String) -> String {
    items.iter().map(write).collect::<Vec<_>>().join(",")
}

fn suffix(sign: &str, text: &Option<String>) -> String {
    text.as_ref().map(|text| format!("{sign}{text}")).unwrap_or_default()
}

fn item(selected: &Item) -> String {
    match selected {
        Item::All => "*".into(),
        Item::Field(selected) => {
            let alias = selected.alias.as_ref().map(|alias| name(alias) + ":").unwrap_or_default();
            let aggregate = selected.aggregate.as_ref().map(|aggregate| {
                format!("{}(){}", word(&AGGREGATES, aggregate.function), suffix("::", &aggregate.cast))
            });
            match &selected.field {
                Some(of) => alias + &field(of) + &suffix("::", &selected.cast) + &suffix(".", &aggregate),
                None => alias + &aggregate.unwrap(),
            }
        }
        Item::Embed(embed) => {
            let alias = embed.alias.as_ref().map(|alias| name(alias) + ":").unwrap_or_default();
            let spread = if embed.spread { "..." } else { "" };
            let hint = suffix("!", &embed.hint.as_deref().map(name));
            let join = if embed.inner { "!inner" } else { "" };
            format!("{alias}{spread}{}{hint}{join}({})", name(&embed.target), joined(&embed.query.select, item))
        }
    }
}

/// The operator and its operand, within a tree or else alone.
fn test(test: &Test, in_tree: bool) -> String {
    let operand = |text: &str| if in_tree { element(text) } else { text.to_string() };
    match test {
        Test::Compare(operator, text) => format!("{}.{}", word(&COMPARISONS, *operator), operand(text)),
        Test::Quantified(operator, quantifier, elements) => {
            let modifier = if *quantifier == Quantifier::Any { "any" } else { "all" };
            let array = joined(elements, |text| text.as_deref().map(quoted).unwrap_or("null".into()));
            format!("{}({modifier}).{}", word(&COMPARISONS, *operator), operand(&format!("{{{array}}}")))
        }
        Test::In(elements) => format!("in.({})", joined(elements, |text| element(text))),
        Test::Is(is) => format!("is.{}", word(&IS, *is)),
        Test::Search(search) => {
            let language = search.language.as_ref().map(|language| format!("({language})")).unwrap_or_default();
            format!("{}{language}.{}", word(&SEARCHES, search.kind), operand(&search.words))
        }
    }
}

fn node(condition: &Condition) -> String {
    match condition {
        Condition::All(conditions) => format!("and({})", joined(conditions, node)),
        Condition::Any(conditions) => format!("or({})", joined(conditions, node)),
        Condition::Test(of, what) => format!("{}.{}", field(of), test(what, true)),
        Condition::Not(inner) => match &**inner {
            Condition::Test(of, what) => format!("{}.not.{}", field(of), test(what, true)),
            inner => format!("not.{}", node(inner)),
        },
    }
}

fn filter(condition: &Condition) -> (String, String) {
    match condition {
        Condition::All(conditions) => ("and".into(), format!("({})", joined(conditions, node))),
        Condition::Any(conditions) => ("or".into(), format!("({})", joined(conditions, node))),
        Condition::Test(of, what) => (field(of), test(what, false)),
        Condition::Not(inner) => match (filter(inner), &**inner) {
            ((key, value), Condition::Test(..)) => (key, format!("not.{value}")),
            ((key, value), _) => (format!("not.{key}"), value),
        },
    }
}

fn order(order: &Order) -> String {
    let by = field(&order.field);
    let by = order.of.as_ref().map(|of| format!("{}({by})", name(of))).unwrap_or(by);
    let nulls = order.nulls_first.map(|first| if first { ".nullsfirst" } else { ".nullslast" });
    format!("{by}{}{}", if order.descending { ".desc" } else { "" }, nulls.unwrap_or_default())
}

/// The parameters of `query` but for `select`, below `path`.
fn parameters(path: &str, query: &Query) -> Vec<(String, String)> {
    let own = |(key, value): (String, String)| (format!("{path}{key}"), value);
    let mut all: Vec<_> = query.filters.iter().map(filter).map(own).collect();
    all.extend((!query.order.is_empty()).then(|| own(("order".into(), joined(&query.order, order)))));
    all.extend(query.limit.map(|limit| own(("limit".into(), limit.to_string()))));
    all.extend((query.offset > 0).then(|| own(("offset".into(), query.offset.to_string()))));
    for item in &query.select {
        if let Item::Embed(embed) = item {
            all.extend(parameters(&format!("{path}{}.", name(embed.name())), &embed.query));
        }
    }
    all
}

fn render(query: &Query) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut all = parameters("", query);
    all.push(("select".into(), joined(&query.select, item)));
    all.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect::<Vec<_>>().join("&")
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,6}", "[-\\\\\".,:()>!{}\\[\\] &;=+%#0-9]{0,6}", "[^\\x00*]{0,8}"]
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,6}", "[a-z]{1,3}[- ][a-z]{1,3}", texts()].prop_filter("a name", |name| !name.is_empty())
}

fn types() -> impl Strategy<Value = Option<String>> {
    option::of("[a-z_]{1,4}( [a-z]{1,4})?")
}

fn fields() -> impl Strategy<Value = Field> {
    let key = prop_oneof![texts().prop_map(Key::Name), any::<i64>().prop_map(Key::Index)];
    let step = (key, any::<bool>()).prop_map(|(key, as_text)| Step { key, as_text });
    (names(), vec(step, 0..3)).prop_map(|(column, path)| Field { column, path })
}

fn tests() -> impl Strategy<Value = Test> {
    let operators = || select(COMPARISONS.map(|(_, operator)| operator).to_vec());
    let quantifiable = select(COMPARISONS[..QUANTIFIABLE].iter().map(|(_, operator)| *operator).collect::<Vec<_>>());
    let quantifier = select(vec![Quantifier::Any, Quantifier::All]);
    let lists = vec(texts(), 0..4).prop_filter("the empty list", |list| *list != [""]);
    let kinds = select(SEARCHES.map(|(_, kind)| kind).to_vec());
    prop_oneof![
        (operators(), texts()).prop_map(|(operator, text)| Test::Compare(operator, text)),
        (quantifiable, quantifier, vec(option::of(texts()), 0..4))
            .prop_map(|(operator, quantifier, elements)| Test::Quantified(operator, quantifier, elements)),
        lists.prop_map(Test::In),
        select(IS.map(|(_, is)| is).to_vec()).prop_map(Test::Is),
        (kinds, types(), texts()).prop_map(|(kind, language, words)| Test::Search(Search { kind, language, words })),
    ]
}

fn conditions() -> impl Strategy<Value = Condition> {
    let test = (fields(), tests()).prop_map(|(field, test)| Condition::Test(field, test));
    let positive = test.prop_recursive(3, 12, 3, |inner| {
        let inner = (inner, any::<bool>()).prop_map(|(inner, negated)| signed(inner, negated));
        let all = vec(inner.clone(), 1..4).prop_map(Condition::All);
        Union::new([all.boxed(), vec(inner, 1..4).prop_map(Condition::Any).boxed()])
    });
    (positive, any::<bool>()).prop_map(|(condition, negated)| signed(condition, negated))
}

fn signed(condition: Condition, negated: bool) -> Condition {
    if negated { Condition::Not(Box::new(condition)) } else { condition }
}

fn selected() -> impl Strategy<Value = Item> {
    let function = select(AGGREGATES.map(|(_, function)| function).to_vec());
    let aggregate = (function, types()).prop_map(|(function, cast)| Aggregate { function, cast });
    let of_field = (option::of(names()), fields(), types(), option::of(aggregate))
        .prop_map(|(alias, field, cast, aggregate)| Selected { alias, field: Some(field), cast, aggregate });
    let of_rows = (option::of(names()), types()).prop_map(|(alias, cast)| {
        let aggregate = Some(Aggregate { function: AggregateFunction::Count, cast });
        Selected { alias, aggregate, ..Selected::default() }
    });
    prop_oneof![Just(Item::All), of_field.prop_map(Item::Field), of_rows.prop_map(Item::Field)]
}

fn queries(items: impl Strategy<Value = Vec<Item>>) -> impl Strategy<Value = Query> {
    let order = (any::<bool>(), fields(), any::<bool>(), option::of(any::<bool>())).prop_map(
        |(embedded, field, descending, nulls_first)| {
            let of = embedded.then(String::new);
            Order { of, field, descending, nulls_first }
        },
    );
    let most = i64::MAX as u64;
    (items, vec(conditions(), 0..3), vec(order, 0..3), option::of(0..=most), prop_oneof![Just(0), 0..=most])
        .prop_map(|(select, filters, order, limit, offset)| Query { select, filters, order, limit, offset })
}

fn trees() -> impl Strategy<Value = Query> {
    let items = selected().prop_recursive(3, 8, 3, |inner| {
        let embed = (names(), option::of(names()), option::of(names()), any::<bool>(), any::<bool>());
        (embed, queries(vec(inner, 0..3))).prop_map(|((target, alias, hint, inner, spread), query)| {
            let alias = alias.filter(|_| !spread);
            Item::Embed(Embed { target, alias, hint, inner, spread, query })
        })
    });
    queries(vec(items, 1..4)).prop_map(|mut query| {
        settle(&mut query);
        query
    })
}

/// Gives each embed a name of its own, and lets orders name one.
fn settle(query: &mut Query) {
    let mut names = Vec::new();
    for (number, item) in query.select.iter_mut().enumerate() {
        if let Item::Embed(embed) = item {
            embed.target = format!("{}_t{number}", embed.target);
            embed.alias = embed.alias.take().map(|alias| format!("{alias}_a{number}"));
            names.push(embed.name().to_string());
            settle(&mut embed.query);
        }
    }
    for order in &mut query.order {
        order.of = order.of.take().and(names.last().cloned());
    }
}

proptest! {
    #[test]
    fn never_panics(raw in any::<String>()) {
        let _ = Query::parse(&raw);
    }

    /// More of these reach the depths of the grammar.
    #[test]
    fn never_panics_at_signs(
        key in "(select|order|or|a\\.limit|a|not\\.and|a->b)?",
        value in "([(){}\",.:!*>-]|\\\\|->|\\.\\.\\.|::|not\\.|in\\.|eq|is\\.null|\\(any\\)|sum\\(\\)|count|[a-z0 é%+])*",
    ) {
        let _ = Query::parse(&format!("{key}={value}"));
    }

    #[test]
    fn reads_what_is_written(query in trees()) {
        let raw = render(&query);
        prop_assert_eq!(Query::parse(&raw), Ok(query), "{}", raw);
    }
}
