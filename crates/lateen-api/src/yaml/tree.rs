//! From text to trees. Depth, the number of nodes and what aliases may expand to are bounded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use granit_parser::{Event, Parser, ScalarStyle, Span};

/// Deeper nesting than this is refused.
pub const MAX_DEPTH: usize = 100;
/// A document with more nodes than this, aliases expanded, is refused.
pub const MAX_NODES: usize = 500_000;
/// A longer key, in bytes, is refused; Kubernetes' longest names have some 320.
pub const MAX_KEY: usize = 1024;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
    pub value: Value,
}

/// What JSON can say.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// Positive integers beyond `i64`.
    Unsigned(u64),
    Float(f64),
    String(String),
    Sequence(Vec<Node>),
    /// In the order of the text; keys are strings, each once.
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// The value of `key` in a mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => {
                entries.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The text of a text node.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The tree without positions.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Integer(value) => Json::from(*value),
            Value::Unsigned(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::String(text) => Json::String(text.clone()),
            Value::Sequence(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Mapping(entries) => Json::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.as_str().unwrap_or_default().to_owned(), value.to_json()))
                    .collect(),
            ),
        }
    }

    /// A tree without positions, for objects that did not come from a text.
    pub fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Value::Integer(value),
                (None, Some(value)) => Value::Unsigned(value),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::String(text.clone()),
            Json::Array(items) => Value::Sequence(items.iter().map(Self::from_json).collect()),
            Json::Object(entries) => Value::Mapping(
                entries
                    .iter()
                    .map(|(key, value)| (Self::unplaced(Value::String(key.clone())), Self::from_json(value)))
                    .collect(),
            ),
        };
        Self::unplaced(value)
    }

    fn unplaced(value: Value) -> Self {
        Self { line: 0, column: 0, value }
    }
}

/// Why a document is no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub line: u32,
    pub column: u32,
    pub message: String,
}

/// One document of a text, or what is wrong with it.
pub type Document = Result<Node, SyntaxError>;

/// All documents of a text. One that is broken does not hide those after it; empty ones are left out.
pub fn documents(text: &str) -> Vec<Document> {
    // Whether comments are events depends on features, which others that use the parser may turn on.
    let mut parser = Parser::new_from_str_with_options(text, granit_parser::options! { emit_comments: false });
    let mut documents = Vec::new();
    loop {
        let mut builder = Builder { text, anchors: HashMap::new(), nodes: 0 };
        match builder.document(&mut parser) {
            Ok(Step::End) => return documents,
            Ok(Step::Document(node)) => {
                if node.value != Value::Null {
                    documents.push(Ok(node));
                }
            }
            Err(error) => {
                documents.push(Err(error));
                match parser.proceed_next_document() {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return documents,
                }
            }
        }
    }
}

enum Step {
    Document(Node),
    End,
}

/// Builds one document.
struct Builder<'t> {
    text: &'t str,
    /// Anchored nodes by their number, with how many nodes each has.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

type Input<'a> = Parser<'a, granit_parser::StrInput<'a>>;

