//! `envoy.config.route.v3.RateLimit`: how a request is described to rate limits, as lists of keys and values.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as proto;
use ipnet::IpNet;
use proto::rate_limit::action::ActionSpecifier;

use crate::config::error::{At, refuse};
use crate::config::scalar::{bool_or, u32_or};
use crate::matching::{Field, HeaderMatcher};
use crate::message::RequestHead;
use crate::route::query::{self, QueryMatcher};

/// Keys and values, in the order of the actions that made them.
pub type Descriptor = Vec<(Arc<str>, String)>;

/// What a description may tell of a request.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    pub head: &'a RequestHead,
    /// The client, as far as forwarded addresses are trusted.
    pub remote: IpAddr,
    /// Where the request is routed to, if anywhere.
    pub cluster: Option<&'a str>,
}

/// The `rate_limits` of a route or a virtual host.
#[derive(Clone, Debug, Default)]
pub struct Policy(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    stage: u32,
    actions: Vec<Action>,
}

#[derive(Clone, Debug)]
enum Action {
    DestinationCluster,
    RemoteAddress,
    MaskedRemoteAddress {
        v4: u8,
        v6: u8,
    },
    /// The same for every request.
    Fixed {
        key: Arc<str>,
        value: String,
    },
    Header {
        key: Arc<str>,
        source: Field,
        skip_if_absent: bool,
    },
    Query {
        key: Arc<str>,
        name: String,
        skip_if_absent: bool,
    },
    HeaderMatch {
        key: Arc<str>,
        value: String,
        expect: bool,
        headers: Vec<HeaderMatcher>,
    },
    QueryMatch {
        key: Arc<str>,
        value: String,
        expect: bool,
        parameters: Vec<QueryMatcher>,
    },
}

/// What an action adds.
enum Said {
    Entry(Arc<str>, String),
    Nothing,
    /// The whole descriptor is not made.
    NoDescriptor,
}

