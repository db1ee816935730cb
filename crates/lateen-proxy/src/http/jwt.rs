//! Tokens of a request: checked, with keys that may have to be fetched first.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lateen_engine::filters::http::Override;
use lateen_engine::filters::http::jwt_authn::{Fetched, JwtAuthn, METADATA, Outcome, RemoteKeys, Said, World};
use lateen_engine::flags::LocalReply;

use super::request::Exchange;
use crate::upstream::key_sets;

/// What a filter says of a request's tokens.
pub(super) enum Checked {
    /// The request goes on; its route is chosen anew, if that is asked for.
    Passed {
        clear_route: bool,
    },
    Refused(Box<LocalReply>),
}

impl Exchange<'_> {
    pub(super) async fn check_tokens(&mut self, filter: &Arc<JwtAuthn>, said: Option<&Override>) -> Checked {
        if matches!(said, Some(Override::Disabled)) {
            return Checked::Passed { clear_route: false };
        }
        let context = self.context;
        let worker = &context.worker;
        let stats = key_sets::stats(worker, &context.manager, filter);
        let mut asked: Vec<Arc<RemoteKeys>> = Vec::new();
        // Whoever waits for keys starts over from the request as it came.
        let original = filter.remote().next().map(|_| self.head.clone());
        loop {
            let known = |remote: &Arc<RemoteKeys>| match worker.shared.key_sets.known(remote) {
                Fetched::NotYet if asked.contains(remote) => Fetched::Failed,
                known => known,
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let world = World { now, random: self.random, fetched: &known };
            match filter.decide(&mut self.head, said, &world) {
                Outcome::Allowed(said) => {
                    stats.allowed.inc();
                    let clear_route = said.clear_route;
                    self.note(said);
                    return Checked::Passed { clear_route };
                }
                Outcome::Preflight => {
                    stats.cors_preflight_bypassed.inc();
                    stats.allowed.inc();
                    return Checked::Passed { clear_route: false };
                }
                Outcome::Denied(said, reply) => {
                    stats.denied.inc();
                    self.note(said);
                    return Checked::Refused(reply);
                }
                Outcome::Fetch(remote) => {
                    self.head
                        .clone_from(original.as_ref().expect("keys are fetched for filters that have some to fetch"));
                    key_sets::fetched(worker, &remote, &stats).await;
                    asked.push(remote);
                }
            }
        }
    }

    fn note(&mut self, said: Said) {
        if !said.metadata.is_empty() {
            self.info.metadata.merge(METADATA, said.metadata);
        }
    }
}