impl Builder<'_> {
    fn document(&mut self, parser: &mut Input<'_>) -> Result<Step, SyntaxError> {
        loop {
            match next(parser)? {
                None | Some((Event::StreamEnd, _)) => return Ok(Step::End),
                Some((Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _)) => {}
                Some((event, span)) => {
                    let node = self.node(parser, event, span, 0)?;
                    return Ok(Step::Document(node));
                }
            }
        }
    }

    fn node(
        &mut self,
        parser: &mut Input<'_>,
        event: Event<'_>,
        span: Span,
        depth: usize,
    ) -> Result<Node, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(error(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.count(1, span)?;
        let (value, anchor, before) = match event {
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    return Err(error(span, "this alias names an anchor around itself".to_owned()));
                };
                self.count(size, span)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (if plain { plain_scalar(&text) } else { Value::String(text.into_owned()) }, anchor, self.nodes)
            }
            Event::SequenceStart(_, anchor, _) => {
                let before = self.nodes;
                (self.sequence(parser, depth)?, anchor, before)
            }
            Event::MappingStart(_, anchor, _) => {
                let before = self.nodes;
                (self.mapping(parser, depth)?, anchor, before)
            }
            other => return Err(error(span, format!("unexpected {other:?}"))),
        };
        let node = Node { line: number(span.start.line()), column: number(span.start.col() + 1), value };
        if anchor != 0 {
            // The copy that aliases are made from takes room too.
            let size = self.nodes - before + 1;
            self.count(size, span)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn sequence(&mut self, parser: &mut Input<'_>, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match next(parser)? {
                Some((Event::SequenceEnd, _)) => return Ok(Value::Sequence(items)),
                Some((event, span)) => {
                    let mut item = self.node(parser, event, span, depth + 1)?;
                    if let Some(word) = self.word_with_colon(&item, span) {
                        item.value = Value::String(word);
                    }
                    items.push(item);
                }
                None => {
                    return Err(SyntaxError { line: 0, column: 0, message: "the text ends inside a list".to_owned() });
                }
            }
        }
    }

    /// `[fd00::]`: for YAML 1.2 a mapping from `fd00:` to nothing, for `kubectl`, and for whoever wrote it, an address.
    fn word_with_colon(&self, item: &Node, span: Span) -> Option<String> {
        let Value::Mapping(entries) = &item.value else { return None };
        let [(key, Node { value: Value::Null, .. })] = entries.as_slice() else { return None };
        let key = key.as_str()?;
        let after = self.text.get(span.byte_range()?.start..)?.strip_prefix(key)?.strip_prefix(':')?;
        after.starts_with([',', ']']).then(|| format!("{key}:"))
    }

    fn mapping(&mut self, parser: &mut Input<'_>, depth: usize) -> Result<Value, SyntaxError> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut places: HashMap<String, u32> = HashMap::new();
        let mut merged: Vec<(Node, Span)> = Vec::new();
        loop {
            let (event, span) = match next(parser)? {
                Some((Event::MappingEnd, _)) => break,
                Some(found) => found,
                None => {
                    return Err(SyntaxError {
                        line: 0,
                        column: 0,
                        message: "the text ends inside a mapping".to_owned(),
                    });
                }
            };
            let merges = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.key(parser, event, span, depth)?;
            let Some((event, value_span)) = next(parser)? else {
                return Err(error(span, "this key has no value".to_owned()));
            };
            let value = self.node(parser, event, value_span, depth + 1)?;
            if merges {
                merged.push((value, span));
                continue;
            }
            let name = key.as_str().unwrap_or_default();
            if let Some(first) = places.insert(name.to_owned(), key.line) {
                return Err(error(
                    span,
                    format!("the key `{name}` stands here a second time; the first is on line {first}"),
                ));
            }
            entries.push((key, value));
        }
        for (value, span) in merged {
            merge(value, span, &mut entries, &mut places)?;
        }
        Ok(Value::Mapping(entries))
    }

    fn key(&mut self, parser: &mut Input<'_>, event: Event<'_>, span: Span, depth: usize) -> Result<Node, SyntaxError> {
        let mut key = self.node(parser, event, span, depth + 1)?;
        key.value = match key.value {
            Value::String(text) => Value::String(text),
            Value::Integer(value) => Value::String(value.to_string()),
            Value::Unsigned(value) => Value::String(value.to_string()),
            Value::Bool(value) => Value::String(value.to_string()),
            Value::Float(_) | Value::Null | Value::Sequence(_) | Value::Mapping(_) => {
                return Err(error(span, "a key must be a word".to_owned()));
            }
        };
        if key.as_str().is_some_and(|name| name.len() > MAX_KEY) {
            return Err(error(span, format!("a key longer than {MAX_KEY} bytes")));
        }
        Ok(key)
    }

    fn count(&mut self, more: usize, span: Span) -> Result<(), SyntaxError> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(error(span, format!("more than {MAX_NODES} values in one document")));
        }
        Ok(())
    }
}

/// YAML 1.1's merge key `<<`: entries of other mappings, where this one has none of its own.
fn merge(
    value: Node,
    span: Span,
    entries: &mut Vec<(Node, Node)>,
    places: &mut HashMap<String, u32>,
) -> Result<(), SyntaxError> {
    match value.value {
        Value::Mapping(others) => {
            for (key, value) in others {
                let name = key.as_str().unwrap_or_default().to_owned();
                if let Entry::Vacant(place) = places.entry(name) {
                    place.insert(key.line);
                    entries.push((key, value));
                }
            }
            Ok(())
        }
        Value::Sequence(items) => items.into_iter().try_for_each(|item| merge(item, span, entries, places)),
        _ => Err(error(span, "`<<` takes a mapping or a list of mappings".to_owned())),
    }
}

fn next<'a>(parser: &mut Input<'a>) -> Result<Option<(Event<'a>, Span)>, SyntaxError> {
    loop {
        return match parser.next() {
            None => Ok(None),
            Some(Ok((Event::Anchor(..), _))) => continue,
            Some(Ok(found)) => Ok(Some(found)),
            Some(Err(failed)) => {
                let at = failed.marker();
                Err(SyntaxError { line: number(at.line()), column: number(at.col() + 1), message: reason(&failed) })
            }
        };
    }
}

