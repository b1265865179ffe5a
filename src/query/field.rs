//! Columns and what is within them.

use super::{Field, Key, Step, Unreadable, reader::Reader};

/// A column and the arrows after it.
pub(super) fn field(reader: &mut Reader, example: &str) -> Result<Field, Unreadable> {
    reader.spaces();
    let column = reader.name(example)?;
    let path = path(reader, example)?;
    reader.spaces();
    Ok(Field { column, path })
}

/// `->a->>0`; often nothing.
pub(super) fn path(reader: &mut Reader, example: &str) -> Result<Vec<Step>, Unreadable> {
    let mut path = Vec::new();
    while reader.take("->") {
        path.push(Step { as_text: reader.take(">"), key: key(reader, example)? });
    }
    Ok(path)
}

fn key(reader: &mut Reader, example: &str) -> Result<Key, Unreadable> {
    if let Some(index) = reader.attempt(index) {
        return index.parse().map(Key::Index).map_err(|_| reader.refuse("an index of 64 bits before it", example));
    }
    let name = if reader.sees("\"") { reader.quoted() } else { reader.dashed(|c| !"(-:.,>)".contains(c)) };
    name.map(Key::Name)
        .ok_or_else(|| reader.refuse("a key without any of ( - : . , > ) or in quotes, or an index", example))
}

/// Digits alone are an index; `0x1` and `1-a` are keys.
fn index<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    let rest = reader.rest();
    reader.take("-");
    let digits = reader.take_while(|c| c.is_ascii_digit());
    let number = &rest[..rest.len() - reader.rest().len()];
    let ends = ["->", "::", "."].iter().any(|sign| reader.sees(sign)) || reader.ends_element();
    (ends && !digits.is_empty()).then_some(number)
}
