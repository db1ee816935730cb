//! Whether a request may pass, by the code that proxies run and on what a proxy is sent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use envoy_types::pb::google::protobuf::Any;
use lateen_engine::config::Value;
use lateen_engine::config::listener::{ConnectionFacts, FilterChain, Terminal};
use lateen_engine::config::{HttpConnectionManager, Resources, Snapshot};
use lateen_engine::filters::http::{Kind, jwt_authn};
use lateen_engine::filters::network::{self, NetworkFilter};
use lateen_engine::filters::rbac::{PeerNames, RuleSets, Subject, Verdicts};
use lateen_engine::matching::paths::Normalized;
use lateen_engine::message::{Headers, RequestHead, Scheme, Version};
use lateen_engine::metadata::{DynamicMetadata, Fields};
use lateen_translate::{AuthorizationView, type_url};
use serde::Serialize;

use super::request::{Http, Request};

/// What becomes of a request, and who says so.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    /// In a sentence.
    pub(super) reason: String,
    /// The policy that decides, `namespace/name`, and which of its rules.
    pub(super) policy: Option<String>,
    pub(super) rule: Option<usize>,
    /// Where the rule stands.
    pub(super) place: Option<String>,
    /// What does not decide: rules that are tried, and who is asked besides.
    pub(super) notes: Vec<String>,
}

impl Verdict {
    pub(super) fn of(view: &AuthorizationView, request: &Request) -> anyhow::Result<Self> {
        let snapshot = snapshot(view)?;
        let address: IpAddr = view.address.parse().with_context(|| format!("the pod {} has no address", view.pod))?;
        let mut case = Case {
            view,
            request,
            local: SocketAddr::new(address, request.port),
            peer: request
                .principal
                .as_ref()
                .map(|principal| PeerNames { uri_sans: vec![format!("spiffe://{principal}")], ..PeerNames::default() }),
            metadata: DynamicMetadata::default(),
            allowed_by: None,
            notes: Vec::new(),
        };
        Ok(case.decide(&snapshot))
    }
}

/// The pod's listeners, compiled.
fn snapshot(view: &AuthorizationView) -> anyhow::Result<Snapshot> {
    let mut resources = Resources::default();
    for listener in &view.listeners {
        let value = STANDARD.decode(&listener.message).context("the control plane's listener")?;
        let any = Any { type_url: type_url::LISTENER.to_owned(), value };
        let taken = resources.upsert(type_url::LISTENER, &listener.name, &any, |_| Ok(()));
        if let Err(errors) = taken {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            anyhow::bail!("the proxy would refuse its configuration:\n{}", errors.join("\n"));
        }
    }
    Ok(resources.link(&Snapshot::default()))
}

struct Case<'a> {
    view: &'a AuthorizationView,
    request: &'a Request,
    local: SocketAddr,
    peer: Option<PeerNames>,
    metadata: DynamicMetadata,
    /// The policy that allowed last.
    allowed_by: Option<Arc<str>>,
    notes: Vec<String>,
}

