//! Names, quotes and the text between signs.

use super::Unreadable;

/// Signs of a text that its errors show.
const EXCERPT: usize = 40;

/// Brackets are searched in vain in so many times the text at most; all of them would take quadratic time.
const VAIN: usize = 8;

/// Reads a text from left to right. Whatever does not fit leaves it where it was.
pub(super) struct Reader<'a> {
    /// The parameter, for errors.
    parameter: &'a str,
    text: &'a str,
    /// In bytes.
    at: usize,
    /// Bytes in which brackets were searched in vain.
    vain: usize,
}

impl<'a> Reader<'a> {
    pub fn new(parameter: &'a str, text: &'a str) -> Reader<'a> {
        Reader { parameter, text, at: 0, vain: 0 }
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn sees(&self, sign: &str) -> bool {
        self.rest().starts_with(sign)
    }

    /// Takes `sign`, if it is next.
    pub fn take(&mut self, sign: &str) -> bool {
        let seen = self.sees(sign);
        if seen {
            self.at += sign.len();
        }
        seen
    }

    pub fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !wanted(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    pub fn spaces(&mut self) {
        self.take_while(is_space);
    }

    /// What `read` finds; without it, the reader stays.
    pub fn attempt<T>(&mut self, read: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Option<T> {
        let start = self.at;
        let found = read(self);
        if found.is_none() {
            self.at = start;
        }
        found
    }

    /// A name as it stands: letters, digits, `_`, `$` and spaces, with single `-` between them; or anything in quotes.
    pub fn name(&mut self, example: &str) -> Result<String, Unreadable> {
        let name = if self.sees("\"") { self.quoted() } else { self.dashed(is_of_name) };
        name.filter(|name| !name.is_empty()).ok_or_else(|| self.refuse("a name", example))
    }

    /// Parts with a `-` between them that does not begin an arrow. Spaces around parts are dropped.
    pub fn dashed(&mut self, wanted: impl Fn(char) -> bool) -> Option<String> {
        self.attempt(|reader| {
            let mut name = String::new();
            loop {
                let part = reader.take_while(&wanted).trim();
                name.push_str((!part.is_empty()).then_some(part)?);
                if reader.sees("->") || !reader.take("-") {
                    return Some(name);
                }
                name.push('-');
            }
        })
    }

    /// Letters, digits, `_`, `$` and spaces: a type's name or a language's.
    pub fn identifier(&mut self, what: &str, example: &str) -> Result<String, Unreadable> {
        let found = self.attempt(|reader| Some(reader.take_while(is_of_name).trim()).filter(|name| !name.is_empty()));
        found.map(str::to_string).ok_or_else(|| self.refuse(what, example))
    }

    /// A text in double quotes, in which `\` takes the next character as it is.
    pub fn quoted(&mut self) -> Option<String> {
        let mut chars = self.rest().strip_prefix('"')?.char_indices();
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 2;
                    return Some(text);
                }
                '\\' => text.push(chars.next()?.1),
                c => text.push(c),
            }
        }
        None
    }

    /// An element of a list: in quotes that a `,`, a `)` or the end follows, or else all up to these as it stands.
    pub fn element(&mut self) -> String {
        let quoted = self.attempt(|reader| reader.quoted().filter(|_| reader.ends_element()));
        quoted.unwrap_or_else(|| self.take_while(|c| c != ',' && c != ')').to_string())
    }

    /// Whether a `,`, a `)` or the end is next.
    pub fn ends_element(&self) -> bool {
        self.rest().chars().next().is_none_or(|c| c == ',' || c == ')')
    }

    /// Braces without others in them, that an element ends after. This is all that PostgREST knows of arrays.
    pub fn flat_braces(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let inside = rest.strip_prefix('{')?;
        let end = inside.find(['{', '}']).filter(|end| inside[*end..].starts_with('}'))?;
        let text = Some(&rest[..end + 2]).filter(|text| ends_operand(&rest[text.len()..]));
        self.at += text.map_or(0, str::len);
        text
    }

    /// Text from an opening bracket to the one that closes it, that an element ends after. Quotes hide brackets.
    pub fn brackets(&mut self, opening: &[char], closing: &[char]) -> Option<&'a str> {
        let rest = self.rest();
        if self.vain > VAIN * self.text.len() || !rest.starts_with(opening) {
            return None;
        }
        let (mut depth, mut quoted, mut escaped) = (0, false, false);
        let closed = rest.char_indices().find_map(|(at, c)| {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                c if !quoted && opening.contains(&c) => depth += 1,
                c if !quoted && closing.contains(&c) => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(at + c.len_utf8())
        });
        let text = closed.map(|end| &rest[..end]).filter(|text| ends_operand(&rest[text.len()..]));
        self.vain += if text.is_none() { closed.unwrap_or(rest.len()) } else { 0 };
        self.at += text.map_or(0, str::len);
        text
    }

    /// # Errors
    /// Something is left.
    pub fn end(&self, example: &str) -> Result<(), Unreadable> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.refuse("the end", example)) }
    }

    /// Says what should have been next.
    pub fn refuse(&self, expected: &str, example: &str) -> Unreadable {
        let found = match excerpt(self.rest()) {
            rest if rest.is_empty() => "its end".to_string(),
            rest => format!("`{rest}`"),
        };
        let (parameter, text) = (excerpt(self.parameter), excerpt(self.text));
        let place = self.text[..self.at].chars().count() + 1;
        let message =
            format!("{parameter} cannot be read: character {place} of `{text}` is {found}, expected {expected}");
        Unreadable { code: "PGRST100", message, hint: example.to_string() }
    }
}

pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Whether a `,` or a `)` is next, as it is behind each operand of a tree.
fn ends_operand(rest: &str) -> bool {
    rest.trim_start_matches(is_space).starts_with([',', ')'])
}

fn is_space(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn is_of_name(c: char) -> bool {
    c.is_alphabetic() || c.is_ascii_digit() || matches!(c, '_' | '$' | ' ')
}
