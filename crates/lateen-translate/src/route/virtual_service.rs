//! The HTTP routes of a VirtualService, in its order, for one listener.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::google::protobuf::Any;
use lateen_api::networking::virtual_service::{
    DerivePort, Destination, DirectBody, DirectResponse, HttpMatch, HttpRouteDestination, Redirect, Rewrite,
};
use lateen_mesh::{HttpRule, Semantics, VirtualService};
use route::route::Action;
use route::route_action::{ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy};
use route::route_match::PathSpecifier;
use route::weighted_cluster::{self, ClusterWeight};

use crate::filters::http_connection_manager::{CORS, FAULT};
use crate::filters::{cors, fault};
use crate::proto::{boolean, strings, uint32};
use crate::route::decorator::decorate;
use crate::route::destination::Target;
use crate::route::headers::{self, Operations};
use crate::route::route_match::{self, Asker};
use crate::route::{everything, retry, set_timeout, to_cluster};
use crate::view::View;
use crate::{origin, wire};

/// Where the routes are used.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) view: &'a View<'a>,
    pub(crate) asker: Asker<'a>,
    /// TLS ends at the listener (for redirects that keep the port).
    pub(crate) tls: bool,
}

/// The routes, one per match entry, up to the first that takes every request.
pub(crate) fn routes(site: &Site<'_>, virtual_service: &VirtualService) -> Vec<route::Route> {
    let mut out = Vec::new();
    for rule in &virtual_service.http {
        if rule.route.matches.is_empty() {
            out.push(translate(site, virtual_service.semantics, rule, None));
            break;
        }
        let mut reachable = true;
        for conditions in &rule.route.matches {
            if !route_match::concerns(conditions, &site.asker, &rule.namespace) {
                continue;
            }
            let route = translate(site, virtual_service.semantics, rule, Some(conditions));
            let catch_all = route.r#match.as_ref().is_some_and(route_match::is_catch_all);
            out.push(route);
            if catch_all {
                reachable = false;
                break;
            }
        }
        if !reachable {
            break;
        }
    }
    out
}

/// Whether there are any.
pub(crate) fn has_routes(site: &Site<'_>, virtual_service: &VirtualService) -> bool {
    virtual_service.http.iter().any(|rule| {
        let concerns = |conditions: &HttpMatch| route_match::concerns(conditions, &site.asker, &rule.namespace);
        rule.route.matches.is_empty() || rule.route.matches.iter().any(concerns)
    })
}

fn translate(site: &Site<'_>, semantics: Semantics, rule: &HttpRule, conditions: Option<&HttpMatch>) -> route::Route {
    let operations = headers::operations(rule.route.headers.as_ref());
    let name = match conditions {
        Some(conditions) if !conditions.name.is_empty() => format!("{}.{}", rule.route.name, conditions.name),
        _ => rule.route.name.clone(),
    };
    let mut out = route::Route {
        name,
        r#match: Some(conditions.map_or_else(everything, |it| route_match::translate(it, semantics))),
        metadata: origin::metadata([&rule.origin]),
        stat_prefix: conditions.map(|conditions| conditions.stat_prefix.clone()).unwrap_or_default(),
        request_headers_to_add: operations.request_add,
        request_headers_to_remove: operations.request_remove,
        response_headers_to_add: operations.response_add,
        response_headers_to_remove: operations.response_remove,
        typed_per_filter_config: filter_config(rule),
        ..route::Route::default()
    };
    if let Some(wanted) = &rule.route.redirect {
        let prefix = segments_prefix(&out, semantics);
        out.action = Some(redirect(wanted, site, prefix.as_deref()).map_or_else(broken, Action::Redirect));
    } else if let Some(answer) = &rule.route.direct_response {
        out.action = Some(Action::DirectResponse(direct_response(answer)));
    } else {
        let mut action = forward(site, semantics, rule, operations.authority, &mut out);
        if semantics == Semantics::GatewayApi {
            // Backends that lead nowhere: the Gateway API wants 500, where Envoy would say 503.
            action.cluster_not_found_response_code =
                route::route_action::ClusterNotFoundResponseCode::InternalServerError as i32;
        }
        let leads_somewhere = match &action.cluster_specifier {
            Some(ClusterSpecifier::WeightedClusters(weighted)) => !weighted.clusters.is_empty(),
            other => other.is_some(),
        };
        out.action = Some(if leads_somewhere { Action::Route(action) } else { broken() });
    }
    decorate(site.view, &mut out, &rule.origin.name, site.asker.port);
    out
}

/// The answer of a route that validation should have refused: a proxy would refuse the whole table for it.
fn broken() -> Action {
    Action::DirectResponse(route::DirectResponseAction { status: 500, ..route::DirectResponseAction::default() })
}

