//! The workload's certificate, from the control plane's authority, on the strength of the pod's token.

use lateen_identity::csr::Request;
use lateen_identity::tls::{Roots, web_client};
use lateen_identity::{Identity, SpiffeId, TrustBundle};
use lateen_xds::client::channel;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
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
    let tls = web_client(Roots::Given(&roots), None, &[b"h2"])?;
    let channel = channel::secured(&member.control_plane, tls, |endpoint| endpoint).await?;
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