impl Case<'_> {
    fn decide(&mut self, snapshot: &Snapshot) -> Verdict {
        let Some(chain) = self.chain(snapshot) else {
            let how = if self.peer.is_some() { "of the mesh" } else { "without a certificate of the mesh" };
            return self.verdict(false, format!("port {} takes no connections {how}", self.request.port), None);
        };
        for filter in &chain.network {
            match filter {
                NetworkFilter::Rbac(rbac) => {
                    if let Some(verdict) = self.ask(&rbac.rules, network::RBAC, None) {
                        return verdict;
                    }
                }
                NetworkFilter::ExtAuthz(authz) if authz.is_enabled(&self.metadata) => {
                    self.notes.push(format!("the authorizer {} is asked about the connection", authz.service.cluster));
                }
                NetworkFilter::SniDynamicForwardProxy(_) => {}
                NetworkFilter::ExtAuthz(_) => {}
            }
        }
        match (&chain.terminal, &self.request.http) {
            (Terminal::Http(manager), Some(http)) => self.decide_http(manager, http),
            (Terminal::Tcp(_), Some(_)) => {
                self.notes
                    .push(format!("port {} is read as bytes: rules about HTTP mean nothing on it", self.request.port));
                self.pass()
            }
            (Terminal::Http(_), None) => {
                self.notes.push(format!("port {} is read as HTTP", self.request.port));
                self.pass()
            }
            (Terminal::Tcp(_), None) => self.pass(),
        }
    }

    /// The chain for the connection; a client in the mesh says by ALPN what it carries.
    fn chain(&self, snapshot: &Snapshot) -> Option<Arc<FilterChain>> {
        let alpn: &[&[u8]] = match (&self.peer, &self.request.http) {
            (Some(_), Some(_)) => &[b"istio-http/1.1"],
            (Some(_), None) => &[b"istio"],
            (None, Some(_)) => &[b"http/1.1"],
            (None, None) => &[],
        };
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let remote = SocketAddr::new(self.request.ip, 40_000);
        let facts = ConnectionFacts {
            local: self.local,
            remote,
            direct_remote: remote,
            tls: self.peer.is_some(),
            sni: None,
            alpn: &alpn,
        };
        let redirected = snapshot.listener("virtualInbound");
        let listener = snapshot.listener_for_original_dst(self.local).or(redirected)?;
        listener.chains.find(&facts).cloned()
    }

    fn decide_http(&mut self, manager: &HttpConnectionManager, http: &Http) -> Verdict {
        let path = match manager.normalization.apply(&http.path) {
            Normalized::Path(path) => path.into_owned(),
            Normalized::Rejected => {
                return self.verdict(false, "the path is refused before any policy".to_owned(), None);
            }
            Normalized::Redirect(to) => {
                return self.verdict(false, format!("the client is sent to the path {to}"), None);
            }
        };
        if path != http.path {
            self.notes.push(format!("policies see the path {path}"));
        }
        let mut headers = Headers::default();
        http.headers.iter().for_each(|(name, value)| headers.append(name.clone(), value.clone()));
        let head = RequestHead {
            method: http.method.clone(),
            scheme: if self.peer.is_some() { Scheme::Https } else { Scheme::Http },
            authority: Bytes::from(http.host.clone()),
            path: Bytes::from(path),
            headers,
            version: Version::Http11,
        };
        for filter in &manager.filters {
            match &filter.kind {
                Kind::Rbac(rbac) => {
                    if let Some(verdict) = self.ask(&rbac.0, lateen_engine::filters::http::rbac::NAME, Some(&head)) {
                        return verdict;
                    }
                }
                Kind::ExtAuthz(authz) if authz.is_enabled(&self.metadata, 0) => {
                    self.notes
                        .push(format!("the authorizer {} is asked about the request", authz.service(None).cluster()));
                }
                // The token was found to be good, its claims are said as the filter says them.
                Kind::JwtAuthn(_) => {
                    if let Some(claims) = &http.claims {
                        let payload = Fields::from([("payload".to_owned(), Value::Struct(claims.clone()))]);
                        self.metadata.merge(jwt_authn::METADATA, payload);
                    }
                }
                _ => {}
            }
        }
        self.pass()
    }

    /// The verdict, if rules deny.
    fn ask(&mut self, rules: &RuleSets, filter: &str, head: Option<&RequestHead>) -> Option<Verdict> {
        let subject = Subject {
            head,
            destination: self.local,
            direct_remote: self.request.ip,
            remote: self.request.ip,
            peer: self.peer.as_ref(),
            sni: None,
            metadata: &self.metadata,
        };
        let verdicts = rules.decide(&subject);
        rules.tell(&verdicts, filter, &mut self.metadata);
        self.note(&verdicts, &rules.shadow_prefix);
        let denied = verdicts.enforced.filter(|verdict| !verdict.allowed);
        if let Some(verdict) = denied {
            return Some(match verdict.policy {
                Some(policy) => {
                    let (policy, rule) = named(&policy);
                    let asked = self.view.policies.iter().any(|it| it.action == "CUSTOM" && is(it, &policy));
                    let why = if asked { ", whose authorizer cannot be asked" } else { "" };
                    self.verdict(false, format!("the policy {policy} denies it{why}"), Some((policy, rule)))
                }
                None => self.verdict(false, "there are ALLOW policies, and none of them allows it".to_owned(), None),
            });
        }
        None
    }

    fn note(&mut self, verdicts: &Verdicts, shadow_prefix: &str) {
        let tried = verdicts.shadow.as_ref().filter(|verdict| !verdict.allowed || verdict.policy.is_some());
        if let (Some(verdict), true) = (tried, shadow_prefix.starts_with("istio_dry_run")) {
            let would = if verdict.allowed { "allow" } else { "deny" };
            let by = verdict.policy.as_ref().map(|policy| format!(" by {}", named(policy).0)).unwrap_or_default();
            self.notes.push(format!("policies that are tried would {would} it{by}"));
        }
        match (&verdicts.enforced, verdicts.logged) {
            (Some(verdict), Some(true)) => {
                let by = verdict.policy.as_ref().map(|policy| named(policy).0).unwrap_or_default();
                self.notes.push(format!("the AUDIT policy {by} speaks of it"));
            }
            (Some(verdict), None) if verdict.allowed => {
                self.allowed_by = verdict.policy.clone().or_else(|| self.allowed_by.take());
            }
            _ => {}
        }
    }

    fn pass(&mut self) -> Verdict {
        match self.allowed_by.take() {
            Some(policy) => {
                let (policy, rule) = named(&policy);
                self.verdict(true, format!("the policy {policy} allows it"), Some((policy, rule)))
            }
            None => self.verdict(true, "no policy stands against it".to_owned(), None),
        }
    }

    fn verdict(&mut self, allowed: bool, reason: String, by: Option<(String, usize)>) -> Verdict {
        let place = by.as_ref().and_then(|(policy, rule)| {
            let found = self.view.policies.iter().find(|it| is(it, policy))?;
            let line = found.rules.get(*rule).map_or(found.line, |rule| rule.line);
            (!found.file.is_empty()).then(|| format!("{}:{line}", found.file))
        });
        let (policy, rule) = by.unzip();
        Verdict { allowed, reason, policy, rule, place, notes: std::mem::take(&mut self.notes) }
    }
}

fn is(policy: &lateen_translate::EffectivePolicy, name: &str) -> bool {
    name.split_once('/') == Some((&*policy.namespace, &*policy.name))
}

/// `namespace/name` and the rule, of the name that a policy has in proxies: `ns[a]-policy[b]-rule[0]`.
fn named(policy: &str) -> (String, usize) {
    let part = |open: &str| {
        let start = policy.find(open)? + open.len();
        let end = policy[start..].find(']')?;
        Some(&policy[start..start + end])
    };
    match (part("ns["), part("policy["), part("rule[").and_then(|rule| rule.parse().ok())) {
        (Some(namespace), Some(name), Some(rule)) => (format!("{namespace}/{name}"), rule),
        _ => (policy.to_owned(), 0),
    }
}