fn filter_config(rule: &HttpRule) -> HashMap<String, Any> {
    let mut out = HashMap::new();
    if let Some(config) = rule.route.fault.as_ref().and_then(fault::translate) {
        out.insert(FAULT.to_owned(), wire::pack(&config));
    }
    if let Some(policy) = &rule.route.cors_policy {
        out.insert(CORS.to_owned(), wire::pack(&cors::translate(policy)));
    }
    out
}

/// The action of a route with destinations.
fn forward(
    site: &Site<'_>,
    semantics: Semantics,
    rule: &HttpRule,
    authority: Option<String>,
    out: &mut route::Route,
) -> route::RouteAction {
    let mut action = route::RouteAction::default();
    set_timeout(&mut action, rule.route.timeout.map(|timeout| timeout.0));
    let mut authority = authority;
    if let Some(rewrite) = &rule.route.rewrite {
        apply_rewrite(rewrite, segments_prefix(out, semantics).as_deref(), &mut action);
        let wanted = site.view.settings().proxy_headers.x_forwarded_host.enabled;
        action.append_x_forwarded_host = wanted.unwrap_or(false);
        if !rewrite.authority.is_empty() {
            authority = Some(rewrite.authority.clone());
        }
    }
    action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    let mut hashed = false;
    if let [destination] = rule.route.route.as_slice() {
        hashed = single(site, rule, destination, &mut action, out);
    } else {
        weighted(site, rule, &mut action);
    }
    action.retry_policy = retry::policy(site.view.mesh.config(), rule.route.retries.as_ref(), hashed);
    action.request_mirror_policies = mirrors(site, rule);
    action
}

/// All requests unless a share says otherwise; a share of nothing is no mirror.
fn mirrors(site: &Site<'_>, rule: &HttpRule) -> Vec<RequestMirrorPolicy> {
    let share = match (rule.route.mirror_percentage, rule.route.mirror_percent) {
        (Some(percentage), _) => fault::millionths(percentage),
        (None, Some(percent)) => fault::whole(i32::try_from(percent).unwrap_or(100)),
        (None, None) => fault::whole(100),
    };
    let single = rule.route.mirror.iter().map(|destination| (destination, share));
    let several = rule.route.mirrors.iter().map(|mirror| {
        let share = mirror.percentage.map_or_else(|| fault::whole(100), fault::millionths);
        (&mirror.destination, share)
    });
    let policy = |(destination, share)| RequestMirrorPolicy {
        cluster: target(site, rule, destination).cluster(),
        runtime_fraction: Some(core::RuntimeFractionalPercent {
            default_value: Some(share),
            ..core::RuntimeFractionalPercent::default()
        }),
        trace_sampled: Some(boolean(false)),
        // Istio's default since 1.28 (DISABLE_SHADOW_HOST_SUFFIX): the copy names the same host.
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    };
    single.chain(several).filter(|(_, share)| share.numerator > 0).map(policy).collect()
}

/// The only destination: its weight does not matter, its headers join the route's. Says whether a hash picks the endpoint.
fn single(
    site: &Site<'_>,
    rule: &HttpRule,
    destination: &HttpRouteDestination,
    action: &mut route::RouteAction,
    out: &mut route::Route,
) -> bool {
    let target = target(site, rule, &destination.destination);
    action.cluster_specifier = Some(to_cluster(&target.cluster()));
    let operations = headers::operations(destination.headers.as_ref());
    out.request_headers_to_add.extend(operations.request_add);
    out.request_headers_to_remove.extend(operations.request_remove);
    out.response_headers_to_add.extend(operations.response_add);
    out.response_headers_to_remove.extend(operations.response_remove);
    if action.host_rewrite_specifier.is_none() {
        action.host_rewrite_specifier = operations.authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    }
    let hash = target.hash_policy(site.view, destination.destination.port.is_some());
    action.hash_policy.extend(hash);
    !action.hash_policy.is_empty()
}

/// Several destinations: those of weight 0 get nothing.
fn weighted(site: &Site<'_>, rule: &HttpRule, action: &mut route::RouteAction) {
    let mut clusters = Vec::new();
    for destination in &rule.route.route {
        let Some(weight) = u32::try_from(destination.weight).ok().filter(|weight| *weight > 0) else { continue };
        let target = target(site, rule, &destination.destination);
        let Operations { request_add, request_remove, response_add, response_remove, authority } =
            headers::operations(destination.headers.as_ref());
        clusters.push(ClusterWeight {
            name: target.cluster(),
            weight: Some(uint32(weight)),
            request_headers_to_add: request_add,
            request_headers_to_remove: request_remove,
            response_headers_to_add: response_add,
            response_headers_to_remove: response_remove,
            host_rewrite_specifier: authority
                .map(weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
            ..ClusterWeight::default()
        });
        action.hash_policy.extend(target.hash_policy(site.view, destination.destination.port.is_some()));
    }
    action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(route::WeightedCluster {
        clusters,
        ..route::WeightedCluster::default()
    }));
}

