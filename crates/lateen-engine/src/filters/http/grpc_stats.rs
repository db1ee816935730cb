//! gRPC statistics: which calls are counted under which names, and telling messages apart as they pass.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3 as proto;
use proto::filter_config::PerMethodStatSpecifier;

use crate::config::error::{At, refuse};

/// What the filter is configured to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcStats {
    methods: Methods,
}

/// Which methods have numbers of their own; all others of a cluster are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Methods {
    /// By their services. Empty: none.
    Listed(HashMap<String, HashSet<String>>),
    All {
        replace_dots: bool,
    },
}

/// What a call is counted under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted<'a> {
    Together,
    Method { service: Cow<'a, str>, method: &'a str },
}

impl GrpcStats {
    pub(super) fn from_xds(config: &proto::FilterConfig, at: &At) -> Self {
        // `emit_filter_state` gives the counts to `%FILTER_STATE%` and its like: who asks for those is refused there.
        refuse!(at, config; enable_upstream_stats);
        let methods = match &config.per_method_stat_specifier {
            Some(PerMethodStatSpecifier::StatsForAllMethods(all)) if all.value => {
                Methods::All { replace_dots: config.replace_dots_in_grpc_service_name }
            }
            Some(PerMethodStatSpecifier::StatsForAllMethods(_)) | None => Methods::Listed(HashMap::new()),
            Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(list)) => {
                let mut listed: HashMap<_, HashSet<_>> = HashMap::new();
                for service in &list.services {
                    listed.entry(service.name.clone()).or_default().extend(service.method_names.iter().cloned());
                }
                Methods::Listed(listed)
            }
        };
        Self { methods }
    }

    /// What a call of this path is counted under; none if that is no path of a gRPC call.
    ///
    /// As Envoy's `resolveServiceAndMethod`: two segments, slashes more than needed do not matter.
    pub fn counted<'a>(&self, target: &'a str) -> Option<Counted<'a>> {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let (Some(service), Some(method), None) = (segments.next(), segments.next(), segments.next()) else {
            return None;
        };
        let service = match &self.methods {
            Methods::All { replace_dots: true } => service.replace('.', "_").into(),
            Methods::All { replace_dots: false } => service.into(),
            Methods::Listed(listed) if listed.get(service).is_some_and(|methods| methods.contains(method)) => {
                service.into()
            }
            Methods::Listed(_) => return Some(Counted::Together),
        };
        Some(Counted::Method { service, method })
    }
}

/// Counts the messages of one direction: each begins with a flag and its length in four bytes (gRPC over HTTP/2,
/// "Length-Prefixed-Message"). Nothing of them is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounter {
    /// Bytes of the length that are yet to come.
    length: u8,
    /// Bytes of the message that are yet to come.
    left: u32,
}

impl FrameCounter {
    /// How many messages begin in the next piece of the body. As in Envoy, one counts from its first byte.
    pub fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while let Some((byte, rest)) = data.split_first() {
            if self.length > 0 {
                self.length -= 1;
                self.left = self.left << 8 | u32::from(*byte);
                data = rest;
            } else if self.left > 0 {
                let step = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= u32::try_from(step).expect("it is no more than is left");
                data = &data[step..];
            } else {
                begun += 1;
                self.length = 4;
                data = rest;
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{GrpcMethodList, grpc_method_list::Service};
    use envoy_types::pb::google::protobuf::Any;
    use envoy_types::pb::google::protobuf::BoolValue;
    use proptest::prelude::*;
    use prost::Name as _;

    use super::super::{ConfigType, HttpFilter, hcm};
    use super::*;

    fn read(config: &proto::FilterConfig) -> GrpcStats {
        let at = At::resource("l");
        let stats = GrpcStats::from_xds(config, &at);
        at.finish(Some(stats)).expect("it is right")
    }

    fn all(replace_dots: bool) -> GrpcStats {
        read(&proto::FilterConfig {
            per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(BoolValue { value: true })),
            replace_dots_in_grpc_service_name: replace_dots,
            ..Default::default()
        })
    }

    #[test]
    fn calls_are_known_by_their_path() {
        let stats = all(true);
        let call = Some(Counted::Method { service: "a_S".into(), method: "M" });
        for path in ["/a.S/M", "/a.S/M?q=/x", "//a.S//M/"] {
            assert_eq!(stats.counted(path), call, "{path}");
        }
        for path in ["", "/", "*", "/a.S", "/a.S/", "/a.S/M/more", "/?a/b"] {
            assert_eq!(stats.counted(path), None, "{path}");
            assert_eq!(read(&proto::FilterConfig::default()).counted(path), None, "{path}");
        }
    }

    #[test]
    fn only_listed_methods_have_numbers_of_their_own() {
        assert_eq!(read(&proto::FilterConfig::default()).counted("/a.S/M"), Some(Counted::Together));
        let service = Service { name: "a.S".into(), method_names: vec!["M".into(), "N".into()] };
        let list = GrpcMethodList { services: vec![service] };
        let stats = read(&proto::FilterConfig {
            per_method_stat_specifier: Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(list)),
            // Envoy applies it to `stats_for_all_methods` alone.
            replace_dots_in_grpc_service_name: true,
            ..Default::default()
        });
        let call = Counted::Method { service: "a.S".into(), method: "N" };
        assert_eq!(stats.counted("/a.S/N"), Some(call));
        assert_eq!(stats.counted("/a.S/Other"), Some(Counted::Together));
    }

