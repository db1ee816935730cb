//! YAML, of which JSON is a part, as a tree that knows its lines. What a scalar means is left to whoever knows what is wanted
//! at its place. Depth, and the number of values with aliases expanded, are bounded.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::failure::{Failure, Place};

/// Deeper nesting than this is refused, as in protobuf.
pub(super) const MAX_DEPTH: usize = 100;
/// A text with more values than this, aliases expanded, is refused.
const MAX_NODES: usize = 500_000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub(super) place: Place,
    pub(super) value: Value<'t>,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'t> {
    /// A word without quotes: a number, a boolean, nothing, or a text.
    Plain(Cow<'t, str>),
    Text(Cow<'t, str>),
    List(Vec<Node<'t>>),
    /// In the order of the text, each key once.
    Map(Vec<(Key<'t>, Node<'t>)>),
}

#[derive(Clone, Debug)]
pub(super) struct Key<'t> {
    pub(super) place: Place,
    pub(super) name: Cow<'t, str>,
}

impl<'t> Node<'t> {
    /// A tree without places.
    pub(super) fn from_json(json: &'t serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Plain("null".into()),
            Json::Bool(value) => Value::Plain(value.to_string().into()),
            Json::Number(number) => Value::Plain(number.to_string().into()),
            Json::String(text) => Value::Text(text.into()),
            Json::Array(items) => Value::List(items.iter().map(Self::from_json).collect()),
            Json::Object(entries) => {
                let key = |name: &'t String| Key { place: Place::default(), name: name.into() };
                Value::Map(entries.iter().map(|(name, value)| (key(name), Self::from_json(value))).collect())
            }
        };
        Self { place: Place::default(), value }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Plain(text) if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// For messages about something else that was wanted.
    pub(super) fn kind(&self) -> String {
        match &self.value {
            _ if self.is_null() => "nothing".to_owned(),
            Value::Plain(text) | Value::Text(text) => format!("\"{}\"", shortened(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// So much of a text as fits a message.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// The one document of a text.
pub(super) fn document(text: &str) -> Result<Node<'_>, Failure> {
    // Whether comments are events depends on features, which others that use the parser may turn on.
    let parser = Parser::new_from_str_with_options(text, granit_parser::options! { emit_comments: false });
    let mut builder = Builder { parser, anchors: HashMap::new(), nodes: 0 };
    let mut found = None;
    while let Some((event, place)) = builder.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd | Event::StreamEnd => {}
            _ if found.is_some() => return Err(Failure::at(place, "a second document; there may be one")),
            event => found = Some(builder.node(event, place, 0)?),
        }
    }
    found.ok_or_else(|| Failure::at(Place::default(), "the text is empty"))
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// Anchored nodes by their number, with how many nodes each has.
    anchors: HashMap<usize, (Node<'t>, usize)>,
    nodes: usize,
}

impl<'t> Builder<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Place)>, Failure> {
        match self.parser.next() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, place(span)))),
            Some(Err(failed)) => {
                let at = failed.marker();
                // The parser's words without its own position.
                let text = failed.to_string();
                let reason = text.split(" at ").next().unwrap_or(&text);
                Err(Failure::at(Place::new(at.line(), at.col() + 1), reason))
            }
        }
    }

    /// The event after one that begins something.
    fn inside(&mut self, begun: Place) -> Result<(Event<'t>, Place), Failure> {
        self.next()?.ok_or_else(|| Failure::at(begun, "the text ends inside of what begins here"))
    }

    fn node(&mut self, event: Event<'t>, place: Place, depth: usize) -> Result<Node<'t>, Failure> {
        if depth > MAX_DEPTH {
            return Err(Failure::at(place, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.count(1, place)?;
        let before = self.nodes;
        let (value, anchor) = match event {
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
                    return Err(Failure::at(place, "this alias names an anchor around itself"));
                };
                self.count(size, place)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !tag.is_some_and(|tag| makes_text(&tag));
                (if plain { Value::Plain(text) } else { Value::Text(text) }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list(place, depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map(place, depth)?, anchor),
            other => return Err(Failure::at(place, format!("unexpected {other:?}"))),
        };
        let node = Node { place, value };
        if anchor != 0 {
            // The copy that aliases are made from takes room too.
            let size = self.nodes - before + 1;
            self.count(size, place)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn list(&mut self, begun: Place, depth: usize) -> Result<Value<'t>, Failure> {
        let mut items = Vec::new();
        loop {
            match self.inside(begun)? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, place) => items.push(self.node(event, place, depth + 1)?),
            }
        }
    }

    fn map(&mut self, begun: Place, depth: usize) -> Result<Value<'t>, Failure> {
        let mut entries: Vec<(Key<'t>, Node<'t>)> = Vec::new();
        let mut places: HashMap<Cow<'t, str>, Place> = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, place) = match self.inside(begun)? {
                (Event::MappingEnd, _) => break,
                found => found,
            };
            let merges = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let name = match self.node(event, place, depth + 1)?.value {
                Value::Plain(name) | Value::Text(name) => name,
                Value::List(_) | Value::Map(_) => return Err(Failure::at(place, "a key must be a word")),
            };
            let (event, value_place) = self.inside(begun)?;
            let value = self.node(event, value_place, depth + 1)?;
            if merges {
                merged.push(value);
                continue;
            }
            if let Some(first) = places.insert(name.clone(), place) {
                let message = format!("the key `{name}` stands here a second time; the first is on {first}");
                return Err(Failure::at(place, message));
            }
            entries.push((Key { place, name }, value));
        }
        for value in merged {
            merge(value, &mut entries, &mut places)?;
        }
        Ok(Value::Map(entries))
    }

    fn count(&mut self, more: usize, place: Place) -> Result<(), Failure> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(Failure::at(place, format!("more than {MAX_NODES} values")));
        }
        Ok(())
    }
}

/// `!` and `!!str`.
fn makes_text(tag: &Tag) -> bool {
    tag.core_suffix() == Some("str") || (tag.handle().is_empty() && tag.suffix() == "!")
}

/// YAML 1.1's merge key `<<`: entries of other mappings, where this one has none of its own.
fn merge<'t>(
    from: Node<'t>,
    entries: &mut Vec<(Key<'t>, Node<'t>)>,
    places: &mut HashMap<Cow<'t, str>, Place>,
) -> Result<(), Failure> {
    match from.value {
        Value::Map(others) => {
            for (key, value) in others {
                if !places.contains_key(&key.name) {
                    places.insert(key.name.clone(), key.place);
                    entries.push((key, value));
                }
            }
            Ok(())
        }
        Value::List(items) => items.into_iter().try_for_each(|item| merge(item, entries, places)),
        Value::Plain(_) | Value::Text(_) => Err(Failure::at(from.place, "`<<` takes a mapping or a list of mappings")),
    }
}

fn place(span: Span) -> Place {
    Place::new(span.start.line(), span.start.col() + 1)
}
