//! Which requests an access logger tells of (`AccessLogFilter`).

use std::sync::Arc;

use envoy_types::pb::envoy::config::accesslog::v3 as proto;
use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use lateen_cel::{Attributes, Program};
use proto::access_log_filter::FilterSpecifier;
use proto::comparison_filter::Op;

use crate::config::error::{At, refuse};
use crate::config::scalar::{bool_or, is, open, type_name};
use crate::flags::{ResponseFlag, ResponseFlags};
use crate::matching::{HeaderMatcher, MetadataMatcher};
use crate::message::{Headers, RequestHead};
use crate::metadata::DynamicMetadata;

#[derive(Clone, Debug)]
pub enum Filter {
    /// Records made at these times, or at all others.
    Types {
        types: Vec<AccessLogType>,
        exclude: bool,
    },
    Status(Comparison),
    /// Milliseconds.
    Duration(Comparison),
    /// Requests that are traced.
    Traceable,
    /// Nothing here is a check of health by somebody else.
    NotHealthCheck,
    Header(HeaderMatcher),
    /// Any of these; any at all, if none are named.
    Flags(ResponseFlags),
    /// One of these, or none of them.
    Grpc {
        statuses: Vec<u32>,
        exclude: bool,
    },
    /// What filters said, and what holds where they said nothing.
    Metadata {
        matcher: MetadataMatcher,
        without: bool,
    },
    /// An expression that holds; one that has no value does not.
    Expression(Arc<Program>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    pub op: Compare,
    pub value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal,
    AtLeast,
    AtMost,
    NotEqual,
}

/// What filters look at.
pub struct Record<'a> {
    /// When the record is made.
    pub time: AccessLogType,
    pub status: u16,
    pub flags: ResponseFlags,
    pub milliseconds: u64,
    pub is_traced: bool,
    /// Of a request; empty for a connection.
    pub headers: &'a Headers,
    /// The whole head, for those who look at more of it than headers; none for a connection.
    pub head: &'a dyn Fn() -> Option<RequestHead>,
    /// Of an answer to a gRPC call.
    pub grpc_status: Option<u32>,
    pub metadata: &'a DynamicMetadata,
    /// All of it, for expressions.
    pub attributes: &'a dyn Attributes,
}

impl Comparison {
    fn holds(self, value: u64) -> bool {
        match self.op {
            Compare::Equal => value == self.value,
            Compare::AtLeast => value >= self.value,
            Compare::AtMost => value <= self.value,
            Compare::NotEqual => value != self.value,
        }
    }

    fn from_xds(comparison: Option<&proto::ComparisonFilter>, at: &At) -> Option<Self> {
        let at = at.field("comparison");
        let Some(comparison) = comparison else {
            at.error("is required");
            return None;
        };
        let Some(value) = &comparison.value else {
            at.field("value").error("is required");
            return None;
        };
        let op = match comparison.op() {
            Op::Eq => Compare::Equal,
            Op::Ge => Compare::AtLeast,
            Op::Le => Compare::AtMost,
            Op::Ne => Compare::NotEqual,
        };
        Some(Self { op, value: value.default_value.into() })
    }
}

impl Filter {
    pub fn takes(&self, record: &Record<'_>) -> bool {
        match self {
            Self::Types { types, exclude } => types.contains(&record.time) != *exclude,
            Self::Status(comparison) => comparison.holds(record.status.into()),
            Self::Duration(comparison) => comparison.holds(record.milliseconds),
            Self::Traceable => record.is_traced,
            Self::NotHealthCheck => true,
            Self::Header(matcher) if matcher.is_of_pseudo_header() => {
                (record.head)().is_some_and(|head| matcher.matches(&head))
            }
            Self::Header(matcher) => matcher.matches_response(record.headers),
            Self::Flags(wanted) if wanted.is_empty() => !record.flags.is_empty(),
            Self::Flags(wanted) => wanted.iter().any(|flag| record.flags.contains(flag)),
            Self::Grpc { statuses, exclude } => {
                record.grpc_status.is_some_and(|status| statuses.contains(&status)) != *exclude
            }
            Self::Metadata { matcher, without } => {
                if matcher.finds(record.metadata) {
                    matcher.matches(record.metadata)
                } else {
                    *without
                }
            }
            Self::Expression(program) => program.holds(record.attributes),
            Self::And(filters) => filters.iter().all(|filter| filter.takes(record)),
            Self::Or(filters) => filters.iter().any(|filter| filter.takes(record)),
        }
    }