    #[test]
    fn what_is_not_counted_is_refused() {
        let at = At::resource("l");
        let config = proto::FilterConfig { enable_upstream_stats: true, ..Default::default() };
        let stats = GrpcStats::from_xds(&config, &at.field("typed_config"));
        let errors = at.finish(Some(stats)).expect_err("it is refused");
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["l: typed_config.enable_upstream_stats: is not supported"]);
    }

    #[test]
    fn one_chain_counts_once() {
        let at = At::resource("l");
        let any = Any { type_url: proto::FilterConfig::type_url(), value: Vec::new() };
        let filter = || hcm::HttpFilter {
            name: "grpc_stats".into(),
            config_type: Some(ConfigType::TypedConfig(any.clone())),
            ..Default::default()
        };
        let chain = HttpFilter::chain(&[filter(), filter()], &at);
        let errors = at.finish(Some(chain)).expect_err("it is refused");
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["l: http_filters[1]: is the second grpc_stats: calls would be counted twice"]);
    }

    fn message(length: usize) -> Vec<u8> {
        let prefix = u32::try_from(length).expect("it is short").to_be_bytes();
        // Bytes that would be flags and lengths, if taken for them.
        [&[0][..], &prefix, &vec![0; length]].concat()
    }

    #[test]
    fn messages_are_counted_when_they_begin() {
        let mut counter = FrameCounter::default();
        assert_eq!(counter.count(&[]), 0);
        assert_eq!(counter.count(&[1]), 1, "the flag alone");
        assert_eq!(counter.count(&[0, 0]), 0, "half of its length");
        assert_eq!(counter.count(&[0, 3, 9, 9]), 0, "the rest, and some of the message");
        assert_eq!(counter.count(&[9, 0]), 1, "its end, and the next");
        assert_eq!(counter.count(&[0, 0, 0, 0]), 0, "which is empty");
        assert_eq!(counter.count(&[message(0), message(7), message(0)].concat()), 3);
        assert_eq!(counter, FrameCounter::default());
    }

    #[test]
    fn lengths_that_lie_do_no_harm() {
        let mut counter = FrameCounter::default();
        assert_eq!(counter.count(&[0xff; 5]), 1);
        let piece = vec![0; 1 << 20];
        assert!((0..4095).all(|_| counter.count(&piece) == 0), "4 GiB without a byte more of memory");
        assert_eq!(counter.count(&piece[1..]), 0);
        assert_eq!(counter, FrameCounter::default());
        assert_eq!(counter.count(&[0; 12]), 3);
    }

    proptest! {
        /// However the bytes are cut into pieces.
        #[test]
        fn pieces_do_not_matter(
            lengths in prop::collection::vec(0_usize..300, 0..20),
            cuts in prop::collection::vec(1_usize..64, 1..20),
        ) {
            let body: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let (mut counter, mut rest, mut count) = (FrameCounter::default(), &body[..], 0);
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                count += counter.count(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(count, lengths.len() as u64);
            prop_assert_eq!(counter, FrameCounter::default());
        }
    }
}
