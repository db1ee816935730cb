//! External authorizers, by gRPC and by HTTP, that do what a request's header `x-authz` asks for, in words between semicolons;
//! `x-asked` repeats what they were asked, but for what differs between any two requests.

#![expect(deprecated, reason = "services in the wild still say `append`")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, QueryParameter};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::Peer;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value, value::Kind};
use envoy_types::pb::google::rpc;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

pub(crate) struct Authorizers {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Authorizers {
    pub(crate) async fn start() -> Self {
        let (grpc_listener, grpc) = listen().await;
        let serving = tonic::transport::Server::builder()
            .add_service(AuthorizationServer::new(Authorizer))
            .serve_with_incoming(TcpListenerStream::new(grpc_listener));
        tokio::spawn(serving);
        let (listener, http) = listen().await;
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(async move {
                    // A proxy that goes away is part of the tests.
                    let _ = Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                });
            }
        });
        Self { grpc, http }
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    (listener, address)
}

struct Authorizer;

#[tonic::async_trait]
impl Authorization for Authorizer {
    async fn check(&self, request: tonic::Request<CheckRequest>) -> Result<tonic::Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.expect("the question has attributes");
        let words = words(&attributes);
        let mut answer = Asked::default();
        answer.ok.headers.push(option("x-asked", &repeated(&attributes), "set"));
        answer.denied.headers.push(option("x-asked", &repeated(&attributes), "set"));
        for word in words.split(';') {
            answer.obey(word.trim()).await?;
        }
        Ok(tonic::Response::new(answer.into_message()))
    }
}

#[derive(Default)]
struct Asked {
    verdict: Verdict,
    code: i32,
    ok: OkHttpResponse,
    denied: DeniedHttpResponse,
    metadata: Option<Struct>,
}

#[derive(Default, PartialEq)]
enum Verdict {
    #[default]
    Ok,
    Denied,
    DeniedWithoutMore,
    Failed,
}

impl Asked {
    async fn obey(&mut self, word: &str) -> Result<(), Status> {
        let (word, value) = word.split_once('=').unwrap_or((word, ""));
        let (word, how) = word.split_once('-').unwrap_or((word, ""));
        // The names of some begin with a colon.
        let colon = value.get(1..).and_then(|rest| rest.find(':'));
        let (name, text) = colon.map_or((value, ""), |at| (&value[..=at], &value[at + 2..]));
        match word {
            "deny" => (self.verdict, self.code) = (Verdict::Denied, 7),
            "bare" => (self.verdict, self.code) = (Verdict::DeniedWithoutMore, 16),
            "fail" => (self.verdict, self.code) = (Verdict::Failed, 13),
            "status" => self.denied.status = Some(HttpStatus { code: value.parse().expect("a status is a number") }),
            "body" => value.clone_into(&mut self.denied.body),
            "head" => self.denied.headers.push(option(name, text, how)),
            "up" => self.ok.headers.push(option(name, text, how)),
            "remove" => self.ok.headers_to_remove.push(value.to_owned()),
            "down" => self.ok.response_headers_to_add.push(option(name, text, how)),
            "query" => {
                self.ok.query_parameters_to_set.push(QueryParameter { key: name.to_owned(), value: text.to_owned() })
            }
            "unquery" => self.ok.query_parameters_to_remove.push(value.to_owned()),
            "say" => {
                let fields = &mut self.metadata.get_or_insert_default().fields;
                fields.insert(name.to_owned(), Value { kind: Some(Kind::StringValue(text.to_owned())) });
            }
            "error" => return Err(Status::internal("as asked")),
            "never" => std::future::pending().await,
            _ => {}
        }
        Ok(())
    }

    fn into_message(self) -> CheckResponse {
        CheckResponse {
            status: Some(rpc::Status { code: self.code, ..rpc::Status::default() }),
            http_response: match self.verdict {
                Verdict::Ok => Some(HttpResponse::OkResponse(self.ok)),
                Verdict::Denied => Some(HttpResponse::DeniedResponse(self.denied)),
                Verdict::DeniedWithoutMore => None,
                Verdict::Failed => Some(HttpResponse::ErrorResponse(self.denied)),
            },
            dynamic_metadata: self.metadata,
        }
    }
}

/// A header, and what becomes of one of that name that is there already.
fn option(name: &str, value: &str, how: &str) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() };
    let option = HeaderValueOption { header: Some(header), ..HeaderValueOption::default() };
    let with = |action: HeaderAppendAction| HeaderValueOption { append_action: action as i32, ..option.clone() };
    match how {
        "" | "add" => with(HeaderAppendAction::AppendIfExistsOrAdd),
        "absent" => with(HeaderAppendAction::AddIfAbsent),
        "set" => with(HeaderAppendAction::OverwriteIfExistsOrAdd),
        "present" => with(HeaderAppendAction::OverwriteIfExists),
        "join" => HeaderValueOption { append: Some(BoolValue { value: true }), ..option },
        "replace" => HeaderValueOption { append: Some(BoolValue { value: false }), ..option },
        "odd" => HeaderValueOption { append_action: 99, ..option },
        _ => panic!("no row may ask for {how}"),
    }
}

