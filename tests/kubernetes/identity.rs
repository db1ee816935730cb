//! Who gets a certificate: whoever has a token of Kubernetes' for a pod that is there, and nobody else.

use std::sync::Arc;

use lateen_identity::tls::{Roots, web_client};
use lateen_identity::{SpiffeId, TrustBundle, csr};
use lateen_xds::client::channel;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::cluster::{Cluster, eventually};
use crate::control_plane::{ControlPlane, token_of};

const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const NAME: &str = "lateend.istio-system.svc";

/// `istio.v1.auth.IstioCertificateRequest`, as much of it as is needed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct CertificateRequest {
    #[prost(string, tag = "1")]
    csr: String,
}

/// `istio.v1.auth.IstioCertificateResponse`
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

/// To the control plane, known by the certificates that a pod finds in its namespace.
async fn connect(cluster: &Cluster, control_plane: &ControlPlane) -> Channel {
    let maps = cluster.of("v1", "ConfigMap", "default");
    let pem = eventually("the certificates are in the namespace", async || {
        let map = maps.get_opt("istio-ca-root-cert").await.unwrap()?;
        map.data["data"]["root-cert.pem"].as_str().map(str::to_owned)
    })
    .await;
    let roots = TrustBundle::from_pem(pem.as_bytes()).unwrap();
    let config = web_client(Roots::Given(&roots), None, &[b"h2"]).unwrap();
    let (connector, address) = (TlsConnector::from(Arc::new(config)), control_plane.grpc);
    let dial = move || {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            connector.connect(rustls::pki_types::ServerName::try_from(NAME).expect("it is a name"), stream).await
        }
    };
    channel::over(Endpoint::from_static("http://lateend.istio-system.svc"), dial).await.unwrap()
}

async fn certificate(channel: &Channel, token: &str) -> Result<SpiffeId, Status> {
    let id = SpiffeId::new("cluster.local", "default", "web").unwrap();
    let asked = csr::Request::new(&id).unwrap();
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let mut request = Request::new(CertificateRequest { csr: asked.pem().to_owned() });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
    let chain = grpc.unary(request, METHOD.parse().unwrap(), codec).await?.into_inner().cert_chain;
    // It is for this id and no other, or it would not fit.
    asked.complete(&id, &chain).unwrap();
    Ok(id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_token_gets_the_pods_certificate() {
    let Some(cluster) = Cluster::start().await else { return };
    let control_plane = ControlPlane::start(&cluster).await;
    cluster.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: default}}").await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "namespace": "default"},
        "spec": {"serviceAccountName": "web", "containers": [{"name": "web", "image": "web:1"}]}});
    cluster.apply_json(&pod).await;
    let made: Value = serde_json::to_value(cluster.api(&pod).get("web-1").await.unwrap()).unwrap();
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "web-1", "uid": made["metadata"]["uid"]});
    let token = async |audience: &str| token_of(&cluster, "default", "web", &[audience], Some(&bound)).await;
    let channel = connect(&cluster, &control_plane).await;

    let good = token("istio-ca").await;
    let id = eventually("the pod is known, and gets its certificate", async || certificate(&channel, &good).await.ok())
        .await;
    assert_eq!(id.to_string(), "spiffe://cluster.local/ns/default/sa/web");
    let other = certificate(&channel, &token("vault").await).await.unwrap_err();
    assert_eq!(other.code(), Code::Unauthenticated, "a token for somebody else: {other}");
    let forged = certificate(&channel, "eyJhbGciOiJub25lIn0.e30.").await.unwrap_err();
    assert_eq!(forged.code(), Code::Unauthenticated, "{forged}");
    cluster.api(&pod).delete("web-1", &kube::api::DeleteParams::default().grace_period(0)).await.unwrap();
    eventually("a token of a pod that is gone is nobody's", async || certificate(&channel, &good).await.err()).await;
}