    pub(super) fn from_xds(filter: &proto::AccessLogFilter, at: &At) -> Option<Self> {
        let all = |filters: &[proto::AccessLogFilter], name: &str| {
            let at = at.field(name);
            if filters.len() < 2 {
                at.field("filters").error("needs at least two");
            }
            let one = |(index, filter)| Self::from_xds(filter, &at.index("filters", index));
            filters.iter().enumerate().map(one).collect::<Option<_>>()
        };
        Some(match filter.filter_specifier.as_ref() {
            Some(FilterSpecifier::StatusCodeFilter(filter)) => {
                Self::Status(Comparison::from_xds(filter.comparison.as_ref(), &at.field("status_code_filter"))?)
            }
            Some(FilterSpecifier::DurationFilter(filter)) => {
                Self::Duration(Comparison::from_xds(filter.comparison.as_ref(), &at.field("duration_filter"))?)
            }
            Some(FilterSpecifier::NotHealthCheckFilter(_)) => Self::NotHealthCheck,
            Some(FilterSpecifier::TraceableFilter(_)) => Self::Traceable,
            Some(FilterSpecifier::AndFilter(filter)) => Self::And(all(&filter.filters, "and_filter")?),
            Some(FilterSpecifier::OrFilter(filter)) => Self::Or(all(&filter.filters, "or_filter")?),
            Some(FilterSpecifier::HeaderFilter(filter)) => {
                let at = at.field("header_filter.header");
                let Some(header) = &filter.header else {
                    at.error("is required");
                    return None;
                };
                Self::Header(HeaderMatcher::from_xds(header, &at)?)
            }
            Some(FilterSpecifier::ResponseFlagFilter(filter)) => {
                Self::Flags(flags(&filter.flags, &at.field("response_flag_filter")))
            }
            Some(FilterSpecifier::GrpcStatusFilter(filter)) => Self::Grpc {
                statuses: filter.statuses.iter().filter_map(|status| u32::try_from(*status).ok()).collect(),
                exclude: filter.exclude,
            },
            Some(FilterSpecifier::MetadataFilter(filter)) => {
                let at = at.field("metadata_filter.matcher");
                let Some(matcher) = &filter.matcher else {
                    at.error("is required");
                    return None;
                };
                Self::Metadata {
                    matcher: MetadataMatcher::from_xds(matcher, &at)?,
                    without: bool_or(filter.match_if_key_not_found.as_ref(), true),
                }
            }
            Some(FilterSpecifier::RuntimeFilter(_)) => {
                at.field("runtime_filter").error("is not supported: there is no runtime");
                return None;
            }
            Some(FilterSpecifier::LogTypeFilter(filter)) => {
                Self::Types { types: filter.types().collect(), exclude: filter.exclude }
            }
            Some(FilterSpecifier::ExtensionFilter(filter)) => {
                let at = at.field("extension_filter.typed_config");
                match &filter.config_type {
                    Some(proto::extension_filter::ConfigType::TypedConfig(any)) if is::<ExpressionFilter>(any) => {
                        Self::Expression(expression(&open(any, &at)?, &at)?)
                    }
                    Some(proto::extension_filter::ConfigType::TypedConfig(any)) => {
                        at.error(format!("{} is not supported", type_name(any)));
                        return None;
                    }
                    None => {
                        at.error("is required");
                        return None;
                    }
                }
            }
            None => {
                at.error("has no filter");
                return None;
            }
        })
    }
}

fn expression(filter: &ExpressionFilter, at: &At) -> Option<Arc<Program>> {
    refuse!(at, filter; cel_config);
    match Program::parse(&filter.expression) {
        Ok(program) => Some(Arc::new(program)),
        Err(error) => {
            at.field("expression").error(error);
            None
        }
    }
}

fn flags(names: &[String], at: &At) -> ResponseFlags {
    let mut flags = ResponseFlags::default();
    for (index, name) in names.iter().enumerate() {
        match ResponseFlag::parse(name) {
            Some(flag) => flags.insert(flag),
            None => at.index("flags", index).error(format!("`{name}` is no response flag")),
        }
    }
    flags
}
