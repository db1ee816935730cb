//! What the service's answer means for a request.

use std::collections::BTreeMap;

use auth::check_response::HttpResponse;
use bytes::Bytes;
use core::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as auth;
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use http::header::{CONNECTION, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use prost::Message;

use super::{ExtAuthz, HttpService};
use crate::config::metadata::{Value, map};
use crate::flags::{LocalReply, ResponseFlag};
use crate::message::{Headers, RequestHead, ResponseHead, Scheme};
use crate::metadata::Fields;

/// Names of headers that the service takes away from the request, as an HTTP service tells them.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

#[derive(Debug)]
pub enum Answer {
    Allowed(Box<Changes>),
    Denied(Box<LocalReply>),
    /// It says itself that it failed.
    Failed(Failure),
    /// It wants what no message can have, and is held to what messages can have.
    Invalid,
}

/// What the service wants told of a failure of its own.
#[derive(Debug, Default)]
pub struct Failure {
    pub(super) status: Option<StatusCode>,
    pub(super) body: Bytes,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// What becomes of a request that passes, and of the answer to it.
#[derive(Debug, Default)]
pub struct Changes {
    request: Vec<Change<Target>>,
    remove: Vec<HeaderName>,
    set_query: Vec<(String, String)>,
    remove_query: Vec<String>,
    response: Vec<Change<HeaderName>>,
}

#[derive(Debug)]
struct Change<T> {
    on: T,
    value: HeaderValue,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Set,
    SetIfPresent,
    Add,
    AddIfAbsent,
    /// To the value that is there, behind a comma.
    Join,
}

/// What of a request changes.
#[derive(Debug)]
enum Target {
    Header(HeaderName),
    Authority,
    Path,
    Method,
    Scheme,
}

/// What a request's headers may come to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub count: usize,
    pub bytes: usize,
}

impl ExtAuthz {
    /// What a gRPC service answers, and what it wants said to filters behind.
    ///
    /// # Errors
    /// The bytes are no `CheckResponse`.
    pub fn grpc_answer(&self, answer: &[u8]) -> Result<(Answer, Fields), prost::DecodeError> {
        let answer = auth::CheckResponse::decode(answer)?;
        let of_ok = match &answer.http_response {
            Some(HttpResponse::OkResponse(ok)) => ok.dynamic_metadata.as_ref(),
            _ => None,
        };
        let metadata = of_ok.or(answer.dynamic_metadata.as_ref()).filter(|_| self.ingests_metadata);
        let metadata = metadata.map(map).unwrap_or_default();
        let allowed = answer.status.as_ref().is_none_or(|status| status.code == 0);
        let decided = match (allowed, answer.http_response) {
            (true, Some(HttpResponse::OkResponse(ok))) => self.allowed(&ok),
            (true, _) => Some(Answer::Allowed(Box::default())),
            (false, Some(HttpResponse::ErrorResponse(error))) => self.error_response(&error),
            (false, Some(HttpResponse::DeniedResponse(denied))) => self.denied_response(&denied),
            (false, _) => Some(self.denied(StatusCode::FORBIDDEN, Bytes::new(), Vec::new())),
        };
        Ok((decided.unwrap_or(Answer::Invalid), metadata))
    }

    fn allowed(&self, ok: &auth::OkHttpResponse) -> Option<Answer> {
        let changes = Changes {
            request: self.request_changes(&ok.headers)?,
            // A name that is none is the name of no header.
            remove: ok.headers_to_remove.iter().filter_map(|name| HeaderName::try_from(name.as_str()).ok()).collect(),
            set_query: ok.query_parameters_to_set.iter().map(|set| (set.key.clone(), set.value.clone())).collect(),
            remove_query: ok.query_parameters_to_remove.clone(),
            response: self.changes(&ok.response_headers_to_add, |name| HeaderName::try_from(name).ok(), how)?,
        };
        let encoded = |(key, value): &(String, String)| is_encoded(key) && is_encoded(value);
        // Whatever the configuration says, a query stays one.
        let (set, refused): (Vec<_>, Vec<_>) = changes.set_query.into_iter().partition(encoded);
        if self.validate_mutations && !refused.is_empty() {
            return None;
        }
        Some(Answer::Allowed(Box::new(Changes { set_query: set, ..changes })))
    }

    /// Of a request, and of denials, Envoy reads the older `append` and not what became of it. What is set is set before
    /// anything is joined.
    fn request_changes(&self, said: &[core::HeaderValueOption]) -> Option<Vec<Change<Target>>> {
        let mut changes =
            self.changes(said, Target::of, |option| Some(if appends(option) { How::Join } else { How::Set }))?;
        changes.sort_by_key(|change| change.how == How::Join);
        Some(changes)
    }

    /// None where one cannot be made, and the service is held to that; else those are left out.
    fn changes<T>(
        &self,
        said: &[core::HeaderValueOption],
        on: impl Fn(&str) -> Option<T>,
        how: impl Fn(&core::HeaderValueOption) -> Option<How>,
    ) -> Option<Vec<Change<T>>> {
        let mut changes = Vec::with_capacity(said.len());
        for option in said {
            let read = option.header.as_ref().and_then(|header| Some((on(&header.key)?, value(header)?)));
            match (read, how(option)) {
                (Some((on, value)), Some(how)) => changes.push(Change { on, value, how }),
                _ if self.validate_mutations => return None,
                _ => {}
            }
        }
        Some(changes)
    }

    fn denied_response(&self, denied: &auth::DeniedHttpResponse) -> Option<Answer> {
        let status = status(denied.status.as_ref()).unwrap_or(StatusCode::FORBIDDEN);
        let headers = self.headers(&denied.headers)?;
        Some(self.denied(status, denied.body.clone().into(), headers))
    }

    fn error_response(&self, error: &auth::DeniedHttpResponse) -> Option<Answer> {
        let headers = self.headers(&error.headers)?;
        Some(Answer::Failed(Failure {
            status: status(error.status.as_ref()),
            body: error.body.clone().into(),
            headers,
        }))
    }

    /// Of an answer of our own; see [`Self::changes`].
    fn headers(&self, said: &[core::HeaderValueOption]) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let said: Vec<_> = said.iter().filter(|option| !appends(option)).cloned().collect();
        let changes = self.changes(&said, |name| HeaderName::try_from(name).ok(), |_| Some(How::Add))?;
        Some(changes.into_iter().map(|change| (change.on, change.value)).collect())
    }

    fn denied(&self, status: StatusCode, body: Bytes, headers: Vec<(HeaderName, HeaderValue)>) -> Answer {
        let body = body.slice(..body.len().min(self.max_denied_body.unwrap_or(usize::MAX)));
        let mut reply = LocalReply::new(status, body, "ext_authz_denied");
        reply.headers = headers;
        Answer::Denied(Box::new(reply.flag(ResponseFlag::UnauthorizedExternalService)))
    }

    /// What an HTTP service answers: 200 lets the request pass, and every 5xx is a failure.
    pub fn http_answer(&self, service: &HttpService, head: ResponseHead, body: Bytes) -> (Answer, Fields) {
        if head.status.is_server_error() {
            return (Answer::Failed(Failure::default()), Fields::new());
        }
        let said = |name: &HeaderName| !HOP_BY_HOP.contains(name) && *name != TO_REMOVE;
        let text = |value: &HeaderValue| Value::String(String::from_utf8_lossy(value.as_bytes()).into_owned());
        let of_metadata = head.headers.iter().filter(|(name, _)| service.metadata.has(name.as_str()));
        let of_metadata = of_metadata.filter(|_| self.ingests_metadata);
        let metadata: Fields = of_metadata.map(|(name, value)| (name.to_string(), text(value))).collect();
        if head.status != StatusCode::OK {
            let client = |name: &HeaderName| service.client.as_ref().is_none_or(|client| client.has(name.as_str()));
            let told = head.headers.into_iter().filter(|(name, _)| said(name) && client(name) && *name != HOST);
            return (self.denied(head.status, body, told.collect()), metadata);
        }
        let mut changes = Changes::default();
        for name in head.headers.get_all(&TO_REMOVE).filter_map(|list| list.to_str().ok()) {
            changes.remove.extend(name.split(',').filter_map(|name| HeaderName::try_from(name.trim()).ok()));
        }
        let chosen = |names: &'_ super::Names, how: How| -> Vec<(HeaderName, HeaderValue, How)> {
            let chosen = head.headers.iter().filter(|(name, _)| said(name) && names.has(name.as_str()));
            chosen.map(|(name, value)| (name.clone(), value.clone(), how)).collect()
        };
        let of_request =
            chosen(&service.upstream, How::Set).into_iter().chain(chosen(&service.upstream_append, How::Add));
        changes.request =
            of_request.map(|(name, value, how)| Change { on: Target::Header(name), value, how }).collect();
        let of_answer = chosen(&service.client_on_success, How::Add).into_iter();
        changes.response = of_answer.map(|(on, value, how)| Change { on, value, how }).collect();
        (Answer::Allowed(Box::new(changes)), metadata)
    }
}

