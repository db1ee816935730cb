//! httpbin: the part of the well-known request echo that mesh tutorials use.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get};
use serde_json::{Map, Value, json};

const MAX_BYTES: usize = 10 << 20;
const MAX_DELAY: Duration = Duration::from_secs(10);

pub(crate) fn router() -> Router {
    Router::new()
        .route("/", get(|| std::future::ready("httpbin stand-in: /get /headers /status/418 /delay/1 …\n")))
        .route("/get", get(echo))
        // Not httpbin's: what Prometheus would ask for.
        .route("/metrics", get(|| std::future::ready("# TYPE sample_app_up gauge\nsample_app_up 1\n")))
        .route("/post", axum::routing::post(echo))
        .route("/put", axum::routing::put(echo))
        .route("/patch", axum::routing::patch(echo))
        .route("/delete", axum::routing::delete(echo))
        .route("/anything", any(echo))
        .route("/anything/{*rest}", any(echo))
        .route("/headers", get(headers))
        .route("/ip", get(ip))
        .route("/user-agent", get(user_agent))
        .route("/uuid", get(uuid))
        .route("/status/{code}", any(status))
        .route("/delay/{seconds}", any(delay))
        .route("/bytes/{count}", get(bytes))
        .route("/redirect/{count}", get(redirect))
        .route("/response-headers", get(response_headers))
        .layer(DefaultBodyLimit::max(MAX_BYTES))
}

fn pretty(body: &Value) -> Response {
    let text = format!("{body:#}\n");
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response()
}

/// Header values by name, each a list, as the original prints them.
fn listed(headers: &HeaderMap) -> Value {
    let mut map = Map::new();
    for (name, value) in headers {
        let text = Value::String(String::from_utf8_lossy(value.as_bytes()).into_owned());
        match map.entry(name.as_str()).or_insert_with(|| json!([])) {
            Value::Array(list) => list.push(text),
            _ => unreachable!("only lists are inserted"),
        }
    }
    Value::Object(map)
}

async fn echo(
    method: Method,
    uri: Uri,
    Query(query): Query<Vec<(String, String)>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut args = Map::new();
    for (name, value) in query {
        if let Value::Array(list) = args.entry(name).or_insert_with(|| json!([])) {
            list.push(Value::String(value));
        }
    }
    pretty(&json!({
        "args": args,
        "headers": listed(&headers),
        "method": method.as_str(),
        "origin": peer.ip().to_string(),
        "url": uri.to_string(),
        "data": String::from_utf8_lossy(&body),
    }))
}

async fn headers(headers: HeaderMap) -> Response {
    pretty(&json!({ "headers": listed(&headers) }))
}

async fn ip(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Response {
    pretty(&json!({ "origin": peer.ip().to_string() }))
}

async fn user_agent(headers: HeaderMap) -> Response {
    let agent = headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    pretty(&json!({ "user-agent": agent }))
}

async fn uuid() -> Response {
    pretty(&json!({ "uuid": uuid::Uuid::new_v4().to_string() }))
}

async fn status(Path(code): Path<u16>) -> Response {
    match StatusCode::from_u16(code).ok().filter(|status| status.as_u16() >= 200) {
        Some(status) => (status, if code == 418 { "I'm a teapot!\n" } else { "" }).into_response(),
        None => (StatusCode::BAD_REQUEST, "a status is a number from 200 to 999\n").into_response(),
    }
}

async fn delay(Path(seconds): Path<f64>, headers: HeaderMap) -> Response {
    let Ok(wait) = Duration::try_from_secs_f64(seconds) else {
        return (StatusCode::BAD_REQUEST, "a delay is a number of seconds\n").into_response();
    };
    tokio::time::sleep(wait.min(MAX_DELAY)).await;
    pretty(&json!({ "headers": listed(&headers) }))
}

async fn bytes(Path(count): Path<usize>) -> Response {
    let body: Vec<u8> = (b'a'..=b'z').cycle().take(count.min(MAX_BYTES)).collect();
    ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

async fn redirect(Path(count): Path<u32>) -> Redirect {
    Redirect::to(&if count <= 1 { "/get".to_owned() } else { format!("/redirect/{}", count.min(20) - 1) })
}

async fn response_headers(Query(query): Query<Vec<(String, String)>>) -> Response {
    let mut response = pretty(&json!(query));
    for (name, value) in query {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            return (StatusCode::BAD_REQUEST, "that is no header\n").into_response();
        };
        response.headers_mut().append(name, value);
    }
    response
}
