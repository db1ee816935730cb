//! What fuzzers run, and every test run with the inputs that are kept in `fuzz/corpus/dns`. Not part of the program.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hickory_proto::op::{Message, MessageType};
use tokio::sync::watch;

use super::server::Resolver;
use super::{Answer, Forwarder, Names};

/// Whatever is asked is answered with one response to it, or not at all; over UDP, with no more than fits.
pub fn dns(query: &[u8]) {
    let mut names = Names::new("cluster.local");
    names.insert("a.default.svc.cluster.local", Answer::Addresses(vec![Ipv4Addr::LOCALHOST]));
    names.insert("b.default.svc.cluster.local", Answer::Alias("elsewhere.test".to_owned()));
    let many = (0..200).map(|index| Ipv4Addr::new(10, 0, 0, index)).collect();
    names.insert("c.default.svc.cluster.local", Answer::Addresses(many));
    let (_keep, names) = watch::channel(Arc::new(names));
    let forwarder: Forwarder = Arc::new(|_| Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST; 4]) }));
    let resolver = Resolver::new(names, forwarder);
    for udp in [false, true] {
        let mut answering = std::pin::pin!(resolver.answer(query, udp));
        let answer = match answering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("there is nothing to wait for"),
        };
        let Some(answer) = answer else { continue };
        assert_eq!(answer[..2], query[..2], "it is an answer to the query");
        let message = Message::from_vec(&answer).expect("an answer can be read");
        assert_eq!(message.metadata.message_type, MessageType::Response);
        assert!(!udp || answer.len() <= 512 || Message::from_vec(query).is_ok_and(|query| query.edns.is_some()));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn inputs_that_are_kept_still_pass() {
        lateen_testing::corpus::replay("dns", super::dns);
    }
}
