//! The workload's certificate, from the control plane's authority, on the strength of the pod's token.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use http::Uri;
use hyper_util::rt::TokioIo;
use lateen_identity::csr::Request;
use lateen_identity::tls::{Roots, web_client};
use lateen_identity::{Identity, SpiffeId, TrustBundle};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::Member;

/// `istio.v1.auth.IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct CertificateRequest {
    #[prost(string, tag = "1")]
    csr: String,
    #[prost(int64, tag = "3")]
    validity_seconds: i64,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    chain: Vec<String>,
}

pub(crate) async fn obtain(member: &Member) -> anyhow::Result<(Identity, TrustBundle)> {
    let id = SpiffeId::new(&member.trust_domain, &member.namespace, &member.account)?;
    let request = Request::new(&id)?;
    let roots = TrustBundle::from_pem(&std::fs::read(&member.roots)?)?;
    let (host, _) = member.control_plane.rsplit_once(':').context("the control plane has no port")?;
    let dial = Dial {
        tls: TlsConnector::from(Arc::new(web_client(Roots::Given(&roots), None, &[b"h2"])?)),
        name: ServerName::try_from(host.to_owned())?,
        address: member.control_plane.clone(),
    };
    let channel = Endpoint::try_from(format!("https://{}", member.control_plane))?.connect_with_connector(dial).await?;
    let body = CertificateRequest { csr: request.pem().to_owned(), validity_seconds: 3600 };
    let mut message = tonic::Request::new(body);
    message.metadata_mut().insert("authorization", format!("Bearer {}", member.token).parse()?);
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let method = PathAndQuery::from_static("/istio.v1.auth.IstioCertificateService/CreateCertificate");
    let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
    let answer = client.unary(message, method, codec).await?;
    Ok(request.complete(&id, &answer.into_inner().chain)?)
}

/// TLS below HTTP/2.
#[derive(Clone)]
struct Dial {
    tls: TlsConnector,
    name: ServerName<'static>,
    address: String,
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { tls, name, address } = self.clone();
        Box::pin(async move { tls.connect(name, TcpStream::connect(address).await?).await.map(TokioIo::new) })
    }
}
