//! Listener filters: recover the original destination and look at the first bytes.

use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;

use crate::proto::{listener_filter, uint32};

/// ALPN names that the HTTP inspector gives to plaintext HTTP.
pub(crate) const PLAINTEXT_HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// Where the connection was going before the redirect.
pub(crate) fn original_dst() -> listener::ListenerFilter {
    listener_filter("envoy.filters.listener.original_dst", &OriginalDst::default())
}

/// Whom a proxy before this one speaks for. Without such a header a connection is closed.
pub(crate) fn proxy_protocol() -> listener::ListenerFilter {
    listener_filter("envoy.filters.listener.proxy_protocol", &ProxyProtocol::default())
}

/// SNI and ALPN of a ClientHello, or that there is none.
pub(crate) fn tls() -> listener::ListenerFilter {
    // Most ClientHellos fit; the buffer grows when they do not.
    let config = TlsInspector { initial_read_buffer_size: Some(uint32(512)), ..TlsInspector::default() };
    listener_filter("envoy.filters.listener.tls_inspector", &config)
}

/// Whether plaintext bytes are HTTP/1 or HTTP/2.
pub(crate) fn http() -> listener::ListenerFilter {
    listener_filter("envoy.filters.listener.http_inspector", &HttpInspector::default())
}

/// The inspectors that these chains match on, each switched off for destination ports none of whose chains needs it.
///
/// Waiting for bytes on a port that does not need them would hang protocols in which the server speaks first.
pub(crate) fn for_chains(chains: &[listener::FilterChain]) -> Vec<listener::ListenerFilter> {
    let needs_tls = |chain: &listener::FilterChain| {
        matching(chain)
            .is_some_and(|matching| matching.transport_protocol == "tls" || !matching.server_names.is_empty())
    };
    let needs_http = |chain: &listener::FilterChain| {
        matching(chain).is_some_and(|matching| {
            matching.application_protocols.iter().any(|name| PLAINTEXT_HTTP.contains(&name.as_str()))
        })
    };
    [inspector(tls(), chains, needs_tls), inspector(http(), chains, needs_http)].into_iter().flatten().collect()
}

fn matching(chain: &listener::FilterChain) -> Option<&listener::FilterChainMatch> {
    chain.filter_chain_match.as_ref()
}

/// Destination port of a chain; 0: any.
fn port(chain: &listener::FilterChain) -> u32 {
    matching(chain).and_then(|matching| matching.destination_port.as_ref()).map_or(0, |port| port.value)
}

fn inspector(
    mut filter: listener::ListenerFilter,
    chains: &[listener::FilterChain],
    needs: impl Fn(&listener::FilterChain) -> bool,
) -> Option<listener::ListenerFilter> {
    if !chains.iter().any(&needs) {
        return None;
    }
    let needed_on = |wanted: u32| chains.iter().any(|chain| port(chain) == wanted && needs(chain));
    let mut ports: Vec<u32> = chains.iter().map(port).filter(|port| *port != 0).collect();
    ports.sort_unstable();
    ports.dedup();
    let by_default = needed_on(0);
    let exceptions: Vec<u32> = ports.into_iter().filter(|port| needed_on(*port) != by_default).collect();
    if !exceptions.is_empty() {
        let listed = any_of(&exceptions);
        filter.filter_disabled = Some(if by_default { listed } else { not(listed) });
    } else if !by_default {
        // No port is an exception and the default is off: nothing would be inspected.
        return None;
    }
    Some(filter)
}

fn predicate(
    rule: listener::listener_filter_chain_match_predicate::Rule,
) -> listener::ListenerFilterChainMatchPredicate {
    listener::ListenerFilterChainMatchPredicate { rule: Some(rule) }
}

fn any_of(ports: &[u32]) -> listener::ListenerFilterChainMatchPredicate {
    use envoy_types::pb::envoy::r#type::v3::Int32Range;
    use listener::listener_filter_chain_match_predicate::{MatchSet, Rule};
    let mut rules: Vec<_> = ports
        .iter()
        .map(|port| {
            let start = port.cast_signed();
            predicate(Rule::DestinationPortRange(Int32Range { start, end: start + 1 }))
        })
        .collect();
    match rules.len() {
        1 => rules.remove(0),
        _ => predicate(Rule::OrMatch(MatchSet { rules })),
    }
}

fn not(inner: listener::ListenerFilterChainMatchPredicate) -> listener::ListenerFilterChainMatchPredicate {
    predicate(listener::listener_filter_chain_match_predicate::Rule::NotMatch(Box::new(inner)))
}
