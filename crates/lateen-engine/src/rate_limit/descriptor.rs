//! `envoy.config.route.v3.RateLimit`: how a request is described to rate limits, as lists of keys and values.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::envoy::r#type::matcher::v3::AddressMatcher;
use envoy_types::pb::envoy::r#type::metadata::v3::MetadataKey;
use envoy_types::pb::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
use ipnet::IpNet;
use proto::rate_limit::action::meta_data::Source;
use proto::rate_limit::action::{ActionSpecifier, MetaData};

use crate::config::error::{At, refuse};
use crate::config::metadata::Value;
use crate::config::scalar::{bool_or, u32_or};
use crate::matching::{Field, HeaderMatcher, addresses};
use crate::message::RequestHead;
use crate::metadata::DynamicMetadata;
use crate::route::format::{Format, Operator};
use crate::route::query::{self, QueryMatcher};

/// Keys and values, in the order of the actions that made them.
pub type Descriptor = Vec<(Arc<str>, String)>;

/// What a description may tell of a request.
#[derive(Clone, Copy)]
pub struct Described<'a> {
    pub head: &'a RequestHead,
    /// The client, as far as forwarded addresses are trusted.
    pub remote: IpAddr,
    /// Where the request is routed to, if anywhere.
    pub cluster: Option<&'a str>,
    /// What filters said of it.
    pub metadata: &'a DynamicMetadata,
    /// What its route says.
    pub of_route: &'a DynamicMetadata,
    /// The cluster that this proxy belongs to (`Node.cluster`).
    pub own_cluster: &'a str,
    /// Writes what an operator stands for; nothing where there is nothing.
    pub value: &'a dyn Fn(&Operator, &mut Vec<u8>),
}

impl fmt::Debug for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { head, remote, cluster, .. } = self;
        f.debug_struct("Described").field("head", head).field("remote", remote).field("cluster", cluster).finish()
    }
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
    SourceCluster,
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
    Metadata {
        key: Arc<str>,
        of: Teller,
        path: MetadataPath,
        /// What is told where there is nothing; may be empty, and then nothing is.
        otherwise: String,
        skip_if_absent: bool,
    },
    AddressMatch {
        key: Arc<str>,
        value: Format,
        otherwise: String,
        networks: Vec<IpNet>,
        invert: bool,
    },
}

/// Whose metadata is told.
#[derive(Clone, Copy, Debug)]
enum Teller {
    Filters,
    Route,
}

