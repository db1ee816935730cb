//! A program of a pod that asks for the workload's identity at a Unix socket, by Envoy's secret discovery service.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use lateen_identity::Identity;
use lateen_xds::client::channel;
use prost::Message as _;
use tokio_stream::StreamExt as _;

/// Asks once, and prints for each secret what it is.
pub(crate) async fn ask(socket: &str) -> anyhow::Result<()> {
    let channel = channel::at_socket(PathBuf::from(socket)).await?;
    let request = DiscoveryRequest {
        resource_names: ["default", "ROOTCA"].map(str::to_owned).to_vec(),
        ..DiscoveryRequest::default()
    };
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut answers = SecretDiscoveryServiceClient::new(channel).stream_secrets(requests).await?.into_inner();
    let answer = answers.message().await?.context("no answer")?;
    for resource in &answer.resources {
        let secret = Secret::decode(resource.value.as_slice())?;
        let what = match secret.r#type {
            Some(Type::TlsCertificate(certificate)) => {
                let (chain, key) = (bytes(certificate.certificate_chain)?, bytes(certificate.private_key)?);
                // Whose key it is is checked.
                Identity::from_pem(&chain, &key)?.names().uri_sans.join(" ")
            }
            Some(Type::ValidationContext(_)) => "roots".to_owned(),
            _ => bail!("{} is neither a certificate nor roots", secret.name),
        };
        std::io::stdout().write_all(format!("{} {what}\n", secret.name).as_bytes())?;
    }
    Ok(())
}

fn bytes(source: Option<DataSource>) -> anyhow::Result<Vec<u8>> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        Some(Specifier::InlineString(text)) => Ok(text.into_bytes()),
        _ => bail!("nothing is inline"),
    }
}
