//! How hosts are chosen among.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use proto::cluster::LbConfig;

use super::Discovery;
use crate::config::error::{At, refuse};
use crate::config::metadata::{self, Value};
use crate::config::scalar::{duration, u32_or};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LbPolicy {
    RoundRobin,
    Random,
    LeastRequest {
        choices: u32,
        /// How much requests in flight count among hosts of different weight: weight / (requests + 1)^bias.
        bias: f64,
    },
    /// Of two hosts, the one that is expected to answer sooner. Ours: asked for by the cluster's metadata, in place of least
    /// request.
    PeakEwma,
    RingHash {
        minimum: u64,
        maximum: u64,
    },
    Maglev {
        table_size: u64,
    },
    /// The original destination, or what a request names.
    ClusterProvided,
}

impl LbPolicy {
    /// Whether a host is chosen by the request's hash.
    pub fn hashes(self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }
}

/// `ZoneAwareLbConfig`; Envoy's defaults where a cluster says nothing of localities. It holds where there is a local cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneAware {
    /// For so many percent of requests.
    pub routing_percent: u32,
    /// With fewer healthy hosts localities do not matter.
    pub min_cluster_size: u64,
    /// In panic no host gets requests, instead of all.
    pub fail_on_panic: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self { routing_percent: 100, min_cluster_size: 6, fail_on_panic: false }
    }
}

impl ZoneAware {
    pub(super) fn from_xds(config: &proto::cluster::common_lb_config::ZoneAwareLbConfig, at: &At) -> Self {
        let default = Self::default();
        let percent = config.routing_enabled.as_ref().map_or(100.0, |percent| percent.value);
        if !(0.0..=100.0).contains(&percent) {
            at.field("routing_enabled").error("must be from 0 to 100");
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a percentage")]
        let routing_percent = percent.clamp(0.0, 100.0).round() as u32;
        Self {
            routing_percent,
            min_cluster_size: config.min_cluster_size.as_ref().map_or(default.min_cluster_size, |size| size.value),
            fail_on_panic: config.fail_traffic_on_panic,
        }
    }
}

/// `SlowStartConfig`: a new host's weight grows with its age, up to the whole of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    pub window: Duration,
    /// 1: in a straight line; above: fast first.
    pub aggression: f64,
    /// The least share of the weight.
    pub minimum: f64,
}

impl SlowStart {
    fn from_xds(config: Option<&proto::cluster::SlowStartConfig>, at: &At) -> Option<Self> {
        let config = config?;
        let at = at.field("slow_start_config");
        let window = duration(config.slow_start_window.as_ref(), &at.field("slow_start_window")).unwrap_or_default();
        // Without a runtime the default holds.
        let aggression = config.aggression.as_ref().map_or(1.0, |aggression| aggression.default_value);
        if aggression.is_nan() || aggression <= 0.0 {
            at.field("aggression").error("must be above 0");
        }
        let percent = config.min_weight_percent.as_ref().map_or(10.0, |percent| percent.value);
        if !(0.0..=100.0).contains(&percent) {
            at.field("min_weight_percent").error("must be from 0 to 100");
        }
        (!window.is_zero()).then_some(Self { window, aggression, minimum: percent / 100.0 })
    }

    /// The part of its weight that a host of this age gets, in thousandths, at least one; none once it gets all of it.
    pub fn share(&self, age: Duration) -> Option<u32> {
        if age >= self.window {
            return None;
        }
        let time = age.as_secs_f64().max(0.001) / self.window.as_secs_f64();
        let share = time.powf(1.0 / self.aggression).max(self.minimum).min(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
        let thousandths = (share * 1000.0) as u32;
        Some(thousandths.max(1))
    }
}

pub(super) fn policy(
    cluster: &proto::Cluster,
    discovery: &Discovery,
    at: &At,
) -> Option<(LbPolicy, Option<SlowStart>)> {
    use proto::cluster::LbPolicy as Policy;
    if matches!(discovery, Discovery::OriginalDst { .. } | Discovery::Dynamic(_)) {
        return Some((LbPolicy::ClusterProvided, None));
    }
    let mut slow_start = None;
    let policy = match (cluster.lb_policy(), &cluster.lb_config) {
        (Policy::RoundRobin, config) => {
            if let Some(LbConfig::RoundRobinLbConfig(config)) = config {
                slow_start = SlowStart::from_xds(config.slow_start_config.as_ref(), &at.field("round_robin_lb_config"));
            }
            LbPolicy::RoundRobin
        }
        (Policy::Random, _) => LbPolicy::Random,
        (Policy::LeastRequest, config) => {
            let (mut choices, mut bias) = (2, 1.0);
            if let Some(LbConfig::LeastRequestLbConfig(config)) = config {
                let at = at.field("least_request_lb_config");
                // Without a runtime the default holds.
                bias = config.active_request_bias.as_ref().map_or(1.0, |bias| bias.default_value);
                if bias.is_nan() || bias < 0.0 {
                    at.field("active_request_bias").error("must be at least 0");
                }
                slow_start = SlowStart::from_xds(config.slow_start_config.as_ref(), &at);
                choices = u32_or(config.choice_count.as_ref(), 2).max(2);
            }
            LbPolicy::LeastRequest { choices, bias }
        }
        (Policy::RingHash, config) => {
            let (mut minimum, mut maximum) = (1024, 8 << 20);
            if let Some(LbConfig::RingHashLbConfig(config)) = config {
                refuse!(at.field("ring_hash_lb_config"), config; hash_function);
                minimum = config.minimum_ring_size.as_ref().map_or(minimum, |size| size.value);
                maximum = config.maximum_ring_size.as_ref().map_or(maximum, |size| size.value);
            }
            if minimum > maximum || maximum > 8 << 20 {
                at.field("ring_hash_lb_config").error("the sizes must be in order, and at most 8388608");
            }
            LbPolicy::RingHash { minimum: minimum.clamp(1, 8 << 20), maximum: maximum.clamp(1, 8 << 20) }
        }
        (Policy::Maglev, config) => {
            let mut table_size = 65_537;
            if let Some(LbConfig::MaglevLbConfig(config)) = config {
                table_size = config.table_size.as_ref().map_or(table_size, |size| size.value);
            }
            if table_size > 5_000_011 || !is_prime(table_size) {
                at.field("maglev_lb_config.table_size").error("must be a prime of at most 5000011");
                table_size = 65_537;
            }
            LbPolicy::Maglev { table_size }
        }
        (Policy::ClusterProvided, _) => LbPolicy::ClusterProvided,
        (Policy::LoadBalancingPolicyConfig, _) => {
            at.field("lb_policy").error("LOAD_BALANCING_POLICY_CONFIG is not supported");
            return None;
        }
    };
    let asked = metadata::filter(cluster.metadata.as_ref(), "lateen").get("balancer").cloned();
    match (asked.as_ref().and_then(Value::as_str), policy) {
        (None, _) => Some((policy, slow_start)),
        (Some("peak-ewma"), LbPolicy::LeastRequest { .. }) => Some((LbPolicy::PeakEwma, slow_start)),
        (Some(other), _) => {
            at.field("metadata").error(format!("the balancer `{other}` stands for least request, if it is peak-ewma"));
            None
        }
    }
}

/// Only in a table of prime length does every step through it come by every place.
fn is_prime(number: u64) -> bool {
    number > 1 && (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor))
}
