//! Rules for providers of the mesh config: those that decide about requests, and those that are told of them.

use super::names;
use crate::extension_providers::{
    ExtAuthzGrpc, ExtAuthzHttp, FileAccessLog, HttpHeader, LogFormat, OpenTelemetry, OtelAccessLog, RequestBody, Zipkin,
};
use crate::scalar::Duration;

/// A field, and what is wrong with it.
type Wrong = (String, String);

/// A DNS label: the name becomes part of the names of policies in proxies.
pub(crate) fn name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() {
        return Err("`name` is required and missing".to_owned());
    }
    if name.len() > 63 || !name.bytes().all(fits) || name.starts_with('-') || name.ends_with('-') {
        return Err(format!(
            "`{name}` is no name of a provider: at most 63 of a-z, 0-9 and -, no hyphen at either end"
        ));
    }
    Ok(())
}

pub(crate) fn http(provider: &ExtAuthzHttp) -> Vec<Wrong> {
    let mut out = shared(&provider.service, provider.port, provider.timeout, &provider.status_on_error);
    out.extend(body(provider.include_request_body_in_check));
    let prefix = &provider.path_prefix;
    if !prefix.is_empty() && (!prefix.starts_with('/') || !prefix.bytes().all(|byte| byte.is_ascii_graphic())) {
        out.push(("pathPrefix".to_owned(), format!("`{prefix}` is no path; it must begin with `/`")));
    }
    for (field, list) in [
        ("includeRequestHeadersInCheck", &provider.include_request_headers_in_check),
        ("includeHeadersInCheck", &provider.include_headers_in_check),
        ("headersToUpstreamOnAllow", &provider.headers_to_upstream_on_allow),
        ("headersToDownstreamOnDeny", &provider.headers_to_downstream_on_deny),
        ("headersToDownstreamOnAllow", &provider.headers_to_downstream_on_allow),
    ] {
        for (index, header) in list.iter().enumerate() {
            if matches!(header.as_str(), "" | "*") {
                let why = "must be a name, `prefix*` or `*suffix`".to_owned();
                out.push((format!("{field}[{index}]"), why));
            }
        }
    }
    for (header, value) in &provider.include_additional_headers_in_check {
        let field = format!("includeAdditionalHeadersInCheck.{header}");
        if header.is_empty()
            || !header.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
        {
            out.push((field, format!("`{header}` is no name of a header")));
        } else if value.bytes().any(|byte| byte.is_ascii_control()) {
            out.push((field, "the value cannot stand in a header".to_owned()));
        }
    }
    out
}

pub(crate) fn grpc(provider: &ExtAuthzGrpc) -> Vec<Wrong> {
    let mut out = shared(&provider.service, provider.port, provider.timeout, &provider.status_on_error);
    out.extend(body(provider.include_request_body_in_check));
    out
}

pub(crate) fn zipkin(provider: &Zipkin) -> Vec<Wrong> {
    let mut out = place(&provider.service, provider.port, provider.timeout.map(|timeout| ("timeout", timeout)));
    out.extend(path(&provider.path).map(|why| ("path".to_owned(), why)));
    out.extend(headers("headers", &provider.headers));
    out
}

pub(crate) fn opentelemetry(provider: &OpenTelemetry) -> Vec<Wrong> {
    let mut out = place(&provider.service, provider.port, None);
    if provider.http.is_some() && provider.grpc.is_some() {
        out.push(("http".to_owned(), "only one of `http` and `grpc` may be set".to_owned()));
    }
    if let Some(http) = &provider.http {
        out.extend(path(&http.path).map(|why| ("http.path".to_owned(), why)));
        if http.path.is_empty() {
            out.push(("http.path".to_owned(), "`path` is required and missing".to_owned()));
        }
        out.extend(headers("http.headers", &http.headers));
        if let Some(Err(reason)) = http.timeout.map(names::duration) {
            out.push(("http.timeout".to_owned(), reason));
        }
    }
    if let Some(grpc) = &provider.grpc {
        out.extend(headers("grpc.initialMetadata", &grpc.initial_metadata));
        if let Some(Err(reason)) = grpc.timeout.map(names::duration) {
            out.push(("grpc.timeout".to_owned(), reason));
        }
    }
    out
}

pub(crate) fn file_access_log(provider: &FileAccessLog) -> Vec<Wrong> {
    match &provider.log_format {
        Some(LogFormat { text: Some(_), labels: Some(_) }) => {
            vec![("logFormat".to_owned(), "only one of `text` and `labels` may be set".to_owned())]
        }
        _ => Vec::new(),
    }
}

pub(crate) fn otel_access_log(provider: &OtelAccessLog) -> Vec<Wrong> {
    let mut out = place(&provider.service, provider.port, None);
    let labels = provider.log_format.iter().flat_map(|format| &format.labels).flatten();
    for (name, value) in labels {
        if !value.is_string() {
            out.push((format!("logFormat.labels.{name}"), "must be text, as attributes are".to_owned()));
        }
    }
    out
}

fn path(path: &str) -> Option<String> {
    let fits = path.is_empty() || path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    (!fits).then(|| format!("`{path}` is no path; it must begin with `/`"))
}

fn headers(field: &str, headers: &[HttpHeader]) -> Vec<Wrong> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte))
    };
    let mut out = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        if !is_name(&header.name) {
            out.push((format!("{field}[{index}].name"), format!("`{}` is no name of a header", header.name)));
        }
        if header.value.bytes().any(|byte| byte.is_ascii_control() || byte == b'%') {
            let why = "the value cannot stand in a header: no `%`, no control characters".to_owned();
            out.push((format!("{field}[{index}].value"), why));
        }
    }
    out
}

fn shared(service: &str, port: u32, timeout: Option<Duration>, status: &str) -> Vec<Wrong> {
    let mut out = place(service, port, timeout.map(|timeout| ("timeout", timeout)));
    if !status.is_empty() && !status.parse::<u16>().is_ok_and(|code| (200..=511).contains(&code)) {
        out.push(("statusOnError".to_owned(), format!("`{status}` is no status to answer with")));
    }
    out
}

/// Where it is, and how long it may take.
fn place(service: &str, port: u32, timeout: Option<(&str, Duration)>) -> Vec<Wrong> {
    let mut out = Vec::new();
    let host = service.split_once('/').map_or(service, |(_, host)| host);
    if host.is_empty() || host.contains('/') || service.starts_with('/') {
        out.push(("service".to_owned(), format!("`{service}` is no service: a host, or <namespace>/<host>")));
    }
    if let Err(reason) = names::port(port) {
        out.push(("port".to_owned(), reason));
    }
    if let Some((field, Err(reason))) = timeout.map(|(field, timeout)| (field, names::duration(timeout))) {
        out.push((field.to_owned(), reason));
    }
    out
}

fn body(settings: Option<RequestBody>) -> Option<Wrong> {
    settings
        .filter(|settings| settings.max_request_bytes == 0)
        .map(|_| ("includeRequestBodyInCheck.maxRequestBytes".to_owned(), "must be more than 0".to_owned()))
}
