//! What `select` says.

use super::field::field;
use super::reader::Reader;
use super::{Aggregate, AggregateFunction, Embed, Item, Query, Selected, Unreadable, parse::DEPTH};

const EXAMPLE: &str = "for example select=id,total:amount::text,data->>key,lines.count(),client:clients!inner(name)";

/// The items of `select`; `*` if there is none.
pub(super) fn select(text: &str) -> Result<Vec<Item>, Unreadable> {
    let mut reader = Reader::new("select", text);
    let items = items(&mut reader, 0)?;
    // PostgREST lets surplus closing ones pass, and some clients of it have them.
    reader.take_while(|c| c == ')' || c == ' ');
    reader.end(EXAMPLE)?;
    Ok(if items.is_empty() { vec![Item::All] } else { items })
}

/// Items up to what is no more of them; there may be none.
fn items(reader: &mut Reader, depth: usize) -> Result<Vec<Item>, Unreadable> {
    reader.spaces();
    if reader.rest().is_empty() || reader.sees(")") {
        return Ok(Vec::new());
    }
    let mut items = vec![item(reader, depth)?];
    while reader.take(",") {
        items.push(item(reader, depth)?);
    }
    Ok(items)
}

fn item(reader: &mut Reader, depth: usize) -> Result<Item, Unreadable> {
    reader.spaces();
    let item = if reader.take("*") {
        Item::All
    } else if reader.take("...") {
        let target = reader.name(EXAMPLE)?;
        Item::Embed(Embed { spread: true, ..embed(reader, target, depth)? })
    } else {
        named(reader, depth)?
    };
    reader.spaces();
    if reader.ends_element() { Ok(item) } else { Err(reader.refuse("`,`, `)` or the end", EXAMPLE)) }
}

fn named(reader: &mut Reader, depth: usize) -> Result<Item, Unreadable> {
    let alias = reader.attempt(|reader| {
        let alias = reader.name(EXAMPLE).ok()?;
        (!reader.sees("::") && reader.take(":")).then_some(alias)
    });
    reader.spaces();
    if reader.take("count()") {
        let aggregate = Some(Aggregate { function: AggregateFunction::Count, cast: cast(reader)? });
        return Ok(Item::Field(Selected { alias, aggregate, ..Selected::default() }));
    }
    let quoted = reader.sees("\"");
    let field = field(reader, EXAMPLE)?;
    if field.path.is_empty() && (reader.sees("!") || reader.sees("(")) {
        if field.column == "count" && !quoted {
            return Err(reader.refuse("count() without arguments, or \"count\" in quotes", EXAMPLE));
        }
        return Ok(Item::Embed(Embed { alias, ..embed(reader, field.column, depth)? }));
    }
    let cast_of_field = cast(reader)?;
    let aggregate = match reader.take(".") {
        true => Some(Aggregate { function: aggregate(reader)?, cast: cast(reader)? }),
        false => None,
    };
    Ok(Item::Field(Selected { field: Some(field), alias, cast: cast_of_field, aggregate }))
}

/// What follows the relation's name: `!hint!inner(…)`.
fn embed(reader: &mut Reader, target: String, depth: usize) -> Result<Embed, Unreadable> {
    let (mut hint, mut join) = (None, None);
    while reader.take("!") {
        let quoted = reader.sees("\"");
        let word = reader.name(EXAMPLE)?;
        let slot = if !quoted && (word == "inner" || word == "left") { &mut join } else { &mut hint };
        if slot.replace(word).is_some() {
            return Err(reader.refuse("one hint and one of !inner and !left before it", EXAMPLE));
        }
    }
    reader.spaces();
    if !reader.sees("(") {
        return Err(reader.refuse("`(` and the columns of the relation", EXAMPLE));
    }
    if depth == DEPTH {
        return Err(reader.refuse(&format!("no more than {DEPTH} relations in one another"), EXAMPLE));
    }
    reader.take("(");
    let query = Query { select: items(reader, depth + 1)?, ..Query::default() };
    if !reader.take(")") {
        return Err(reader.refuse("`,` or `)`", EXAMPLE));
    }
    Ok(Embed { target, hint, inner: join.as_deref() == Some("inner"), query, ..Embed::default() })
}

fn aggregate(reader: &mut Reader) -> Result<AggregateFunction, Unreadable> {
    let functions = [
        ("sum()", AggregateFunction::Sum),
        ("avg()", AggregateFunction::Avg),
        ("count()", AggregateFunction::Count),
        ("max()", AggregateFunction::Max),
        ("min()", AggregateFunction::Min),
    ];
    let found = functions.into_iter().find(|(name, _)| reader.take(name));
    found.map(|(_, function)| function).ok_or_else(|| reader.refuse("sum(), avg(), count(), max() or min()", EXAMPLE))
}

/// `::type`, if there is one.
fn cast(reader: &mut Reader) -> Result<Option<String>, Unreadable> {
    reader.take("::").then(|| reader.identifier("a type's name", EXAMPLE)).transpose()
}
