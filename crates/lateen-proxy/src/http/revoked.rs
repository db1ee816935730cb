//! A request under way when what let it pass is replaced: the rules in force are asked about it again, and where they deny it,
//! it ends. External authorizers are asked once, and tokens are looked at once: rules see what was found in them then.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use lateen_engine::filters::http::Override;
use lateen_engine::filters::http::rbac::denial;
use lateen_engine::flags::LocalReply;
use lateen_engine::message::{Headers, RequestHead};
use lateen_engine::route::Route;

use super::connection::Context;
use super::filters::said_by;
use super::request::Exchange;
use super::state::FilterStats;
use crate::listener::drain::{Drain, Phase};

/// By what a request was let pass, and what rules look at that does not go up as it came.
pub(super) struct Passed {
    /// The configuration in force when it began, or a later one that let it pass again.
    by: Option<Rc<Context>>,
    /// Drains when that is over; none if nothing will come in its place.
    until: Option<Drain>,
    pub(super) authority: Bytes,
    /// If they were changed.
    pub(super) headers: Option<Headers>,
}

impl Passed {
    /// By what is in force when it begins.
    pub(super) fn new(context: &Context) -> Self {
        Self { by: None, until: Some(context.until()), authority: Bytes::new(), headers: None }
    }
}

impl Exchange<'_> {
    /// Ready with an answer once the request may not go on, which `headers` went up with: by default those in the record.
    pub(super) fn poll_revoked(
        &mut self,
        route: &Route,
        headers: Option<&Headers>,
        cx: &mut Task<'_>,
    ) -> Poll<Box<LocalReply>> {
        loop {
            let Some(until) = &mut self.passed.until else { return Poll::Pending };
            ready!(until.poll_reached(Phase::Draining, cx));
            let next = self.passed.by.as_ref().unwrap_or(self.context).successor();
            if let Some(answer) = self.judge(&next, route, headers) {
                return Poll::Ready(Box::new(answer));
            }
            // While everything ends, it ends under whatever rules there are.
            self.passed.until = Some(next.until()).filter(|until| until.phase() == Phase::Open);
            self.passed.by = Some(next);
        }
    }

    /// Runs `work` to its end, unless the request may not go on.
    ///
    /// # Errors
    /// The answer to it.
    pub(super) async fn unless_revoked<T>(
        &mut self,
        route: &Route,
        headers: Option<&Headers>,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Box<LocalReply>> {
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_revoked(route, headers, cx).map(Err),
        })
        .await
    }

    /// The answer of `next` to the request as it came, if it is denied.
    fn judge(&self, next: &Context, route: &Route, headers: Option<&Headers>) -> Option<LocalReply> {
        if let Some(rejection) = &next.rejection {
            return Some(rejection.reply());
        }
        let head = RequestHead {
            method: self.method.clone(),
            scheme: self.head.scheme,
            authority: self.passed.authority.clone(),
            path: self.info.original_path.as_ref().unwrap_or(&self.info.path).clone(),
            headers: self.passed.headers.as_ref().or(headers).unwrap_or(&self.info.request_headers).clone(),
            version: self.head.version,
        };
        let per_filter = said_by(route, &head, self.random);
        next.manager.filters.iter().enumerate().find_map(|(place, filter)| {
            let said: Option<&Override> = per_filter.get(&filter.name);
            let rules = filter.kind.access_rules(said)?;
            let verdicts = rules.decide(&self.subject(&head));
            let denied = verdicts.enforced.as_ref().filter(|verdict| !verdict.allowed)?;
            if let Some(FilterStats::Rbac(stats)) = next.state.filters.get(place) {
                stats.count(&verdicts);
            }
            Some(denial(denied))
        })
    }
}
