//! A rate limit service that does what it is asked: a descriptor's entry `ask` says, in words between commas, what the
//! answer is to be; the answer's header `x-asked` repeats the question.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

pub(crate) async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    let serving = tonic::transport::Server::builder()
        .add_service(RateLimitServiceServer::new(Limiter))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    address
}

struct Limiter;

#[tonic::async_trait]
impl RateLimitService for Limiter {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        let mut answer = RateLimitResponse { overall_code: Code::Ok as i32, ..RateLimitResponse::default() };
        answer.response_headers_to_add.push(header("x-asked", &repeated(&request)));
        for descriptor in &request.descriptors {
            let asked = descriptor.entries.iter().filter(|entry| entry.key == "ask");
            let mut status = DescriptorStatus { code: Code::Ok as i32, ..DescriptorStatus::default() };
            for word in asked.flat_map(|entry| entry.value.split(',')) {
                obey(word, &mut answer, &mut status).await?;
            }
            answer.statuses.push(status);
        }
        Ok(Response::new(answer))
    }
}

async fn obey(word: &str, answer: &mut RateLimitResponse, status: &mut DescriptorStatus) -> Result<(), Status> {
    let (word, value) = word.split_once('=').unwrap_or((word, ""));
    let number = || value.parse::<u32>().expect("the rows ask for numbers");
    match word {
        "over" => {
            answer.overall_code = Code::OverLimit as i32;
            status.code = Code::OverLimit as i32;
        }
        "unknown" => answer.overall_code = Code::Unknown as i32,
        "error" => return Err(Status::internal("as asked")),
        "never" => std::future::pending().await,
        "body" => answer.raw_body = value.as_bytes().to_vec(),
        "left" => status.limit_remaining = number(),
        "reset" => status.duration_until_reset = Some(Duration { seconds: number().into(), nanos: 500_000_000 }),
        "limit" => limit(status).requests_per_unit = number(),
        "unit" => limit(status).unit = Unit::from_str_name(value).expect("the rows ask for units") as i32,
        "name" => value.clone_into(&mut limit(status).name),
        "up" => answer.request_headers_to_add.push(header("x-up", value)),
        "down" => answer.response_headers_to_add.push(header("x-down", value)),
        "type" => answer.response_headers_to_add.push(header("content-type", value)),
        "retry" => answer.response_headers_to_add.push(header("retry-after", value)),
        _ => {}
    }
    Ok(())
}

fn limit(status: &mut DescriptorStatus) -> &mut RateLimit {
    status.current_limit.get_or_insert_default()
}

fn header(key: &str, value: &str) -> HeaderValue {
    HeaderValue { key: key.to_owned(), value: value.to_owned(), ..HeaderValue::default() }
}

/// `domain: key=value key=value; …`.
fn repeated(request: &RateLimitRequest) -> String {
    let descriptors = request.descriptors.iter().map(|descriptor| {
        let entries = descriptor.entries.iter().map(|entry| format!("{}={}", entry.key, entry.value));
        entries.collect::<Vec<_>>().join(" ")
    });
    format!("{}: {} hits={}", request.domain, descriptors.collect::<Vec<_>>().join("; "), request.hits_addend)
}
