//! The application's own metrics, which are given together with the proxy's at one port (Istio: `enablePrometheusMerge`): who
//! scrapes a pod then needs no way to the application, which may speak nothing but mutual TLS to others.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::ports;
use crate::bootstrap::env;

/// How long the application may take if who scrapes does not say how long it waits itself (Istio's agent).
const USUAL_PATIENCE: Duration = Duration::from_secs(10);
const MOST_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an answer. A larger one is left out, and counted as failed.
const LARGEST: usize = 32 << 20;
/// The one form in which metrics of two programs can stand together: OpenMetrics has an end.
const FORM: &str = "text/plain;version=0.0.4";

/// Where the application has its metrics.
#[derive(Debug)]
pub(crate) struct Application {
    address: SocketAddr,
    path: PathAndQuery,
    /// It is asked by one at a time, however many scrape the proxy.
    place: Semaphore,
}

/// What the injector writes, which are the pod's annotations `prometheus.io/…`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Annotations {
    scrape: String,
    path: String,
    port: String,
}

impl Default for Annotations {
    fn default() -> Self {
        Self { scrape: String::new(), path: "/metrics".to_owned(), port: "80".to_owned() }
    }
}

impl Application {
    /// As the environment says; none: it has no metrics.
    ///
    /// # Errors
    /// The variable says something else than the injector writes.
    pub(crate) fn from_environment() -> anyhow::Result<Option<Self>> {
        let name = env::PROMETHEUS_ANNOTATIONS;
        match env::variable(name).filter(|text| !text.is_empty()) {
            Some(text) => Self::read(&text).with_context(|| format!("the environment variable {name}")),
            None => Ok(None),
        }
    }

    fn read(text: &str) -> anyhow::Result<Option<Self>> {
        let Annotations { scrape, path, port } = serde_json::from_str(text)?;
        if !scrape.eq_ignore_ascii_case("true") {
            return Ok(None);
        }
        let port: u16 = port.parse().map_err(|_| anyhow!("`{port}` is not a port"))?;
        if port == ports::AGENT {
            return Err(anyhow!("the port {port} is the proxy's own"));
        }
        let rooted = if path.starts_with('/') { path } else { format!("/{path}") };
        let path = rooted.parse().map_err(|_| anyhow!("`{rooted}` is not a path"))?;
        Ok(Some(Self { address: (Ipv4Addr::LOCALHOST, port).into(), path, place: Semaphore::new(1) }))
    }

    /// The application's metrics, in Prometheus' text form; `asked`: the headers of who scrapes the proxy.
    ///
    /// # Errors
    /// It could not be reached, does not answer in time, or answers something else.
    pub(crate) async fn metrics(&self, asked: &HeaderMap) -> anyhow::Result<Bytes> {
        let fetched = async {
            let _place = self.place.acquire().await?;
            self.fetch().await
        };
        tokio::time::timeout(patience(asked), fetched).await.map_err(|_| anyhow!("no answer in time"))?
    }

    async fn fetch(&self) -> anyhow::Result<Bytes> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(self.path.clone())
            .header(header::HOST, self.address.to_string())
            .header(header::ACCEPT, FORM)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let answered = sender.send_request(request).await;
        let read = async {
            let answer = answered?;
            if answer.status() != StatusCode::OK {
                return Err(anyhow!("the answer has the status {}", answer.status()));
            }
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            Ok(body.map_err(|error| anyhow!("{error}"))?.to_bytes())
        };
        let body = read.await;
        connection.abort();
        body
    }
}

/// How long who scrapes waits (`X-Prometheus-Scrape-Timeout-Seconds`), within reason.
fn patience(asked: &HeaderMap) -> Duration {
    let seconds = asked.get("x-prometheus-scrape-timeout-seconds").and_then(|value| value.to_str().ok()?.parse().ok());
    let given = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    given.filter(|time| !time.is_zero()).unwrap_or(USUAL_PATIENCE).min(MOST_PATIENCE)
}

/// Both, each on lines of its own; the application's last, without the end that some write all the same.
pub(crate) fn together(own: String, application: &[u8]) -> Bytes {
    let application = application.strip_suffix(b"# EOF\n").unwrap_or(application);
    let mut text = own.into_bytes();
    text.extend_from_slice(application);
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_say_where_to_ask() {
        let read = |text: &str| Application::read(text).map(|it| it.map(|it| format!("{}{}", it.address, it.path)));
        let at = |text: &str| read(text).expect("it is right");
        assert_eq!(at(r#"{"scrape":"true"}"#).as_deref(), Some("127.0.0.1:80/metrics"));
        assert_eq!(
            at(r#"{"scrape":"true","path":"stats?a=b","port":"9102"}"#).as_deref(),
            Some("127.0.0.1:9102/stats?a=b")
        );
        assert_eq!(at(r#"{"scrape":"false","port":"9102"}"#), None);
        assert_eq!(at("{}"), None);
        for wrong in
            [r#"{"scrape":"true","port":"web"}"#, r#"{"scrape":"true","port":"15020"}"#, "true", r#"{"a":"b"}"#]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_application_has_as_long_as_who_scrapes_waits() {
        let patience = |value: &str| {
            let value = http::HeaderValue::from_str(value).expect("a value");
            patience(&HeaderMap::from_iter([(
                http::HeaderName::from_static("x-prometheus-scrape-timeout-seconds"),
                value,
            )]))
        };
        assert_eq!(patience("2.5"), Duration::from_millis(2500));
        assert_eq!(patience("1e9"), MOST_PATIENCE);
        for nonsense in ["", "-1", "NaN", "0"] {
            assert_eq!(patience(nonsense), USUAL_PATIENCE, "{nonsense}");
        }
    }

    #[test]
    fn two_texts_become_one_without_an_end_in_the_middle() {
        assert_eq!(together("a 1\n".to_owned(), b"b 2\n# EOF\n"), "a 1\nb 2\n");
        assert_eq!(together("a 1\n".to_owned(), b"b 2"), "a 1\nb 2\n");
        assert_eq!(together(String::new(), b""), "");
    }
}
