//! `envoy.filters.http.local_ratelimit`: so many requests a second through this proxy, for all requests together and for
//! those of each description.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as common;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3 as proto;
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};

use super::{Share, fraction};
use crate::config::error::{At, refuse};
use crate::config::scalar::{bool_or, u32_or};
use crate::flags::{LocalReply, ResponseFlag};
use crate::rate_limit::bucket::{Bucket, Shape};
use crate::rate_limit::descriptor::{Described, Descriptor, Policy};
use crate::route::{Mutations, OfHost, RateLimits};

pub(super) const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub(super) const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(super) const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

#[derive(Debug)]
pub struct LocalRateLimit {
    /// Of the counters.
    pub stat_prefix: Arc<str>,
    /// For answers to requests that are refused.
    pub response_headers: Mutations,
    /// For requests over the limit that are let through all the same.
    pub request_headers: Mutations,
    status: StatusCode,
    grpc_status: Option<u16>,
    enabled: Share,
    enforced: Share,
    /// For all requests together.
    all: Option<Arc<Bucket>>,
    limits: Vec<Limit>,
    /// `all` counts beside the limits that apply, not only where none does.
    always_all: bool,
    stage: u32,
    of_host: OfHost,
    /// Describes requests in place of what their routes say.
    policy: Policy,
    tells_quota: bool,
    tells_when: bool,
}

/// The limit of one description.
#[derive(Debug)]
struct Limit {
    /// No value: any, each with a bucket of its own.
    entries: Vec<(String, Option<String>)>,
    buckets: Buckets,
}

#[derive(Debug)]
enum Buckets {
    One(Arc<Bucket>),
    PerValue(PerValue),
}

/// Buckets made as values come, so many at most: the one that was not asked for longest makes room.
#[derive(Debug)]
struct PerValue {
    shape: Shape,
    most: usize,
    known: Mutex<Known>,
}

/// Whoever sends values chooses how many there are: none of this takes longer the more are known.
#[derive(Debug, Default)]
struct Known {
    /// Counts the requests that asked.
    asked: u64,
    /// With the last request that asked.
    buckets: HashMap<Values, (u64, Arc<Bucket>), foldhash::fast::RandomState>,
    /// By that request.
    order: BTreeMap<u64, Values>,
}

type Values = Arc<[String]>;

/// What a limit says to a request.
#[derive(Debug)]
pub struct Decision {
    pub outcome: Outcome,
    /// To be told with the answer, whoever gives it.
    pub quota: Option<Quota>,
}

#[derive(Debug)]
pub enum Outcome {
    Allowed,
    /// Over the limit, and let through.
    NotEnforced,
    Refused(Box<LocalReply>),
}

/// The `x-ratelimit-…` headers, where they are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    limit: u32,
    remaining: u32,
    reset: u64,
}

impl Quota {
    fn of(bucket: &Bucket, now: Instant) -> Self {
        Self { limit: bucket.shape().size, remaining: bucket.remaining(now), reset: seconds(bucket.until_next(now)) }
    }

    pub fn headers(&self) -> [(HeaderName, HeaderValue); 3] {
        [(LIMIT, self.limit.into()), (REMAINING, self.remaining.into()), (RESET, self.reset.into())]
    }
}

/// Rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl LocalRateLimit {
    pub(crate) fn from_xds(config: &proto::LocalRateLimit, of_route: bool, at: &At) -> Option<Self> {
        refuse!(at, config; local_rate_limit_per_downstream_connection, local_cluster_rate_limit);
        if config.stat_prefix.is_empty() {
            at.field("stat_prefix").error("is required");
        }
        if config.stage > 10 {
            at.field("stage").error("must be from 0 to 10");
        }
        let all = match &config.token_bucket {
            Some(bucket) => Some(Arc::new(Bucket::new(Shape::from_xds(bucket, &at.field("token_bucket"))?))),
            None if of_route => {
                at.field("token_bucket").error("is required for a route or virtual host");
                return None;
            }
            None => None,
        };
        let most = u32_or(config.max_dynamic_descriptors.as_ref(), 20);
        if most == 0 {
            at.field("max_dynamic_descriptors").error("must be at least 1");
        }
        Some(Self {
            stat_prefix: config.stat_prefix.as_str().into(),
            response_headers: Mutations::of_response(&config.response_headers_to_add, &[], at),
            request_headers: Mutations::of_request(&config.request_headers_to_add_when_not_enforced, &[], at),
            status: error_status(config.status.as_ref(), StatusCode::TOO_MANY_REQUESTS),
            grpc_status: config.rate_limited_as_resource_exhausted.then_some(8),
            enabled: share(config.filter_enabled.as_ref()),
            enforced: share(config.filter_enforced.as_ref()),
            all,
            limits: limits(&config.descriptors, most as usize, at)?,
            always_all: bool_or(config.always_consume_default_token_bucket.as_ref(), true),
            stage: config.stage,
            of_host: match config.vh_rate_limits() {
                common::VhRateLimitsOptions::Override => OfHost::Otherwise,
                common::VhRateLimitsOptions::Include => OfHost::Include,
                common::VhRateLimitsOptions::Ignore => OfHost::Ignore,
            },
            policy: Policy::from_xds(&config.rate_limits, "rate_limits", at),
            tells_quota: config.enable_x_ratelimit_headers() == common::XRateLimitHeadersRfcVersion::DraftVersion03,
            tells_when: config.enable_retry_after_header,
        })
    }

    /// Takes the tokens of a request, whose route says `said`. None for one that the filter does not look at.
    pub fn decide(
        &self,
        request: &Described<'_>,
        said: Option<&RateLimits>,
        now: Instant,
        random: u64,
    ) -> Option<Decision> {
        if !self.enabled.draws(random) {
            return None;
        }
        let (allowed, bucket) = self.take(&self.describe(request, said), now);
        let quota = bucket.as_ref().filter(|_| self.tells_quota).map(|bucket| Quota::of(bucket, now));
        let outcome = if allowed {
            Outcome::Allowed
        } else if self.enforced.draws(random.rotate_left(32)) {
            Outcome::Refused(Box::new(self.refusal(bucket.as_deref(), now)))
        } else {
            Outcome::NotEnforced
        };
        Some(Decision { outcome, quota })
    }

    fn refusal(&self, bucket: Option<&Bucket>, now: Instant) -> LocalReply {
        let mut reply =
            LocalReply::new(self.status, "local_rate_limited", "local_rate_limited").flag(ResponseFlag::RateLimited);
        reply.grpc_status = self.grpc_status;
        if let Some(bucket) = bucket
            && self.tells_when
            && self.status == StatusCode::TOO_MANY_REQUESTS
        {
            reply.headers.push((RETRY_AFTER, seconds(bucket.until_next(now)).max(1).into()));
        }
        reply
    }

    fn describe(&self, request: &Described<'_>, said: Option<&RateLimits>) -> Vec<Descriptor> {
        let mut out = Vec::new();
        if self.limits.is_empty() {
            return out;
        }
        if self.policy.is_empty() {
            return said.map_or(out, |said| said.describe(self.stage, self.of_host, request));
        }
        self.policy.describe(0, request, &mut out);
        out
    }

    /// Whether there were tokens, and the bucket to tell the client of. The slowest limit comes first: who is refused there
    /// takes nothing from the others.
    fn take(&self, descriptors: &[Descriptor], now: Instant) -> (bool, Option<Arc<Bucket>>) {
        let mut matched: Vec<Arc<Bucket>> =
            descriptors.iter().filter_map(|descriptor| self.bucket_of(descriptor)).collect();
        matched.sort_by_key(|bucket| std::cmp::Reverse(bucket.shape().cost));
        if let Some(empty) = matched.iter().find(|bucket| !bucket.take(now)) {
            return (false, Some(Arc::clone(empty)));
        }
        let first = matched.into_iter().next();
        if let Some(all) = &self.all
            && (first.is_none() || self.always_all)
            && !all.take(now)
        {
            return (false, Some(Arc::clone(all)));
        }
        (true, first.or_else(|| self.all.clone()))
    }

    /// A limit that names all values goes before those for any.
    fn bucket_of(&self, descriptor: &Descriptor) -> Option<Arc<Bucket>> {
        let mut fitting = self.limits.iter().filter(|limit| limit.fits(descriptor));
        let first = fitting.next()?;
        let limit = if first.is_exact() { first } else { fitting.find(|limit| limit.is_exact()).unwrap_or(first) };
        Some(match &limit.buckets {
            Buckets::One(bucket) => Arc::clone(bucket),
            Buckets::PerValue(buckets) => buckets.of(limit.free_values(descriptor)),
        })
    }
}