fn target(site: &Site<'_>, rule: &HttpRule, destination: &Destination) -> Target {
    Target::of(site.view, destination, &rule.namespace, site.asker.port)
}

/// The prefix of whole segments that a route is for, where it is; `/` is the empty one.
fn segments_prefix(out: &route::Route, semantics: Semantics) -> Option<String> {
    match out.r#match.as_ref()?.path_specifier.as_ref()? {
        PathSpecifier::PathSeparatedPrefix(prefix) => Some(prefix.clone()),
        PathSpecifier::Prefix(prefix) if semantics == Semantics::GatewayApi && prefix == "/" => Some(String::new()),
        _ => None,
    }
}

/// What a prefix is replaced by. The empty one, which is matched by the slash after it, leaves none behind.
fn in_place_of(prefix: Option<&str>, replacement: &str) -> String {
    let is_empty = prefix == Some("") && !replacement.is_empty() && !replacement.ends_with('/');
    format!("{replacement}{}", if is_empty { "/" } else { "" })
}

/// Takes a prefix of whole segments away: of what follows, the slash between is kept once.
fn without_prefix(prefix: &str) -> matcher::RegexMatchAndSubstitute {
    let mut quoted = String::new();
    for letter in prefix.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    matcher::RegexMatchAndSubstitute {
        pattern: Some(strings::regex_matcher(format!("^{quoted}(/?)(.*)"))),
        substitution: r"/\2".to_owned(),
    }
}

/// `prefix`: of whole segments, by which the route was chosen.
fn apply_rewrite(rewrite: &Rewrite, prefix: Option<&str>, action: &mut route::RouteAction) {
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        action.regex_rewrite = Some(matcher::RegexMatchAndSubstitute {
            pattern: Some(strings::regex_matcher(&regex.pattern)),
            substitution: regex.rewrite.clone(),
        });
    } else if let Some(prefix) = prefix.filter(|_| rewrite.uri == "/") {
        action.regex_rewrite = Some(without_prefix(prefix));
    } else {
        // On a route that matches one path exactly, this replaces the whole path.
        action.prefix_rewrite = in_place_of(prefix, &rewrite.uri);
    }
}

/// `None` for codes that no redirect has.
fn redirect(wanted: &Redirect, site: &Site<'_>, prefix: Option<&str>) -> Option<route::RedirectAction> {
    use route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let code = match wanted.redirect_code {
        0 | 301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => return None,
    };
    let path = match &wanted.prefix_rewrite {
        Some(replacement) if prefix.is_some() => match (prefix, replacement.trim_end_matches('/')) {
            (Some(prefix), "") => PathRewriteSpecifier::RegexRewrite(without_prefix(prefix)),
            (prefix, replacement) => PathRewriteSpecifier::PrefixRewrite(in_place_of(prefix, replacement)),
        },
        Some(prefix) if !prefix.is_empty() => PathRewriteSpecifier::PrefixRewrite(prefix.clone()),
        _ => PathRewriteSpecifier::PathRedirect(wanted.uri.clone()),
    };
    let scheme = match wanted.scheme.as_str() {
        "" if site.tls => "https",
        "" => "http",
        named => named,
    };
    let port = match (wanted.port, wanted.derive_port) {
        (Some(port), _) => port,
        (None, Some(DerivePort::FromRequestPort)) => u32::from(site.asker.port),
        (None, _) => 0,
    };
    // The scheme's own port is left out of the address.
    let port_redirect = if matches!((port, scheme), (80, "http") | (443, "https")) { 0 } else { port };
    Some(route::RedirectAction {
        host_redirect: wanted.authority.clone(),
        port_redirect,
        response_code: code as i32,
        path_rewrite_specifier: Some(path),
        scheme_rewrite_specifier: (!wanted.scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(wanted.scheme.clone())),
        ..route::RedirectAction::default()
    })
}

fn direct_response(answer: &DirectResponse) -> route::DirectResponseAction {
    use core::data_source::Specifier;
    let body = answer.body.as_ref().map(|body| match body {
        DirectBody::String(text) => Specifier::InlineString(text.clone()),
        // Validation has refused what is not base64.
        DirectBody::Bytes(encoded) => Specifier::InlineBytes(BASE64.decode(encoded).unwrap_or_default()),
    });
    route::DirectResponseAction {
        status: answer.status,
        body: body.map(|specifier| core::DataSource { specifier: Some(specifier), ..core::DataSource::default() }),
        ..route::DirectResponseAction::default()
    }
}
