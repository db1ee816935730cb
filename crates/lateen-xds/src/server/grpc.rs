//! The discovery service as HTTP/2 requests.
//!
//! Requests and responses are framed here: each message is put together in a buffer of its own, which is free when it has
//! been read or sent. What gRPC libraries do, one buffer for all messages of a stream, keeps as much memory for each proxy
//! as its biggest message needed, for as long as it is connected.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready as when_ready};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3 as xds;
use http::{HeaderMap, HeaderValue, header};
use hyper::body::Frame;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;

use super::requests::Requests;
use super::service::{Discovery, Peer, Serves, Shared};
use super::session::TYPES;
use super::{Request, Response, Variant};

/// What a tonic server serves: the aggregated service. Cloning shares.
pub struct Server<D>(pub(super) Arc<Shared<D>>);

/// The same of secrets alone: `SecretDiscoveryService`. Its clients need not say who they are. Cloning shares.
pub struct SecretServer<D>(pub(super) Arc<Shared<D>>);

impl<D> Clone for SecretServer<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D> NamedService for SecretServer<D> {
    const NAME: &'static str = "envoy.service.secret.v3.SecretDiscoveryService";
}

impl<D: Discovery> tonic::codegen::Service<http::Request<Body>> for SecretServer<D> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        ready(Ok(match method {
            "DeltaSecrets" => open::<D, Delta>(&self.0, request, Serves::Secrets),
            "StreamSecrets" => open::<D, StateOfTheWorld>(&self.0, request, Serves::Secrets),
            _ => Status::unimplemented("secrets come by DeltaSecrets and StreamSecrets").into_http(),
        }))
    }
}

impl<D> Clone for Server<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D> NamedService for Server<D> {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<D: Discovery> tonic::codegen::Service<http::Request<Body>> for Server<D> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        ready(Ok(match method {
            "DeltaAggregatedResources" => open::<D, Delta>(&self.0, request, Serves::All),
            "StreamAggregatedResources" => open::<D, StateOfTheWorld>(&self.0, request, Serves::All),
            _ => Status::unimplemented("no such method").into_http(),
        }))
    }
}

/// Starts following a stream.
fn open<D: Discovery, W: Wire>(
    shared: &Arc<Shared<D>>,
    request: http::Request<Body>,
    serves: Serves,
) -> http::Response<Body> {
    let (head, body) = request.into_parts();
    let requests = Requests::new(body);
    let request = tonic::Request::from_parts(MetadataMap::from_headers(head.headers), head.extensions, ());
    let address = request.remote_addr();
    let (metadata, extensions, ()) = request.into_parts();
    let peer = Peer { address, metadata, extensions, variant: W::VARIANT };
    // At most one response of each type waits, and the end of the stream.
    let (responses, receiver) = mpsc::channel(TYPES + 1);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        if let Err(status) = shared.serve::<W>(peer, serves, requests, &responses).await {
            tracing::debug!(?address, code = ?status.code(), reason = status.message(), "stream ends");
            // Full or closed: nobody is there to read it.
            let _ = responses.try_send(Err(status));
        }
    });
    let mut response = http::Response::new(Body::new(Outgoing { receiver, variant: W::VARIANT, ended: false }));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The responses of a stream as the body of an HTTP response, its status in the trailers.
struct Outgoing {
    receiver: mpsc::Receiver<Result<Response, Status>>,
    variant: Variant,
    ended: bool,
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match when_ready!(self.receiver.poll_recv(cx)) {
            Some(Ok(response)) => return Poll::Ready(Some(Ok(Frame::data(response.frame(self.variant))))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.ended = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// What differs between the variants on the wire.
pub(super) trait Wire: 'static {
    const VARIANT: Variant;
    type Request: Into<Request> + Message + Default + 'static;
    fn take_node(request: &mut Self::Request) -> Option<Node>;
}

struct Delta;

impl Wire for Delta {
    const VARIANT: Variant = Variant::Delta;
    type Request = xds::DeltaDiscoveryRequest;

    fn take_node(request: &mut Self::Request) -> Option<Node> {
        request.node.take()
    }
}

struct StateOfTheWorld;

impl Wire for StateOfTheWorld {
    const VARIANT: Variant = Variant::StateOfTheWorld;
    type Request = xds::DiscoveryRequest;

    fn take_node(request: &mut Self::Request) -> Option<Node> {
        request.node.take()
    }
}