impl Policy {
    pub(crate) fn from_xds(limits: &[proto::RateLimit], name: &str, at: &At) -> Self {
        let read = |(index, limit)| Entry::from_xds(limit, &at.index(name, index));
        Self(limits.iter().enumerate().filter_map(read).flatten().collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the descriptors of one stage.
    pub fn describe(&self, stage: u32, request: &Described<'_>, out: &mut Vec<Descriptor>) {
        out.extend(self.0.iter().filter(|entry| entry.stage == stage).filter_map(|entry| entry.describe(request)));
    }
}

impl Entry {
    /// None inside where it says nothing: a `disable_key` names a runtime switch, and Envoy's local limit takes an entry
    /// that has one as switched off.
    fn from_xds(limit: &proto::RateLimit, at: &At) -> Option<Option<Self>> {
        refuse!(at, limit; limit, hits_addend, apply_on_stream_done, x_ratelimit_option);
        let stage = u32_or(limit.stage.as_ref(), 0);
        if stage > 10 {
            at.field("stage").error("must be from 0 to 10");
        }
        if limit.actions.is_empty() {
            at.field("actions").error("at least one is required");
        }
        let read = |(index, action)| Action::from_xds(action, &at.index("actions", index));
        let actions = limit.actions.iter().enumerate().map(read).collect::<Option<_>>()?;
        Some(Some(Self { stage, actions }).filter(|_| limit.disable_key.is_empty()))
    }

    fn describe(&self, request: &Described<'_>) -> Option<Descriptor> {
        let mut descriptor = Descriptor::with_capacity(self.actions.len());
        for action in &self.actions {
            match action.on(request) {
                Said::Entry(key, value) => descriptor.push((key, value)),
                Said::Nothing => {}
                Said::NoDescriptor => return None,
            }
        }
        Some(descriptor)
    }
}

fn key_or(key: &str, default: &str) -> Arc<str> {
    if key.is_empty() { default.into() } else { key.into() }
}

impl Action {
    fn from_xds(action: &proto::rate_limit::Action, at: &At) -> Option<Self> {
        match action.action_specifier.as_ref() {
            Some(ActionSpecifier::DestinationCluster(_)) => Some(Self::DestinationCluster),
            Some(ActionSpecifier::RemoteAddress(_)) => Some(Self::RemoteAddress),
            Some(ActionSpecifier::MaskedRemoteAddress(masked)) => {
                let at = at.field("masked_remote_address");
                Some(Self::MaskedRemoteAddress {
                    v4: mask(u32_or(masked.v4_prefix_mask_len.as_ref(), 32), 32, &at.field("v4_prefix_mask_len"))?,
                    v6: mask(u32_or(masked.v6_prefix_mask_len.as_ref(), 128), 128, &at.field("v6_prefix_mask_len"))?,
                })
            }
            Some(ActionSpecifier::GenericKey(generic)) => {
                let at = at.field("generic_key");
                refuse!(at, generic; default_value);
                let value = required(&generic.descriptor_value, &at.field("descriptor_value"))?;
                Some(Self::Fixed { key: key_or(&generic.descriptor_key, "generic_key"), value })
            }
            Some(ActionSpecifier::RequestHeaders(header)) => {
                let at = at.field("request_headers");
                Some(Self::Header {
                    key: required(&header.descriptor_key, &at.field("descriptor_key"))?.into(),
                    source: Field::named(&header.header_name, &at.field("header_name"))?,
                    skip_if_absent: header.skip_if_absent,
                })
            }
            Some(ActionSpecifier::QueryParameters(query)) => {
                let at = at.field("query_parameters");
                Some(Self::Query {
                    key: required(&query.descriptor_key, &at.field("descriptor_key"))?.into(),
                    name: required(&query.query_parameter_name, &at.field("query_parameter_name"))?,
                    skip_if_absent: query.skip_if_absent,
                })
            }
            Some(ActionSpecifier::HeaderValueMatch(matching)) => {
                let at = at.field("header_value_match");
                refuse!(at, matching; default_value);
                let read = |(index, matcher)| HeaderMatcher::from_xds(matcher, &at.index("headers", index));
                Some(Self::HeaderMatch {
                    key: key_or(&matching.descriptor_key, "header_match"),
                    value: required(&matching.descriptor_value, &at.field("descriptor_value"))?,
                    expect: bool_or(matching.expect_match.as_ref(), true),
                    headers: matching.headers.iter().enumerate().map(read).collect::<Option<_>>()?,
                })
            }
            Some(ActionSpecifier::QueryParameterValueMatch(matching)) => {
                let at = at.field("query_parameter_value_match");
                refuse!(at, matching; default_value);
                let read = |(index, matcher)| QueryMatcher::from_xds(matcher, &at.index("query_parameters", index));
                Some(Self::QueryMatch {
                    key: key_or(&matching.descriptor_key, "query_match"),
                    value: required(&matching.descriptor_value, &at.field("descriptor_value"))?,
                    expect: bool_or(matching.expect_match.as_ref(), true),
                    parameters: matching.query_parameters.iter().enumerate().map(read).collect::<Option<_>>()?,
                })
            }
            Some(ActionSpecifier::SourceCluster(_)) => refused("source_cluster", at),
            Some(ActionSpecifier::DynamicMetadata(_)) => refused("dynamic_metadata", at),
            Some(ActionSpecifier::Metadata(_)) => refused("metadata", at),
            Some(ActionSpecifier::Extension(_)) => refused("extension", at),
            Some(ActionSpecifier::RemoteAddressMatch(_)) => refused("remote_address_match", at),
            None => {
                at.error("needs one of the kinds of action");
                None
            }
        }
    }

    fn on(&self, request: &Described<'_>) -> Said {
        match self {
            Self::Fixed { key, value } => Said::Entry(Arc::clone(key), value.clone()),
            Self::DestinationCluster => match request.cluster {
                Some(cluster) => Said::Entry("destination_cluster".into(), cluster.to_owned()),
                None => Said::NoDescriptor,
            },
            Self::RemoteAddress => Said::Entry("remote_address".into(), request.remote.to_string()),
            Self::MaskedRemoteAddress { v4, v6 } => {
                let length = if request.remote.is_ipv4() { *v4 } else { *v6 };
                match IpNet::new(request.remote, length) {
                    Ok(net) => Said::Entry("masked_remote_address".into(), net.trunc().to_string()),
                    Err(_) => Said::NoDescriptor,
                }
            }
            Self::Header { key, source, skip_if_absent } => {
                found(key, source.first(request.head).map(Cow::into_owned), *skip_if_absent)
            }
            Self::Query { key, name, skip_if_absent } => {
                let query = request.head.query().unwrap_or_default();
                let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
                let value =
                    pairs.find(|(known, _)| decode(known) == *name).map(|(_, value)| decode(value).into_owned());
                found(key, value, *skip_if_absent)
            }
            Self::HeaderMatch { key, value, expect, headers } => {
                matched(key, value, headers.iter().all(|matcher| matcher.matches(request.head)) == *expect)
            }
            Self::QueryMatch { key, value, expect, parameters } => {
                let holds = query::all_match(parameters, request.head.query().unwrap_or_default());
                matched(key, value, holds == *expect)
            }
        }
    }
}

fn matched(key: &Arc<str>, value: &str, holds: bool) -> Said {
    if holds { Said::Entry(Arc::clone(key), value.to_owned()) } else { Said::NoDescriptor }
}

fn found(key: &Arc<str>, value: Option<String>, skip_if_absent: bool) -> Said {
    match value {
        Some(value) => Said::Entry(Arc::clone(key), value),
        None if skip_if_absent => Said::Nothing,
        None => Said::NoDescriptor,
    }
}

fn refused(name: &str, at: &At) -> Option<Action> {
    at.refuse_if(name, true);
    None
}

fn required(text: &str, at: &At) -> Option<String> {
    if text.is_empty() {
        at.error("is required");
        return None;
    }
    Some(text.to_owned())
}

fn mask(length: u32, most: u8, at: &At) -> Option<u8> {
    let length = u8::try_from(length).ok().filter(|length| *length <= most);
    if length.is_none() {
        at.error(format!("must be from 0 to {most}"));
    }
    length
}
