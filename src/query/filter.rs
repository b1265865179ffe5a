//! Operators, their operands, and trees of conditions.

use super::field::field;
use super::parse::DEPTH;
use super::reader::Reader;
use super::{Condition, Field, Is, Operator, Quantifier, Search, SearchKind, Test, Unreadable};

const OPERATORS: &str = "the operators are eq, neq, gt, gte, lt, lte, like, ilike, match, imatch, in, is, isdistinct, \
    fts, plfts, phfts, wfts, cs, cd, ov, sl, sr, nxr, nxl and adj, each also after `not.`, as in status=not.eq.open";
const TREE: &str = "for example or=(status.eq.open,and(total.gte.10,name.not.like.\"a,b*\"))";

/// What stands between conditions of a tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Joint {
    And,
    Or,
}

/// A condition on `field`: all of `text`.
pub(super) fn filter(parameter: &str, field: Field, text: &str) -> Result<Condition, Unreadable> {
    let mut reader = Reader::new(parameter, text);
    let condition = condition(&mut reader, field, whole)?;
    reader.end(OPERATORS)?;
    Ok(condition)
}

/// A tree of conditions: `(a.eq.1,or(b.eq.2,c.eq.3))`.
pub(super) fn tree(parameter: &str, joint: Joint, negated: bool, text: &str) -> Result<Condition, Unreadable> {
    let mut reader = Reader::new(parameter, text);
    let tree = group(&mut reader, joint, negated, 1)?;
    // PostgREST lets surplus closing ones pass, and some clients of it have them.
    reader.take_while(|c| c == ')' || c == ' ');
    reader.end(TREE)?;
    Ok(tree)
}

fn group(reader: &mut Reader, joint: Joint, negated: bool, depth: usize) -> Result<Condition, Unreadable> {
    reader.spaces();
    if depth > DEPTH {
        return Err(reader.refuse(&format!("no more than {DEPTH} of and() and or() in one another"), TREE));
    }
    if !reader.take("(") {
        return Err(reader.refuse("`(`", TREE));
    }
    let mut conditions = vec![node(reader, depth)?];
    while reader.take(",") {
        conditions.push(node(reader, depth)?);
    }
    if !reader.take(")") {
        return Err(reader.refuse("`,` or `)`", TREE));
    }
    reader.spaces();
    let group = match joint {
        Joint::And => Condition::All(conditions),
        Joint::Or => Condition::Any(conditions),
    };
    Ok(signed(negated, group))
}

fn node(reader: &mut Reader, depth: usize) -> Result<Condition, Unreadable> {
    reader.spaces();
    let head = reader.attempt(|reader| {
        let negated = reader.take("not.");
        let joint = [("and", Joint::And), ("or", Joint::Or)].into_iter().find(|(word, _)| reader.take(word))?.1;
        reader.spaces();
        // Columns may begin with these words, or be called so.
        reader.sees("(").then_some((joint, negated))
    });
    if let Some((joint, negated)) = head {
        return group(reader, joint, negated, depth + 1);
    }
    let field = field(reader, TREE)?;
    if !reader.take(".") {
        return Err(reader.refuse("`.` and an operator", TREE));
    }
    let condition = condition(reader, field, part)?;
    reader.spaces();
    Ok(condition)
}

fn signed(negated: bool, condition: Condition) -> Condition {
    if negated { Condition::Not(Box::new(condition)) } else { condition }
}

/// How an operand ends: with the text, or with its part of a tree.
type Operand = fn(&mut Reader, Option<Operator>) -> String;

fn whole(reader: &mut Reader, _: Option<Operator>) -> String {
    reader.take_while(|_| true).to_string()
}

/// Brackets hold commas together, if the operand can be an array or, of some operators, a range or JSON.
fn part(reader: &mut Reader, operator: Option<Operator>) -> String {
    use Operator::{Adjacent, ContainedIn, Contains, NotLeftOf, NotRightOf, Overlaps, StrictlyLeft, StrictlyRight};
    let of_ranges = [Contains, ContainedIn, Overlaps, StrictlyLeft, StrictlyRight, NotRightOf, NotLeftOf, Adjacent];
    let array = reader.flat_braces().or_else(|| reader.brackets(&['{'], &['}']));
    let held = match operator {
        Some(operator) if of_ranges.contains(&operator) => array.or_else(|| reader.brackets(&['[', '('], &[']', ')'])),
        _ => array,
    };
    held.map(str::to_string).unwrap_or_else(|| reader.element())
}

fn condition(reader: &mut Reader, field: Field, operand: Operand) -> Result<Condition, Unreadable> {
    let negated = reader.take("not.");
    Ok(signed(negated, Condition::Test(field, test(reader, operand)?)))
}

fn test(reader: &mut Reader, operand: Operand) -> Result<Test, Unreadable> {
    let head = reader.attempt(|reader| {
        let word = reader.take_while(|c| c.is_ascii_lowercase());
        let modifier = match reader.take("(") {
            true => Some(Some(reader.take_while(|c| c != ')')).filter(|_| reader.take(")"))?),
            false => None,
        };
        let known = known(word, modifier)?;
        reader.take(".").then_some(known)
    });
    match head.ok_or_else(|| reader.refuse("an operator and `.`", OPERATORS))? {
        Head::In => list(reader).map(Test::In),
        Head::Is => is(reader).map(Test::Is),
        Head::Search(kind, language) => Ok(Test::Search(Search { kind, language, words: operand(reader, None) })),
        Head::Compare(operator, quantifier) => {
            let text = operand(reader, Some(operator));
            let text = if operator.has_wildcards() { text.replace('*', "%") } else { text };
            match quantifier {
                None => Ok(Test::Compare(operator, text)),
                Some(quantifier) => Ok(Test::Quantified(operator, quantifier, array(&text)?)),
            }
        }
    }
}

