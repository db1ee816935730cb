//! The secret discovery service of an agent: the workload's certificate, and whom it trusts.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use envoy_types::pb::google::protobuf::Any;
use lateen_identity::{Identity, TrustBundle};
use prost::{Message as _, Name as _};
use tls::secret::Type;
use tokio::net::UnixListener;
use tokio_stream::Empty;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Serves until the process ends.
pub(crate) async fn serve(listener: UnixListener, identity: Identity, trust: TrustBundle) {
    let inline = |text: String| DataSource { specifier: Some(Specifier::InlineString(text)), ..DataSource::default() };
    let trusted = |roots: DataSource| {
        let context = tls::CertificateValidationContext { trusted_ca: Some(roots), ..Default::default() };
        Type::ValidationContext(context)
    };
    let certificate = tls::TlsCertificate {
        certificate_chain: Some(inline(identity.chain_pem())),
        private_key: Some(inline(identity.key_pem())),
        ..Default::default()
    };
    let system = DataSource {
        specifier: Some(Specifier::Filename("/etc/ssl/certs/ca-certificates.crt".to_owned())),
        ..DataSource::default()
    };
    // By the names that Istio's agent has for them.
    let secrets = HashMap::from([
        ("default", Type::TlsCertificate(certificate)),
        ("ROOTCA", trusted(inline(trust.to_pem()))),
        ("file-root:system", trusted(system)),
    ]);
    let service = SecretDiscoveryServiceServer::new(Secrets(secrets));
    let serving = tonic::transport::Server::builder().add_service(service);
    if let Err(error) = serving.serve_with_incoming(UnixListenerStream::new(listener)).await {
        eprintln!("envoy-agent: secrets are not served any more: {error}");
    }
}

struct Secrets(HashMap<&'static str, Type>);

impl Secrets {
    fn answer(&self, names: &[String]) -> DiscoveryResponse {
        let named = |name: &String| {
            let secret = tls::Secret { name: name.clone(), r#type: Some(self.0.get(name.as_str())?.clone()) };
            Some(Any { type_url: tls::Secret::type_url(), value: secret.encode_to_vec() })
        };
        DiscoveryResponse {
            version_info: "1".to_owned(),
            nonce: "1".to_owned(),
            type_url: tls::Secret::type_url(),
            resources: names.iter().filter_map(named).collect(),
            ..DiscoveryResponse::default()
        }
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Secrets {
    type DeltaSecretsStream = Empty<Result<DeltaDiscoveryResponse, Status>>;
    type StreamSecretsStream = ReceiverStream<Result<DiscoveryResponse, Status>>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("secrets come by StreamSecrets"))
    }

    /// Each question is answered once; what follows on the stream are acknowledgements, and nothing changes.
    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (answers, stream) = tokio::sync::mpsc::channel(1);
        let mut asked = request.into_inner();
        let first = asked.message().await?.ok_or_else(|| Status::invalid_argument("nothing is asked for"))?;
        let answer = self.answer(&first.resource_names);
        tokio::spawn(async move {
            let _ = answers.send(Ok(answer)).await;
            while let Ok(Some(request)) = asked.message().await {
                if let Some(refusal) = request.error_detail {
                    eprintln!("envoy-agent: {:?} refused: {}", request.resource_names, refusal.message);
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets come by StreamSecrets"))
    }
}
