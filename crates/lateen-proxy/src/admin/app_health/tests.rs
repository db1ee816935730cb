//! The app asked in each way, and answers that are none.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::service::service_fn;
use tokio::net::TcpListener;

use super::*;

fn probers(text: &str) -> Probers {
    Probers {
        by_path: serde_json::from_str(text).expect("the questions are understood"),
        pod: Ipv4Addr::LOCALHOST.into(),
    }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn answered(probers: &Probers, path: &str) -> (u16, String) {
    let (head, body) = probers.answer(path).await.into_parts();
    (head.status.as_u16(), String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

/// An app that says what it was asked.
async fn echo(listener: TcpListener, status: u16) {
    let (stream, from) = listener.accept().await.unwrap();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
        let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
        let more = request.headers().get("x-more").map_or("", |value| value.to_str().unwrap()).to_owned();
        let said = format!("{} {host} {more} {}", request.uri(), from.ip());
        let answer = http::Response::builder().status(status).body(Full::<Bytes>::from(said));
        Ok::<_, Infallible>(answer.unwrap())
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

#[tokio::test]
async fn the_app_is_asked_what_its_probe_says_and_its_status_handed_on() {
    for status in [200, 404, 503] {
        let (listener, port) = listener().await;
        tokio::spawn(echo(listener, status));
        let probers = probers(&format!(
            r#"{{"/app-health/web/livez": {{"httpGet": {{"port": {port}, "path": "up?now=1", "scheme": "HTTP",
                "httpHeaders": [{{"name": "Host", "value": "web.example"}}, {{"name": "X-More", "value": "a"}}]}}}}}}"#
        ));
        let expected = "/up?now=1 web.example a 127.0.0.6".to_owned();
        assert_eq!(answered(&probers, "/app-health/web/livez").await, (status, expected));
        assert_eq!(answered(&probers, "/app-health/web/readyz").await.0, 404);
    }
}

#[tokio::test]
async fn an_open_port_is_enough_where_that_is_asked() {
    let (listener, port) = listener().await;
    let probers = probers(&format!(r#"{{"/p": {{"tcpSocket": {{"port": {port}}}, "timeoutSeconds": 5}}}}"#));
    assert_eq!(answered(&probers, "/p").await.0, 200);
    drop(listener);
    let (status, body) = answered(&probers, "/p").await;
    assert!(status == 500 && body.contains(&format!("connect to port {port} of the app")), "{status} {body}");
}

#[tokio::test]
async fn a_silent_app_and_another_host_are_answered_for() {
    let (_silent, port) = listener().await;
    let probers = probers(&format!(
        r#"{{"/silent": {{"httpGet": {{"port": {port}}}}}, "/other": {{"httpGet": {{"port": {port}, "host": "example.org"}}}}}}"#
    ));
    assert_eq!(answered(&probers, "/silent").await, (500, "the app does not answer in time\n".to_owned()));
    assert_eq!(answered(&probers, "/other").await, (500, "example.org is another host\n".to_owned()));
}

#[tokio::test]
async fn an_app_with_a_certificate_of_its_own_is_asked_over_tls() {
    let (listener, port) = listener().await;
    let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        let service =
            service_fn(|_| async { Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::from("secured"))) });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
    let probers = probers(&format!(
        r#"{{"/p": {{"httpGet": {{"port": {port}, "path": "/", "scheme": "HTTPS"}}, "timeoutSeconds": 10}}}}"#
    ));
    assert_eq!(answered(&probers, "/p").await, (200, "secured".to_owned()));
}

/// An app of `grpc.health.v1` with this status for the service `shop`, and NOT_FOUND for others.
async fn grpc(listener: TcpListener, status: i32) {
    let (stream, _) = listener.accept().await.unwrap();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let asked = HealthCheckRequest::decode(&body[PREFIX..]).unwrap();
        let code = if asked.service == "shop" { "0" } else { "5" };
        let message = HealthCheckResponse { status }.encode_to_vec();
        let mut bytes = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        bytes.extend(message);
        let trailers =
            http::HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static(code))]);
        let frames = [Frame::data(Bytes::from(bytes)), Frame::trailers(trailers)];
        let body = StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, Infallible>)));
        Ok::<_, Infallible>(http::Response::new(body))
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

#[tokio::test]
async fn an_app_of_grpc_is_asked_by_its_health_protocol() {
    for (service, status, expected) in [("shop", SERVING, 200), ("shop", 2, 500), ("other", SERVING, 500)] {
        let (listener, port) = listener().await;
        tokio::spawn(grpc(listener, status));
        let probers = probers(&format!(
            r#"{{"/p": {{"grpc": {{"port": {port}, "service": "{service}"}}, "timeoutSeconds": 10}}}}"#
        ));
        let (status, body) = answered(&probers, "/p").await;
        assert_eq!(status, expected, "{service}: {body}");
    }
}