/// The parser's words without its own position, which we print ourselves.
fn reason(failed: &granit_parser::ScanError) -> String {
    let text = failed.to_string();
    text.split(" at ").next().unwrap_or(&text).to_owned()
}

fn error(span: Span, message: String) -> SyntaxError {
    SyntaxError { line: number(span.start.line()), column: number(span.start.col() + 1), message }
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The YAML 1.1 core of what `kubectl` reads: `true`/`false`, numbers, null; everything else is text. `yes`, `no`, `on`
/// and `off` are text, as in YAML 1.2, because as booleans they surprise more people than they serve.
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let looks_numeric = text.bytes().next().is_some_and(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.'));
    if !looks_numeric {
        return Value::String(text.to_owned());
    }
    if let Some(value) = integer(text) {
        return value;
    }
    let float_shaped = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'));
    match text.parse::<f64>() {
        Ok(value) if float_shaped && value.is_finite() => Value::Float(value),
        _ => Value::String(text.to_owned()),
    }
}

fn integer(text: &str) -> Option<Value> {
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(Value::Integer);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok().map(Value::Integer);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // YAML 1.1's octal: file modes such as 0644.
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b < b'8') && !text.starts_with(['-', '+'])
    {
        return i64::from_str_radix(digits, 8).ok().map(Value::Integer);
    }
    text.parse::<i64>().map(Value::Integer).or_else(|_| text.parse::<u64>().map(Value::Unsigned)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_document_does_not_hide_the_next() {
        let found = documents("a: 1\n---\nb: [1, 2\n---\nc: 3\n");
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].is_ok() && found[1].is_err() && found[2].is_ok(), "{found:?}");
        assert_eq!(found[2].as_ref().expect("the third is fine").line, 5);
    }

    #[test]
    fn nodes_know_where_they_stand() {
        let document = documents("spec:\n  http:\n  - weight: 90\n").remove(0).expect("it is YAML");
        let http = document.get("spec").and_then(|spec| spec.get("http")).expect("it is there");
        let Value::Sequence(items) = &http.value else { panic!("a list") };
        let weight = items[0].get("weight").expect("it is there");
        assert_eq!((weight.line, weight.column, &weight.value), (3, 13, &Value::Integer(90)));
    }

    #[test]
    fn a_key_twice_is_an_error_that_names_both_lines() {
        let error = documents("a: 1\nb: 2\na: 3\n").remove(0).expect_err("twice");
        assert_eq!(error.line, 3);
        assert!(error.message.contains("`a`") && error.message.contains("line 1"), "{}", error.message);
    }

    #[test]
    fn aliases_may_not_explode() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = level - 1;
            text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", ")));
        }
        let error = documents(&text).remove(0).expect_err("10^12 nodes");
        assert!(error.message.contains("more than"), "{}", error.message);
    }

    #[test]
    fn an_address_that_ends_in_colons_is_text() {
        let document = documents("a: [fd00::, ::, 1.2.3.4]\nb:\n- c:\nd: [e: , f]\n").remove(0).expect("it is YAML");
        let json = document.to_json();
        assert_eq!(json["a"], serde_json::json!(["fd00::", "::", "1.2.3.4"]));
        assert_eq!(json["b"], serde_json::json!([{ "c": null }]));
        assert_eq!(json["d"], serde_json::json!([{ "e": null }, "f"]));
    }

    #[test]
    fn merge_keys_fill_gaps_and_overwrite_nothing() {
        let text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  b: 5\n  <<: [*x, *y]\n";
        let document = documents(text).remove(0).expect("it is YAML");
        assert_eq!(document.to_json()["z"], serde_json::json!({ "b": 5, "a": 1, "c": 4 }));
        assert!(documents("a:\n  <<: 1\n").remove(0).is_err());
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(documents(&text).remove(0).is_err());
    }

    #[test]
    fn scalars_read_as_kubectl_reads_them() {
        let cases = [
            ("12", Value::Integer(12)),
            ("0644", Value::Integer(420)),
            ("1.5", Value::Float(1.5)),
            ("1e3", Value::Float(1000.0)),
            ("true", Value::Bool(true)),
            ("yes", Value::String("yes".into())),
            ("1.20.3", Value::String("1.20.3".into())),
            ("10m", Value::String("10m".into())),
            ("~", Value::Null),
            ("08", Value::Integer(8)),
        ];
        for (text, expected) in cases {
            assert_eq!(plain_scalar(text), expected, "{text}");
        }
    }
}
