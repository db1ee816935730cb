//! Where requests carry tokens: headers, query parameters, cookies.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};
use percent_encoding::percent_decode_str;

use crate::message::RequestHead;

/// The places in which some providers have their tokens, in the order in which they are looked at. A place may be several
/// providers', and each holds only tokens of their issuers.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// By name and prefix.
    headers: BTreeMap<(String, String), (HeaderName, Issuers)>,
    parameters: BTreeMap<String, Issuers>,
    cookies: BTreeMap<String, Issuers>,
}

/// Whose tokens are expected in a place; `None`: anybody's.
#[derive(Clone, Debug, Default)]
struct Issuers(Vec<Option<String>>);

impl Issuers {
    fn add(&mut self, issuer: &str) {
        self.0.push(Some(issuer).filter(|issuer| !issuer.is_empty()).map(str::to_owned));
    }

    fn hold(&self, issuer: &str) -> bool {
        self.0.iter().any(|known| known.as_deref().is_none_or(|known| known == issuer))
    }
}

/// A token, and where it was.
#[derive(Debug)]
pub(super) struct Carried<'a> {
    pub(super) token: String,
    place: Place<'a>,
    issuers: &'a Issuers,
}

#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Header(&'a HeaderName),
    Parameter(&'a str),
    /// A token in a cookie stays there, as in Envoy.
    Cookie,
}

impl Places {
    pub(super) fn header(&mut self, name: &HeaderName, prefix: &str, issuer: &str) {
        let place = self.headers.entry((name.as_str().to_owned(), prefix.to_owned()));
        place.or_insert_with(|| (name.clone(), Issuers::default())).1.add(issuer);
    }

    pub(super) fn parameter(&mut self, name: &str, issuer: &str) {
        self.parameters.entry(name.to_owned()).or_default().add(issuer);
    }

    pub(super) fn cookie(&mut self, name: &str, issuer: &str) {
        self.cookies.entry(name.to_owned()).or_default().add(issuer);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (key, (name, issuers)) in &other.headers {
            let place = self.headers.entry(key.clone());
            place.or_insert_with(|| (name.clone(), Issuers::default())).1.0.extend(issuers.0.iter().cloned());
        }
        for (name, issuers) in &other.parameters {
            self.parameters.entry(name.clone()).or_default().0.extend(issuers.0.iter().cloned());
        }
        for (name, issuers) in &other.cookies {
            self.cookies.entry(name.clone()).or_default().0.extend(issuers.0.iter().cloned());
        }
    }

    /// RFC 6750, sections 2.1 and 2.3.
    pub(super) fn usual(&mut self, issuer: &str) {
        self.header(&AUTHORIZATION, "Bearer ", issuer);
        self.parameter("access_token", issuer);
    }

    pub(super) fn extract(&self, head: &RequestHead) -> Vec<Carried<'_>> {
        let mut found = Vec::new();
        for ((_, prefix), (name, issuers)) in &self.headers {
            let values = head.headers.get_all(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            let mut values: Vec<Cow<'_, str>> = values.collect();
            // A header of which there may be one (RFC 9110, section 11.6.2): as one value, two are none, as in Envoy.
            if *name == AUTHORIZATION && values.len() > 1 {
                values = vec![values.join(",").into()];
            }
            for token in values.iter().filter_map(|value| behind(value, prefix)) {
                found.push(Carried { token, place: Place::Header(name), issuers });
            }
        }
        if !self.parameters.is_empty()
            && let Some(query) = head.query()
        {
            let parameters = parameters(query);
            for (name, issuers) in &self.parameters {
                if let Some((_, value)) = parameters.iter().find(|(known, _)| known == name) {
                    found.push(Carried { token: value.to_string(), place: Place::Parameter(name), issuers });
                }
            }
        }
        for (name, issuers) in &self.cookies {
            if let Some(token) = cookie(head, name) {
                found.push(Carried { token, place: Place::Cookie, issuers });
            }
        }
        found
    }
}

impl Carried<'_> {
    /// Whether a provider of this issuer has its tokens here.
    pub(super) fn may_be_of(&self, issuer: &str) -> bool {
        self.issuers.hold(issuer)
    }

    /// Takes the token out of the request.
    pub(super) fn remove(&self, head: &mut RequestHead) {
        match self.place {
            Place::Header(name) => drop(head.headers.remove(name)),
            Place::Parameter(name) => remove_parameter(head, name),
            Place::Cookie => {}
        }
    }
}

/// What stands behind the prefix, wherever that is: as in Envoy, from the first character on that a token may have.
fn behind(text: &str, prefix: &str) -> Option<String> {
    if prefix.is_empty() {
        return Some(text.to_owned());
    }
    let rest = &text[text.find(prefix)? + prefix.len()..];
    let start = rest.find(|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    Some(start.map_or_else(|| text.to_string(), |start| rest[start..].to_owned()))
}

/// Names and values, decoded.
fn parameters(query: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let decode = |text| percent_decode_str(text).decode_utf8_lossy();
    let pair =
        |pair: &str| pair.split_once('=').map_or((pair.len(), pair.len()), |(name, _)| (name.len(), name.len() + 1));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|text| {
            let (name, value) = pair(text);
            (decode(&text[..name]), decode(&text[value..]))
        })
        .collect()
}

/// What else the query says stays as it was written.
fn remove_parameter(head: &mut RequestHead, name: &str) {
    let target = head.target();
    let Some((path, query)) = target.split_once('?') else { return };
    let is_it =
        |pair: &&str| percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy() == name;
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_it(pair)).collect();
    let target = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    head.path = Bytes::from(target);
}

/// The first cookie of that name (RFC 6265, section 4.2.1), without quotes around it.
fn cookie(head: &RequestHead, name: &str) -> Option<String> {
    let values = head.headers.get_all(&COOKIE).filter_map(|value| value.to_str().ok());
    let mut cookies = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    let (_, value) = cookies.find(|(known, _)| known.trim() == name)?;
    let value = value.trim();
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value).to_owned())
}
