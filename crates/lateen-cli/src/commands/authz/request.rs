//! A request as the command line describes it.

use std::net::IpAddr;

use clap::Args;
use http::{HeaderName, HeaderValue, Method};
use lateen_engine::metadata::Fields;

use super::World;
use crate::commands::Misuse;

#[derive(Debug, Args)]
pub(super) struct RequestOptions {
    /// Who asks: a pod (NAME or NAME.NAMESPACE), or a principal (TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT). Without it, somebody
    /// outside the mesh.
    #[arg(long, value_name = "POD|PRINCIPAL")]
    from: Option<String>,
    /// Which port of the pod.
    #[arg(long, value_name = "PORT")]
    to_port: Option<u16>,
    /// Method of an HTTP request [default: GET].
    #[arg(long)]
    method: Option<String>,
    /// Path of an HTTP request, with its query [default: /].
    #[arg(long)]
    path: Option<String>,
    /// Host of an HTTP request.
    #[arg(long)]
    host: Option<String>,
    /// A header of an HTTP request: `name: value`.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The claims of a token that was found to be good, as JSON.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// The address that the request comes from.
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// Bytes that are no HTTP.
    #[arg(long, conflicts_with_all = ["method", "path", "host", "headers", "claims"])]
    tcp: bool,
}

/// What is asked.
#[derive(Debug)]
pub(super) struct Request {
    /// With the certificate of this principal; none without a certificate.
    pub(super) principal: Option<String>,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    /// None for bytes.
    pub(super) http: Option<Http>,
}

#[derive(Debug)]
pub(super) struct Http {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) host: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) claims: Option<Fields>,
}

/// An address that nobody has (RFC 5737).
const SOMEBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

impl RequestOptions {
    /// The request, if one is described at all.
    pub(super) fn read(&self, world: &World) -> anyhow::Result<Option<Request>> {
        let of_http = self.method.is_some()
            || self.path.is_some()
            || self.host.is_some()
            || !self.headers.is_empty()
            || self.claims.is_some();
        let described = of_http || self.tcp || self.from.is_some() || self.to_port.is_some() || self.ip.is_some();
        if !described {
            return Ok(None);
        }
        let Some(port) = self.to_port else {
            return Err(Misuse::of("say which port the request is for: --to-port PORT"));
        };
        let (principal, address) = match &self.from {
            None => (None, None),
            Some(from) if from.contains('/') => (Some(principal(from)?), None),
            Some(pod) => {
                let (name, namespace) = pod.split_once('.').unwrap_or((pod, "default"));
                let view = world.view(namespace, name)?;
                (Some(view.principal), view.address.parse().ok())
            }
        };
        let http = if self.tcp { None } else { Some(self.http()?) };
        Ok(Some(Request { principal, ip: self.ip.or(address).unwrap_or(SOMEBODY), port, http }))
    }

    fn http(&self) -> anyhow::Result<Http> {
        let method = self.method.as_deref().unwrap_or("GET");
        let path = self.path.as_deref().unwrap_or("/");
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Misuse::of(format!("`{path}` is no path: it begins with `/` and has no spaces")));
        }
        let claims = match &self.claims {
            None => None,
            Some(text) => {
                let read = lateen_engine::json::object(text.as_bytes());
                Some(read.map_err(|error| Misuse::of(format!("--claims is no JSON object: {error}")))?)
            }
        };
        Ok(Http {
            method: Method::from_bytes(method.as_bytes())
                .map_err(|_| Misuse::of(format!("`{method}` is no method")))?,
            path: path.to_owned(),
            host: self.host.clone().unwrap_or_default(),
            headers: self.headers.iter().map(|text| header(text)).collect::<anyhow::Result<_>>()?,
            claims,
        })
    }
}

fn principal(text: &str) -> anyhow::Result<String> {
    let text = text.strip_prefix("spiffe://").unwrap_or(text);
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        [domain, "ns", namespace, "sa", account]
            if ![domain, namespace, account].iter().any(|part| part.is_empty()) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(Misuse::of(format!("`{text}` is no principal: TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT"))),
    }
}

pub(in crate::commands) fn header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let wrong = || Misuse::of(format!("`{text}` is no header: `name: value`"));
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
    let value = HeaderValue::try_from(value.trim()).map_err(|_| wrong())?;
    Ok((name, value))
}
