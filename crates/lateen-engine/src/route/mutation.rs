//! Header mutations of routes: add, overwrite, remove, with `%OPERATORS%` in the values.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction};
use http::{HeaderName, HeaderValue};

use super::format::{Format, Operator};
use crate::config::error::At;
use crate::message::Headers;

/// Mutations of the levels that say any (route, virtual host, table), one level after the other.
#[derive(Clone, Debug, Default)]
pub struct Mutations(Vec<Level>);

#[derive(Clone, Debug)]
struct Level {
    remove: Vec<HeaderName>,
    add: Vec<Addition>,
}

#[derive(Clone, Debug)]
struct Addition {
    name: Name,
    value: Value,
    action: HeaderAppendAction,
    keep_empty: bool,
}

#[derive(Clone, Debug)]
enum Name {
    Header(HeaderName),
    /// `:authority` or `host`: rewrites the request's host.
    Authority,
}

#[derive(Clone, Debug)]
enum Value {
    Fixed(HeaderValue),
    Format(Format),
}

impl Mutations {
    /// `request_headers_to_add` and `request_headers_to_remove`.
    pub(crate) fn of_request(add: &[HeaderValueOption], remove: &[String], at: &At) -> Self {
        Self::from_xds(add, remove, ("request_headers_to_add", "request_headers_to_remove"), at)
    }

    /// `response_headers_to_add` and `response_headers_to_remove`.
    pub(crate) fn of_response(add: &[HeaderValueOption], remove: &[String], at: &At) -> Self {
        Self::from_xds(add, remove, ("response_headers_to_add", "response_headers_to_remove"), at)
    }

    fn from_xds(add: &[HeaderValueOption], remove: &[String], names: (&str, &str), at: &At) -> Self {
        let mut level = Level { remove: Vec::with_capacity(remove.len()), add: Vec::with_capacity(add.len()) };
        for (index, name) in remove.iter().enumerate() {
            match HeaderName::try_from(name.as_str()) {
                Ok(name) if name != http::header::HOST => level.remove.push(name),
                _ => at.index(names.1, index).error(format!("`{name}` cannot be removed")),
            }
        }
        for (index, option) in add.iter().enumerate() {
            level.add.extend(Addition::from_xds(option, &at.index(names.0, index)));
        }
        Self(if level.remove.is_empty() && level.add.is_empty() { Vec::new() } else { vec![level] })
    }

    /// One after the other.
    pub(crate) fn chain(parts: &[&Self]) -> Self {
        Self(parts.iter().flat_map(|part| part.0.iter().cloned()).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies them; `value` appends what an operator stands for. For a request, `authority` is its host.
    pub fn apply(
        &self,
        headers: &mut Headers,
        mut authority: Option<&mut Bytes>,
        mut value: impl FnMut(&Operator, &mut Vec<u8>),
    ) {
        for level in &self.0 {
            level.apply(headers, authority.as_deref_mut(), &mut value);
        }
    }
}

impl Level {
    /// Envoy's order within a level: what is removed goes first; then whether a header is there is looked up for all
    /// additions; then what overwrites is set, and last what is appended is appended, whatever the order of the list.
    fn apply(
        &self,
        headers: &mut Headers,
        mut authority: Option<&mut Bytes>,
        value: &mut impl FnMut(&Operator, &mut Vec<u8>),
    ) {
        for name in &self.remove {
            headers.remove(name);
        }
        let mut line = Vec::new();
        let mut appended = Vec::new();
        let mut set = Vec::new();
        for addition in &self.add {
            let computed = addition.value.compute(&mut line, value);
            let Some(value) = computed.filter(|value| addition.keep_empty || !value.is_empty()) else { continue };
            let Name::Header(name) = &addition.name else {
                if let Some(authority) = authority.as_deref_mut() {
                    *authority = Bytes::copy_from_slice(value.as_bytes());
                }
                continue;
            };
            match addition.action {
                HeaderAppendAction::AppendIfExistsOrAdd => appended.push((name, value)),
                HeaderAppendAction::AddIfAbsent if !headers.contains(name) => appended.push((name, value)),
                HeaderAppendAction::OverwriteIfExistsOrAdd => set.push((name, value)),
                HeaderAppendAction::OverwriteIfExists if headers.contains(name) => set.push((name, value)),
                HeaderAppendAction::AddIfAbsent | HeaderAppendAction::OverwriteIfExists => {}
            }
        }
        for (name, value) in set {
            headers.set(name.clone(), value);
        }
        for (name, value) in appended {
            headers.append(name.clone(), value);
        }
    }
}

impl Addition {
    fn from_xds(option: &HeaderValueOption, at: &At) -> Option<Self> {
        let header = option.header.as_ref()?;
        let name = match header.key.as_str() {
            ":authority" => Name::Authority,
            key if key.eq_ignore_ascii_case("host") => Name::Authority,
            key => match HeaderName::try_from(key) {
                Ok(name) => Name::Header(name),
                Err(_) => {
                    at.field("header.key").error(format!("`{key}` cannot be set"));
                    return None;
                }
            },
        };
        let text = if header.value.is_empty() {
            String::from_utf8_lossy(&header.raw_value).into_owned()
        } else {
            header.value.clone()
        };
        let format = Format::parse(&text).map_err(|reason| at.field("header.value").error(reason)).ok()?;
        let value = match format.0.as_slice() {
            [] => Value::Fixed(HeaderValue::from_static("")),
            [super::format::Piece::Text(text)] => match HeaderValue::from_str(text) {
                Ok(value) => Value::Fixed(value),
                Err(_) => {
                    at.field("header.value").error("cannot stand in a header");
                    return None;
                }
            },
            _ => Value::Format(format),
        };
        let action = match option.append.as_ref().map(|append| append.value) {
            Some(false) => HeaderAppendAction::OverwriteIfExistsOrAdd,
            Some(true) => HeaderAppendAction::AppendIfExistsOrAdd,
            None => option.append_action(),
        };
        Some(Self { name, value, action, keep_empty: option.keep_empty_value })
    }
}

impl Value {
    /// None where the result cannot stand in a header.
    fn compute(&self, line: &mut Vec<u8>, value: &mut impl FnMut(&Operator, &mut Vec<u8>)) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Format(format) => {
                line.clear();
                format.write(line, value);
                HeaderValue::from_bytes(line).ok()
            }
        }
    }
}
