//! What proxies tell the control plane of traffic while it passes, so that a mesh can be looked at with nothing else
//! installed: the messages of one stream, and its two ends.
//!
//! A proxy opens the stream on the connection by which it has its configuration, and says who it is. The control plane
//! answers with what it wants ([`Asked`]): names of metrics, of whose series it wants to hear what is added, and labels by
//! which to tell them apart. From then on the proxy tells about once a second what has been added ([`Told`]), and nothing
//! while nothing is. A set of labels is written out once and called by a number after that, so that a busy edge costs some
//! thirty bytes a second. Neither side knows what the metrics mean to the other.
//!
//! A control plane without this service answers `UNIMPLEMENTED`, and a proxy that does not know it does not call: both go on
//! without.

mod tap;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use envoy_types::pb::envoy::config::core::v3::Node;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

pub use tap::{Condition, Header, Is, Lost, Tap, Tapped};

/// What a proxy says. The first message says who it is, and nothing else.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Told {
    /// As in discovery; in the first message alone.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// Upper bounds of the buckets of the proxy's histograms, without the infinite one; in the first message alone.
    #[prost(double, repeated, tag = "2")]
    pub bounds: Vec<f64>,
    /// Sets of labels that numbers of this message, or of later ones, belong to.
    #[prost(message, repeated, tag = "3")]
    pub sets: Vec<LabelSet>,
    #[prost(message, repeated, tag = "4")]
    pub counted: Vec<Counted>,
    #[prost(message, repeated, tag = "5")]
    pub measured: Vec<Measured>,
    /// Ids of sets that no number will belong to any more.
    #[prost(uint32, repeated, tag = "6")]
    pub forgotten: Vec<u32>,
    /// Series whose labels were too many to be told, since the last message.
    #[prost(uint64, tag = "7")]
    pub dropped: u64,
    /// Requests that somebody watches.
    #[prost(message, repeated, tag = "8")]
    pub tapped: Vec<Tapped>,
    #[prost(message, repeated, tag = "9")]
    pub lost: Vec<Lost>,
}

/// Values of the labels that were asked for, in that order; empty for a label that a series has not.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LabelSet {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(string, repeated, tag = "2")]
    pub values: Vec<String>,
}

/// What was added to a counter, or to the sum of a histogram, in units of the metric.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Counted {
    /// Index in [`Counts::metrics`].
    #[prost(uint32, tag = "1")]
    pub metric: u32,
    /// [`LabelSet::id`].
    #[prost(uint32, tag = "2")]
    pub set: u32,
    #[prost(uint64, tag = "3")]
    pub added: u64,
}

/// What was added to the buckets of a histogram.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Measured {
    /// Index in [`Counts::metrics`].
    #[prost(uint32, tag = "1")]
    pub metric: u32,
    /// [`LabelSet::id`].
    #[prost(uint32, tag = "2")]
    pub set: u32,
    /// Those that something was added to: indexes of [`Told::bounds`], and one more for what is above them.
    #[prost(uint32, repeated, tag = "3")]
    pub buckets: Vec<u32>,
    /// How much, for each.
    #[prost(uint64, repeated, tag = "4")]
    pub added: Vec<u64>,
}

/// What the control plane wants: all of it, each time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Asked {
    #[prost(message, optional, tag = "1")]
    pub counts: Option<Counts>,
    #[prost(message, repeated, tag = "2")]
    pub taps: Vec<Tap>,
}

/// Of which series, by which labels.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Counts {
    #[prost(message, repeated, tag = "1")]
    pub metrics: Vec<Metric>,
    /// Series that agree in these are one.
    #[prost(string, repeated, tag = "2")]
    pub labels: Vec<String>,
}

/// A metric by its name for Prometheus.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Metric {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(enumeration = "Of", tag = "2")]
    pub of: i32,
}

/// What of a metric is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
pub enum Of {
    Unspecified = 0,
    /// A counter.
    Count = 1,
    /// The sum of a histogram.
    Sum = 2,
    /// The buckets of a histogram.
    Buckets = 3,
}

/// Upper bounds of the buckets of Envoy's histograms, by default; in milliseconds, where they hold times. What our proxies have,
/// and what the control plane keeps of whatever a proxy says that it has.
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

const SERVICE: &str = "lateen.live.v1.Live";
const METHOD: &str = "/lateen.live.v1.Live/Tell";

/// Neither side takes a longer message.
const MESSAGE_BYTES: usize = 16 << 20;

/// The proxy's end.
///
/// # Errors
/// The control plane does not take the stream; `UNIMPLEMENTED` where it does not know of it.
pub async fn tell(
    channel: Channel,
    authorization: Option<MetadataValue<Ascii>>,
    told: mpsc::Receiver<Told>,
) -> Result<Streaming<Asked>, Status> {
    let mut request = Request::new(ReceiverStream::new(told));
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization);
    }
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Told, Asked>::default();
    let answer = client.streaming(request, PathAndQuery::from_static(METHOD), codec).await?;
    Ok(answer.into_inner())
}

/// Who hears what proxies tell.
pub trait Listener: Send + Sync + 'static {
    /// Follows a stream in a task of its own, and says what is wanted by what it returns.
    fn hear(
        self: Arc<Self>,
        told: Request<Streaming<Told>>,
    ) -> impl Future<Output = Result<mpsc::Receiver<Result<Asked, Status>>, Status>> + Send;
}

/// The control plane's end, for a tonic server. Cloning shares.
pub struct Server<L>(Arc<L>);

impl<L> Server<L> {
    pub fn new(listener: Arc<L>) -> Self {
        Self(listener)
    }
}

impl<L> Clone for Server<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<L> NamedService for Server<L> {
    const NAME: &'static str = SERVICE;
}

impl<L: Listener> Service<http::Request<Body>> for Server<L> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let hear = Hear(Arc::clone(&self.0));
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let codec = ProstCodec::<Asked, Told>::default();
            let mut server = tonic::server::Grpc::new(codec).max_decoding_message_size(MESSAGE_BYTES);
            Ok(server.streaming(hear, request).await)
        })
    }
}

/// The method, in the form that the gRPC server calls.
struct Hear<L>(Arc<L>);

impl<L: Listener> StreamingService<Told> for Hear<L> {
    type Response = Asked;
    type ResponseStream = ReceiverStream<Result<Asked, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Told>>) -> Self::Future {
        let listener = Arc::clone(&self.0);
        Box::pin(async move { Ok(Response::new(ReceiverStream::new(listener.hear(request).await?))) })
    }
}