impl Limit {
    fn fits(&self, descriptor: &Descriptor) -> bool {
        self.entries.len() == descriptor.len()
            && self.entries.iter().zip(descriptor).all(|((key, wanted), (known, value))| {
                **known == **key && wanted.as_ref().is_none_or(|wanted| wanted == value)
            })
    }

    fn is_exact(&self) -> bool {
        matches!(self.buckets, Buckets::One(_))
    }

    fn free_values(&self, descriptor: &Descriptor) -> Vec<String> {
        let pairs = self.entries.iter().zip(descriptor);
        pairs.filter(|((_, wanted), _)| wanted.is_none()).map(|(_, (_, value))| value.clone()).collect()
    }
}

impl PerValue {
    fn of(&self, values: Vec<String>) -> Arc<Bucket> {
        // Nothing that can panic runs under the lock, and the map is whole between any two steps.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { asked, buckets, order } = &mut *known;
        *asked += 1;
        if let Some((last, bucket)) = buckets.get_mut(values.as_slice()) {
            if let Some(values) = order.remove(last) {
                order.insert(*asked, values);
            }
            *last = *asked;
            return Arc::clone(bucket);
        }
        if buckets.len() >= self.most
            && let Some((_, oldest)) = order.pop_first()
        {
            buckets.remove(&oldest);
        }
        let (values, bucket) = (Values::from(values), Arc::new(Bucket::new(self.shape)));
        order.insert(*asked, Arc::clone(&values));
        buckets.insert(values, (*asked, Arc::clone(&bucket)));
        bucket
    }
}

fn limits(descriptors: &[common::LocalRateLimitDescriptor], most: usize, at: &At) -> Option<Vec<Limit>> {
    let mut limits: Vec<Limit> = Vec::with_capacity(descriptors.len());
    for (index, descriptor) in descriptors.iter().enumerate() {
        let at = at.index("descriptors", index);
        refuse!(at, descriptor; shadow_mode);
        let Some(bucket) = &descriptor.token_bucket else {
            at.field("token_bucket").error("is required");
            return None;
        };
        let shape = Shape::from_xds(bucket, &at.field("token_bucket"))?;
        let entry = |entry: &common::rate_limit_descriptor::Entry| {
            (entry.key.clone(), Some(entry.value.clone()).filter(|value| !value.is_empty()))
        };
        let entries: Vec<_> = descriptor.entries.iter().map(entry).collect();
        if entries.is_empty() || entries.iter().any(|(key, _)| key.is_empty()) {
            at.field("entries").error("at least one is required, each with a key");
        }
        if limits.iter().any(|known| known.entries == entries) {
            at.error("is there twice");
        }
        let buckets = if entries.iter().all(|(_, value)| value.is_some()) {
            Buckets::One(Arc::new(Bucket::new(shape)))
        } else {
            Buckets::PerValue(PerValue { shape, most, known: Mutex::default() })
        };
        limits.push(Limit { entries, buckets });
    }
    Some(limits)
}

/// Statuses that mean no error are not taken.
pub(super) fn error_status(asked: Option<&HttpStatus>, otherwise: StatusCode) -> StatusCode {
    let asked = asked.and_then(|status| u16::try_from(status.code).ok());
    asked.filter(|code| (400..600).contains(code)).and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(otherwise)
}

/// Nothing is said: no request.
fn share(percent: Option<&RuntimeFractionalPercent>) -> Share {
    percent.and_then(|percent| percent.default_value.as_ref()).map_or(Share::NONE, fraction)
}

#[cfg(test)]
#[path = "local_rate_limit_tests.rs"]
mod tests;