fn words(attributes: &AttributeContext) -> String {
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
    let Some(http) = http else { return String::new() };
    let raw = http.header_map.iter().flat_map(|map| &map.headers).find(|header| header.key == "x-authz");
    let raw = raw.map(|header| String::from_utf8_lossy(&header.raw_value).into_owned());
    raw.or_else(|| http.headers.get("x-authz").cloned()).unwrap_or_default()
}

/// Of the moment, or of the proxy that asks.
const NOT_REPEATED: &[&str] = &["x-request-id", "x-authz", "x-envoy-expected-rq-timeout-ms", "x-forwarded-for"];

fn repeated(attributes: &AttributeContext) -> String {
    let mut parts = Vec::new();
    for (end, peer) in [("source", &attributes.source), ("destination", &attributes.destination)] {
        if let Some(peer) = peer {
            parts.push(format!("{end}=({})", told(peer)));
        }
    }
    let request = attributes.request.as_ref();
    parts.push(format!("time={}", request.is_some_and(|request| request.time.is_some())));
    if let Some(http) = request.and_then(|request| request.http.as_ref()) {
        parts.push(format!(
            "id={} {} {} {} {} query={} fragment={} size={} {} body={:?} raw={:?}",
            !http.id.is_empty(),
            http.method,
            http.scheme,
            http.host,
            http.path,
            http.query,
            http.fragment,
            http.size,
            http.protocol,
            http.body,
            String::from_utf8_lossy(&http.raw_body),
        ));
        let listed = http.header_map.iter().flat_map(|map| &map.headers);
        let mut listed: Vec<String> = listed
            .filter(|header| !NOT_REPEATED.contains(&header.key.as_str()))
            .map(|header| format!("{}={}", header.key, String::from_utf8_lossy(&header.raw_value)))
            .collect();
        listed.sort();
        let by_name: BTreeMap<_, _> = http.headers.iter().collect();
        let by_name = by_name.iter().filter(|(name, _)| !NOT_REPEATED.contains(&name.as_str()));
        listed.extend(by_name.map(|(name, value)| format!("{name}={value}")));
        parts.push(format!("[{}]", listed.join(" ")));
    }
    let extensions: BTreeMap<_, _> = attributes.context_extensions.iter().collect();
    parts.push(format!("extensions={extensions:?}"));
    for (what, metadata) in [("said", &attributes.metadata_context), ("of route", &attributes.route_metadata_context)] {
        let all = metadata.iter().flat_map(|metadata| &metadata.filter_metadata);
        let all: BTreeMap<_, _> =
            all.map(|(name, fields)| (name, fields.fields.keys().collect::<BTreeSet<_>>())).collect();
        parts.push(format!("{what}={all:?}"));
    }
    parts.push(format!("tls={:?}", attributes.tls_session.as_ref().map(|session| &session.sni)));
    parts.join(" ")
}

fn told(peer: &Peer) -> String {
    let address = match peer.address.as_ref().and_then(|address| address.address.as_ref()) {
        Some(Address::SocketAddress(socket)) => format!("{} {}", socket.address, socket.protocol),
        _ => "nowhere".to_owned(),
    };
    format!("{address} {} {} {} {:?}", peer.service, peer.principal, peer.certificate, peer.labels)
}

async fn answer(request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut headers: Vec<String> = head
        .headers
        .iter()
        .filter(|(name, _)| !NOT_REPEATED.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    headers.sort();
    let asked = format!("{} {} [{}] {:?}", head.method, head.uri, headers.join(" "), String::from_utf8_lossy(&body));
    let mut response = http::Response::builder().header("x-asked", asked);
    let mut text = String::new();
    let words = head.headers.get("x-authz").and_then(|words| words.to_str().ok()).unwrap_or_default();
    for word in words.split(';') {
        let (word, value) = word.trim().split_once('=').unwrap_or((word, ""));
        let (name, said) = value.split_once(':').unwrap_or((value, ""));
        match word {
            "status" => response = response.status(StatusCode::from_bytes(value.as_bytes()).expect("a status")),
            "head" => response = response.header(name, said),
            "body" => value.clone_into(&mut text),
            "never" => std::future::pending().await,
            _ => {}
        }
    }
    Ok(response.body(Full::new(text.into())).expect("the rows ask for valid headers"))
}