/// They belong to the service's connection.
const HOP_BY_HOP: [HeaderName; 5] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

fn status(said: Option<&HttpStatus>) -> Option<StatusCode> {
    let code = u16::try_from(said?.code).ok()?;
    // An interim status is no answer.
    StatusCode::from_u16(code).ok().filter(|status| status.as_u16() >= 200)
}

fn value(header: &core::HeaderValue) -> Option<HeaderValue> {
    let bytes = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    HeaderValue::from_bytes(bytes).ok()
}

fn appends(option: &core::HeaderValueOption) -> bool {
    option.append.as_ref().is_some_and(|append| append.value)
}

/// None where the service says what Envoy's API does not have.
fn how(option: &core::HeaderValueOption) -> Option<How> {
    match option.append.as_ref().map(|append| append.value) {
        Some(true) => return Some(How::Join),
        Some(false) => return Some(How::Set),
        None => {}
    }
    Some(match HeaderAppendAction::try_from(option.append_action).ok()? {
        HeaderAppendAction::AppendIfExistsOrAdd => How::Add,
        HeaderAppendAction::AddIfAbsent => How::AddIfAbsent,
        HeaderAppendAction::OverwriteIfExistsOrAdd => How::Set,
        HeaderAppendAction::OverwriteIfExists => How::SetIfPresent,
    })
}

