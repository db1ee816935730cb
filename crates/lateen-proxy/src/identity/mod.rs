//! Who this proxy is: its certificate, asked for at the start and renewed in time, or given by somebody else at a socket; and the
//! way to the control plane, on which it proves itself by its pod's token. Keys stay in memory.

mod channel;
mod socket;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use lateen_identity::csr::Request;
use lateen_identity::rotation::Schedule;
use lateen_identity::{Identity, SpiffeId, TrustBundle};
use tokio::sync::watch;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

pub(crate) use channel::ControlPlane;
pub(crate) use socket::{Sockets, give, take};

use crate::telemetry::stats::Scope;
use crate::tls::Trust;
use crate::worker::Shared;

/// `istio.v1.auth.IstioCertificateService/CreateCertificate`.
const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// `IstioCertificateRequest`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct CertificateRequest {
    #[prost(string, tag = "1")]
    csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    validity_duration: i64,
}

/// `IstioCertificateResponse`: leaf first, root last.
#[derive(Clone, PartialEq, prost::Message)]
struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

/// How long a certificate is asked for, unless the environment says otherwise (Istio).
pub(crate) const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// An authority that has not answered by then is asked again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps the workload's certificate fresh for ever; `ready` becomes true with the first one. While none can be had, the
/// last one serves for as long as it is valid.
pub(crate) async fn keep(
    id: SpiffeId,
    validity: Duration,
    control_plane: ControlPlane,
    shared: Arc<Shared>,
    ready: watch::Sender<bool>,
) -> std::convert::Infallible {
    let mut schedule = Schedule::default();
    let mut ends = None;
    loop {
        let obtained = tokio::time::timeout(PATIENCE, obtain(&id, validity, &control_plane)).await;
        let obtained = obtained.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())));
        let due = match obtained {
            Ok((identity, trust)) => {
                let to = identity.not_after();
                put_in_force(&shared, identity, Trust::Issued(trust));
                ready.send_replace(true);
                ends = Some(to);
                schedule.issued(SystemTime::now(), to, rand::random())
            }
            Err(error) => {
                tracing::warn!(%id, "no certificate: {error:#}");
                schedule.failed(SystemTime::now(), ends, rand::random())
            }
        };
        tokio::time::sleep(due.duration_since(SystemTime::now()).unwrap_or_default()).await;
    }
}

/// Has new connections use a certificate, and tells when it ends, so that somebody can be called before it does.
fn put_in_force(shared: &Shared, identity: Identity, trust: Trust) {
    let end = identity.not_after().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let gauge = shared.stats.gauge(&Scope::Server, "workload_certificate.expiration_unix_time_seconds");
    gauge.set(end.as_secs());
    shared.tls.set_workload(identity, trust);
}

async fn obtain(
    id: &SpiffeId,
    validity: Duration,
    control_plane: &ControlPlane,
) -> anyhow::Result<(Identity, TrustBundle)> {
    let request = Request::new(id)?;
    let channel = control_plane.connect().await?;
    let validity_duration = i64::try_from(validity.as_secs()).unwrap_or(i64::MAX);
    let mut message = tonic::Request::new(CertificateRequest { csr: request.pem().to_owned(), validity_duration });
    if let Some(authorization) = control_plane.authorization()? {
        message.metadata_mut().insert("authorization", authorization);
    }
    let mut client = Grpc::new(channel);
    client.ready().await.context("the certificate authority is not there")?;
    let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
    let answer = client
        .unary(message, PathAndQuery::from_static(METHOD), codec)
        .await
        .map_err(|status| anyhow::anyhow!("{:?}: {}", status.code(), status.message()))?;
    Ok(request.complete(id, &answer.into_inner().cert_chain)?)
}