impl Operator {
    fn has_wildcards(self) -> bool {
        matches!(self, Operator::Like | Operator::ILike)
    }
}

enum Head {
    In,
    Is,
    Search(SearchKind, Option<String>),
    Compare(Operator, Option<Quantifier>),
}

fn known(word: &str, modifier: Option<&str>) -> Option<Head> {
    let search = |kind| match modifier {
        None => Some(Head::Search(kind, None)),
        Some(language) => {
            let mut reader = Reader::new("", language);
            let language = reader.identifier("", "").ok().filter(|_| reader.rest().is_empty())?;
            Some(Head::Search(kind, Some(language)))
        }
    };
    let quantified = |operator| match modifier {
        None => Some(Head::Compare(operator, None)),
        Some("any") => Some(Head::Compare(operator, Some(Quantifier::Any))),
        Some("all") => Some(Head::Compare(operator, Some(Quantifier::All))),
        Some(_) => None,
    };
    let simple = |head| modifier.is_none().then_some(head);
    let compare = |operator| simple(Head::Compare(operator, None));
    match word {
        "in" => simple(Head::In),
        "is" => simple(Head::Is),
        "fts" => search(SearchKind::Query),
        "plfts" => search(SearchKind::Plain),
        "phfts" => search(SearchKind::Phrase),
        "wfts" => search(SearchKind::Web),
        "eq" => quantified(Operator::Equal),
        "gt" => quantified(Operator::Greater),
        "gte" => quantified(Operator::GreaterOrEqual),
        "lt" => quantified(Operator::Less),
        "lte" => quantified(Operator::LessOrEqual),
        "like" => quantified(Operator::Like),
        "ilike" => quantified(Operator::ILike),
        "match" => quantified(Operator::Match),
        "imatch" => quantified(Operator::IMatch),
        "neq" => compare(Operator::NotEqual),
        "isdistinct" => compare(Operator::IsDistinct),
        "cs" => compare(Operator::Contains),
        "cd" => compare(Operator::ContainedIn),
        "ov" => compare(Operator::Overlaps),
        "sl" => compare(Operator::StrictlyLeft),
        "sr" => compare(Operator::StrictlyRight),
        "nxr" => compare(Operator::NotRightOf),
        "nxl" => compare(Operator::NotLeftOf),
        "adj" => compare(Operator::Adjacent),
        _ => None,
    }
}

fn is(reader: &mut Reader) -> Result<Is, Unreadable> {
    let values = [
        ("null", Is::Null),
        ("not_null", Is::NotNull),
        ("true", Is::True),
        ("false", Is::False),
        ("unknown", Is::Unknown),
    ];
    let found = reader.attempt(|reader| {
        let word = reader.take_while(|c| c.is_alphanumeric() || c == '_');
        values.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name))
    });
    let Some((_, value)) = found else {
        return Err(reader.refuse("null, not_null, true, false or unknown", "for example deleted_at=is.null"));
    };
    reader.spaces();
    Ok(value)
}

/// `(a,"b,c")`. Spaces within belong to the elements but for those before the first.
fn list(reader: &mut Reader) -> Result<Vec<String>, Unreadable> {
    let example = "for example status=in.(open,paid), with \"quotes\" around values that have commas";
    reader.spaces();
    if !reader.take("(") {
        return Err(reader.refuse("`(`", example));
    }
    reader.spaces();
    let mut elements = vec![reader.element()];
    while reader.take(",") {
        elements.push(reader.element());
    }
    if !reader.take(")") {
        return Err(reader.refuse("`,` or `)`", example));
    }
    reader.spaces();
    Ok(if elements == [""] { Vec::new() } else { elements })
}

/// The elements of an array of one dimension as Postgres writes it: `{a,"b,c",NULL}`.
fn array(text: &str) -> Result<Vec<Option<String>>, Unreadable> {
    let inside = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    inside.and_then(elements).ok_or_else(|| Unreadable {
        code: "22P02",
        message: format!("malformed array literal: \"{}\"", super::reader::excerpt(text)),
        hint: "for example id=eq(any).{1,2}, with \"quotes\" around elements that have commas, quotes or braces".into(),
    })
}

fn elements(text: &str) -> Option<Vec<Option<String>>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let mut elements = Vec::new();
    let mut reader = Reader::new("", text);
    loop {
        reader.take_while(char::is_whitespace);
        elements.push(match reader.sees("\"") {
            true => Some(reader.quoted()?),
            false => bare(&mut reader)?,
        });
        reader.take_while(char::is_whitespace);
        if !reader.take(",") {
            return reader.rest().is_empty().then_some(elements);
        }
    }
}

/// An element without quotes; `\` takes the next character as it is.
fn bare(reader: &mut Reader) -> Option<Option<String>> {
    let (mut text, mut kept) = (String::new(), 0);
    loop {
        text.push_str(reader.take_while(|c| !",\"{}\\".contains(c)));
        if !reader.take("\\") {
            break;
        }
        let escaped = reader.rest().chars().next()?;
        reader.take(escaped.encode_utf8(&mut [0; 4]));
        text.push(escaped);
        kept = text.len();
    }
    // Spaces at the end are dropped, but for one that is escaped.
    text.truncate(kept + text[kept..].trim_end().len());
    match text.as_str() {
        "" => None,
        null if kept == 0 && null.eq_ignore_ascii_case("null") => Some(None),
        _ => Some(Some(text)),
    }
}