fn apply(headers: &mut Headers, name: &HeaderName, value: HeaderValue, how: How) {
    let known = headers.get(name);
    match how {
        How::Set => headers.set(name.clone(), value),
        How::SetIfPresent if known.is_some() => headers.set(name.clone(), value),
        How::Add => headers.append(name.clone(), value),
        How::AddIfAbsent if known.is_none() => headers.append(name.clone(), value),
        How::Join => {
            let joined = known.map(|known| [known.as_bytes(), b",", value.as_bytes()].concat());
            if let Some(Ok(joined)) = joined.map(|joined| HeaderValue::from_bytes(&joined)) {
                headers.set(name.clone(), joined);
            }
        }
        How::SetIfPresent | How::AddIfAbsent => {}
    }
}

impl Target {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            ":authority" => Self::Authority,
            ":path" => Self::Path,
            ":method" => Self::Method,
            ":scheme" => Self::Scheme,
            _ => match HeaderName::try_from(name).ok()? {
                HOST => Self::Authority,
                name => Self::Header(name),
            },
        })
    }
}

impl Changes {
    /// Whether the request goes on otherwise than it came.
    pub fn are_any(&self) -> bool {
        !(self.request.is_empty()
            && self.remove.is_empty()
            && self.set_query.is_empty()
            && self.remove_query.is_empty())
    }

    /// Changes the request's head. What is said of the answer is left.
    ///
    /// # Errors
    /// The head would be larger than one may be.
    pub fn apply(&mut self, head: &mut RequestHead, limits: Limits) -> Result<(), TooLarge> {
        for Change { on, value, how } in self.request.drain(..) {
            match on {
                Target::Header(name) => apply(&mut head.headers, &name, value, how),
                // There is always one, so that adding one more means nothing.
                _ if matches!(how, How::Add | How::AddIfAbsent | How::Join) => {}
                Target::Authority => head.authority = Bytes::copy_from_slice(value.as_bytes()),
                Target::Path if is_path(value.as_bytes()) => head.path = Bytes::copy_from_slice(value.as_bytes()),
                Target::Method => {
                    head.method = Method::from_bytes(value.as_bytes()).unwrap_or_else(|_| head.method.clone())
                }
                Target::Scheme if value == "https" => head.scheme = Scheme::Https,
                Target::Scheme if value == "http" => head.scheme = Scheme::Http,
                Target::Path | Target::Scheme => {}
            }
        }
        for name in self.remove.iter().filter(|name| **name != HOST) {
            head.headers.remove(name);
        }
        if !self.set_query.is_empty() || !self.remove_query.is_empty() {
            head.path = self.with_query(head).into();
        }
        let names = 4 + head.headers.len();
        let bytes = head.headers.byte_len() + head.path.len() + head.authority.len();
        if names > limits.count || bytes > limits.bytes { Err(TooLarge) } else { Ok(()) }
    }

    /// Envoy's rule: parameters are sorted by their names, and each has an equals sign.
    fn with_query(&self, head: &RequestHead) -> String {
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let query = head.query().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.entry(name).or_default().push(value);
        }
        for (name, value) in &self.set_query {
            all.insert(name, vec![value]);
        }
        for name in &self.remove_query {
            all.remove(name.as_str());
        }
        let pairs = all.iter().flat_map(|(name, values)| values.iter().map(move |value| format!("{name}={value}")));
        let query = pairs.collect::<Vec<_>>().join("&");
        let path = head.path_only();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// Changes the head of the answer, whoever gives it.
    pub fn on_response(&self, headers: &mut Headers) {
        // What is added goes first, as in Envoy.
        let order = [How::Add, How::Join, How::Set, How::AddIfAbsent, How::SetIfPresent];
        for how in order {
            for change in self.response.iter().filter(|change| change.how == how) {
                let how = if how == How::Join { How::Add } else { how };
                apply(headers, &change.on, change.value.clone(), how);
            }
        }
    }

    pub fn concern_response(&self) -> bool {
        !self.response.is_empty()
    }
}

/// A request's head that is larger than one may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

fn is_path(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'/') && bytes.iter().all(u8::is_ascii_graphic)
}

/// What can stand in a query as it is.
fn is_encoded(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'&' | b'=' | b'"' | b'<' | b'>'))
}