/// To a value in metadata (`envoy.type.metadata.v3.MetadataKey`).
#[derive(Clone, Debug)]
struct MetadataPath {
    filter: String,
    first: String,
    rest: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Item(usize),
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
    /// `default_value` of three of them is for values that are formats, which needs a runtime switch that is off by default
    /// (`enable_formatter_for_ratelimit_action_descriptor_value`) and that nobody can set here.
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
                let read = |(index, matcher)| QueryMatcher::from_xds(matcher, &at.index("query_parameters", index));
                Some(Self::QueryMatch {
                    key: key_or(&matching.descriptor_key, "query_match"),
                    value: required(&matching.descriptor_value, &at.field("descriptor_value"))?,
                    expect: bool_or(matching.expect_match.as_ref(), true),
                    parameters: matching.query_parameters.iter().enumerate().map(read).collect::<Option<_>>()?,
                })
            }
            Some(ActionSpecifier::SourceCluster(_)) => Some(Self::SourceCluster),
            Some(ActionSpecifier::DynamicMetadata(dynamic)) => {
                let same = MetaData {
                    descriptor_key: dynamic.descriptor_key.clone(),
                    metadata_key: dynamic.metadata_key.clone(),
                    default_value: dynamic.default_value.clone(),
                    source: Source::Dynamic as i32,
                    skip_if_absent: false,
                };
                Self::metadata(&same, &at.field("dynamic_metadata"))
            }
            Some(ActionSpecifier::Metadata(metadata)) => Self::metadata(metadata, &at.field("metadata")),
            Some(ActionSpecifier::Extension(_)) => refused("extension", at),
            Some(ActionSpecifier::RemoteAddressMatch(matching)) => {
                let at = at.field("remote_address_match");
                let at_value = at.field("descriptor_value");
                let text = required(&matching.descriptor_value, &at_value)?;
                let (networks, invert) = networks(matching.address_matcher.as_ref(), &at.field("address_matcher"))?;
                Some(Self::AddressMatch {
                    key: key_or(&matching.descriptor_key, "remote_address_match"),
                    value: Format::parse(&text).map_err(|reason| at_value.error(reason)).ok()?,
                    otherwise: matching.default_value.clone(),
                    networks,
                    invert,
                })
            }
            None => {
                at.error("needs one of the kinds of action");
                None
            }
        }
    }

    fn metadata(metadata: &MetaData, at: &At) -> Option<Self> {
        Some(Self::Metadata {
            key: required(&metadata.descriptor_key, &at.field("descriptor_key"))?.into(),
            of: match metadata.source() {
                Source::Dynamic => Teller::Filters,
                Source::RouteEntry => Teller::Route,
                source @ (Source::ClusterEntry | Source::ClusterLocalityEntry) => {
                    at.field("source").error(format!("{} is not supported", source.as_str_name()));
                    return None;
                }
            },
            path: MetadataPath::from_xds(metadata.metadata_key.as_ref(), &at.field("metadata_key"))?,
            otherwise: metadata.default_value.clone(),
            skip_if_absent: metadata.skip_if_absent,
        })
    }

    fn on(&self, request: &Described<'_>) -> Said {
        match self {
            Self::SourceCluster => Said::Entry("source_cluster".into(), request.own_cluster.to_owned()),
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
                let holds = query::first_missed(parameters, request.head.query().unwrap_or_default()).is_none();
                matched(key, value, holds == *expect)
            }
            Self::Metadata { key, of, path, otherwise, skip_if_absent } => {
                let metadata = match of {
                    Teller::Filters => request.metadata,
                    Teller::Route => request.of_route,
                };
                let text = path.find(metadata).and_then(Value::as_str).filter(|text| !text.is_empty());
                let text = text.or_else(|| Some(otherwise).filter(|text| !text.is_empty()).map(String::as_str));
                found(key, text.map(str::to_owned), *skip_if_absent)
            }
            Self::AddressMatch { key, value, otherwise, networks, invert } => {
                if networks.iter().any(|network| addresses::holds(network, request.remote)) == *invert {
                    return Said::NoDescriptor;
                }
                let mut text = Vec::new();
                value.write(&mut text, request.value);
                let text = if text.is_empty() { Cow::from(otherwise) } else { String::from_utf8_lossy(&text) };
                found(key, Some(text.into_owned()).filter(|text| !text.is_empty()), false)
            }
        }
    }
}

impl MetadataPath {
    fn from_xds(key: Option<&MetadataKey>, at: &At) -> Option<Self> {
        let Some(key) = key else {
            at.error("is required");
            return None;
        };
        let filter = required(&key.key, &at.field("key"))?;
        let mut steps = key.path.iter().map(|segment| segment.segment.as_ref());
        let Some(Some(Segment::Key(first))) = steps.next() else {
            at.field("path").error("begins with the name of a field");
            return None;
        };
        let step = |segment: Option<&Segment>| match segment {
            Some(Segment::Key(name)) => Some(Step::Field(name.clone())),
            Some(Segment::Index(index)) => usize::try_from(*index).ok().map(Step::Item),
            None => {
                at.field("path").error("has an empty step");
                None
            }
        };
        Some(Self { filter, first: first.clone(), rest: steps.map(step).collect::<Option<_>>()? })
    }

    fn find<'a>(&self, metadata: &'a DynamicMetadata) -> Option<&'a Value> {
        let first = metadata.fields(&self.filter)?.get(&self.first)?;
        self.rest.iter().try_fold(first, |value, step| match (step, value) {
            (Step::Field(name), value) => value.get(name),
            (Step::Item(index), Value::List(items)) => items.get(*index),
            (Step::Item(_), _) => None,
        })
    }
}

/// Of which one has to hold the client, or, if inverted, none.
fn networks(matcher: Option<&AddressMatcher>, at: &At) -> Option<(Vec<IpNet>, bool)> {
    let Some(matcher) = matcher else {
        at.error("is required");
        return None;
    };
    let read = |(index, range): (usize, &_)| addresses::xds_network(range, &at.index("ranges", index));
    Some((matcher.ranges.iter().enumerate().map(read).collect::<Option<_>>()?, matcher.invert_match))
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
