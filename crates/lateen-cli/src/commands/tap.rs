//! `lateen tap`: requests while they pass, one a line; with their headers where that is asked for.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use lateen_control::traffic::view::{Header, Request};

use super::{StateOption, traffic};
use crate::api::{ControlPlane, Seen};
use crate::runtime::paint::{ERROR, FAINT, GOOD, PLAIN, WARNING};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Who asks: a workload, app or service, with its namespace if need be (web, web.shop).
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Who is asked.
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Only requests from or to workloads of this namespace [default: all].
    #[arg(short, long)]
    namespace: Option<String>,
    #[arg(long)]
    method: Option<String>,
    /// What the path begins with.
    #[arg(long)]
    path: Option<String>,
    /// 503, or a class: 5xx.
    #[arg(long)]
    status: Option<String>,
    /// Only requests that took so long or longer: 100ms, 2s.
    #[arg(long, value_name = "TIME")]
    min_latency: Option<String>,
    /// So many of a hundred that fit [default: all].
    #[arg(long, value_name = "PERCENT")]
    sample: Option<f64>,
    /// So many a second at most, of each proxy [default: 10].
    #[arg(long, value_name = "COUNT")]
    rate: Option<u32>,
    /// With headers; values that may be secrets are left out.
    #[arg(long)]
    headers: bool,
    /// With what bodies begin with, as far as they are JSON or forms: names of fields, and values of those that --reveal names.
    #[arg(long)]
    bodies: bool,
    /// So many bytes of each body.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, requires = "bodies")]
    body_bytes: u32,
    /// With the value of this header or field, too; never of those that carry credentials.
    #[arg(long, value_name = "NAME")]
    reveal: Vec<String>,
    /// End after so many requests.
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    #[arg(short, long, value_enum, default_value = "line")]
    output: Output,
    #[command(flatten)]
    state: StateOption,
}

/// For people, or for programs: an object a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Line,
    Json,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = arguments.state.open()?;
    state.require_running()?;
    let control_plane = ControlPlane::at(&state.lateend_socket());
    super::block_on(watch(arguments, &control_plane))?;
    Ok(ExitCode::SUCCESS)
}

async fn watch(arguments: &Arguments, control_plane: &ControlPlane) -> anyhow::Result<()> {
    let mut requests = control_plane.tap(&query(arguments)).await?;
    let mut left = arguments.count;
    while left != Some(0) {
        let written = match requests.next().await? {
            Some(Seen::Request(request)) => {
                left = left.map(|left| left - 1);
                let text = match arguments.output {
                    Output::Json => serde_json::to_string(&request)? + "\n",
                    Output::Line => lines(&request),
                };
                let mut out = anstream::stdout();
                write!(out, "{text}").and_then(|()| out.flush())
            }
            Some(Seen::Lost(count)) => {
                anstream::eprintln!("{FAINT}{count} more were left out (--rate, --sample){PLAIN}");
                Ok(())
            }
            None => anyhow::bail!("the control plane has gone away"),
        };
        if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            break;
        }
    }
    Ok(())
}

/// As the API has it.
fn query(arguments: &Arguments) -> String {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for (name, value) in [
        ("from", &arguments.from),
        ("to", &arguments.to),
        ("namespace", &arguments.namespace),
        ("method", &arguments.method),
        ("path", &arguments.path),
        ("status", &arguments.status),
        ("minLatency", &arguments.min_latency),
    ] {
        pairs.extend(value.iter().map(|value| (name, value.clone())));
    }
    pairs.extend(arguments.sample.map(|sample| ("sample", sample.to_string())));
    pairs.extend(arguments.rate.map(|rate| ("rate", rate.to_string())));
    if arguments.headers {
        pairs.push(("headers", "true".to_owned()));
    }
    if arguments.bodies {
        pairs.push(("bodyBytes", arguments.body_bytes.to_string()));
    }
    if !arguments.reveal.is_empty() {
        pairs.push(("reveal", arguments.reveal.join(",")));
    }
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={}", encoded(&value))).collect();
    pairs.join("&")
}

/// RFC 3986, section 2.1, for all but unreserved letters.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

/// One for the request, and one for each of its headers. What comes from requests has no letters that steer a terminal.
fn lines(request: &Request) -> String {
    let colour = match request.status {
        0 | 500.. => ERROR,
        400..=499 => WARNING,
        _ => GOOD,
    };
    let to = match (&request.destination.workload, &request.service.name) {
        (None, Some(service)) => format!("{service} (service)"),
        _ => request.destination.to_string(),
    };
    let status = match &request.grpc_status {
        Some(grpc) => format!("{} (grpc {grpc})", request.status),
        None => request.status.to_string(),
    };
    let flags = request.flags.as_ref().map(|flags| format!(" {flags}")).unwrap_or_default();
    let time = request.at.split(['T', '.', 'Z']).nth(1).unwrap_or_default();
    let mut text = format!(
        "{FAINT}{time}{PLAIN} {} -> {to} {} {}{} {colour}{status}{flags}{PLAIN} {} {}\n",
        request.source,
        plain(&request.method),
        plain(&request.authority),
        plain(&request.path),
        traffic::milliseconds(request.milliseconds),
        traffic::security(request.security),
    );
    for (mark, headers, body) in [
        ('>', &request.request_headers, &request.request_body),
        ('<', &request.response_headers, &request.response_body),
    ] {
        for Header { name, value } in headers {
            let value = value.as_deref().unwrap_or("[redacted]");
            text += &format!("    {mark} {}: {}\n", plain(name), plain(value));
        }
        if let Some(body) = body {
            text += &format!("    {mark} {}\n", plain(body));
        }
    }
    text
}

fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|letter| if letter.is_control() { letter.escape_default().collect() } else { vec![letter] })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_a_line_that_steers_no_terminal() {
        let request: Request = serde_json::from_value(json!({
            "at": "2026-11-28T12:00:01.5Z", "proxy": "web-1.default", "reporter": "source",
            "source": {"workload": "web", "namespace": "default"}, "destination": {},
            "service": {"name": "reviews"}, "protocol": "http", "security": "mutual_tls", "method": "GET",
            "authority": "reviews:9080", "path": "/\u{1b}[31m", "status": 503, "grpcStatus": null, "flags": "UF",
            "milliseconds": 12.3, "requestBytes": 0, "responseBytes": 0,
            "requestHeaders": [{"name": "cookie", "value": null}], "responseHeaders": [],
            "requestBody": null, "responseBody": "{\"id\": 1}",
        }))
        .expect("it is a request");
        let shown = anstream::adapter::strip_str(&lines(&request)).to_string();
        assert_eq!(
            shown,
            "12:00:01 web.default -> reviews (service) GET reviews:9080/\\u{1b}[31m 503 UF 12ms mutual TLS\n    > cookie: [redacted]\n    < {\"id\": 1}\n"
        );
    }

    #[test]
    fn anything_can_be_asked_for() {
        assert_eq!(encoded("/a b?c=%&d"), "%2Fa%20b%3Fc%3D%25%26d");
    }
}
