//! Certificates by somebody else's authority, through Istio's own service: callers are checked here, their requests are passed
//! on, and what comes back is believed only if it is what was asked for.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use lateen_identity::ca::{Issued, SigningRequest};
use lateen_identity::tls::{Roots, web_client};
use lateen_identity::{Identity, SpiffeId, TrustBundle, csr};
use lateen_xds::client::channel;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::ca_service::{CertificateRequest, CertificateResponse, METHOD};

/// How often it is tried, and the pauses between: 100 ms, doubled up to 1.6 s (Istio's agents do the same).
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the authority is, whom it is believed to be, and what we show it. Files are read for each connection.
#[derive(Debug, Clone)]
pub struct ExternalCa {
    /// `host:port`.
    pub address: String,
    /// Whose certificate it has, and who vouches for what it signs; PEM.
    pub roots: PathBuf,
    /// A token of ours, if it wants one.
    pub token: Option<PathBuf>,
    /// A certificate of ours and its key, if it wants that.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl ExternalCa {
    /// Who vouches for what it signs.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn trusted(&self) -> anyhow::Result<TrustBundle> {
        let pem = std::fs::read(&self.roots).with_context(|| self.roots.display().to_string())?;
        TrustBundle::from_pem(&pem).with_context(|| self.roots.display().to_string())
    }

    /// A certificate for a caller who has proved to be `id`. The authority goes by the names in the request, perhaps: they must
    /// be the caller's.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a request for another name; `UNAVAILABLE` for an authority that cannot be asked; `INTERNAL` for
    /// an answer that is not what was asked for.
    pub(crate) async fn issue(&self, request: &CertificateRequest, id: &SpiffeId) -> Result<Issued, Status> {
        let signing =
            SigningRequest::from_pem(&request.csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !signing.names_only(id) {
            return Err(Status::invalid_argument(format!("the signing request names another than {id}")));
        }
        let chain = self.ask(request).await?;
        let trusted = self.trusted().map_err(|error| internal(&error))?;
        let checked = csr::check_answer(&signing, id, &chain, &trusted, SystemTime::now());
        checked.map_err(|error| internal(&anyhow!("{}: what it signed is not taken: {error}", self.address)))
    }

    async fn ask(&self, request: &CertificateRequest) -> Result<Vec<String>, Status> {
        let mut pause = FIRST_PAUSE;
        for tries_left in (0..TRIES).rev() {
            let tried = tokio::time::timeout(PATIENCE, self.try_once(request.clone())).await;
            let status = match tried {
                Ok(Ok(chain)) => return Ok(chain),
                Ok(Err(Failure::Status(status))) => status,
                Ok(Err(Failure::Connect(error))) => Status::unavailable(format!("{error:#}")),
                Err(_) => Status::unavailable(format!("no answer within {} s", PATIENCE.as_secs())),
            };
            tracing::warn!(address = self.address, %status, tries_left, "the external authority does not sign");
            // What it says of the request it would say again.
            if !matches!(
                status.code(),
                Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted
            ) {
                return Err(Status::failed_precondition("the external authority does not sign this"));
            }
            if tries_left > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        Err(Status::unavailable("the external authority cannot be asked at present"))
    }

    async fn try_once(&self, request: CertificateRequest) -> Result<Vec<String>, Failure> {
        let channel = self.connect().await.map_err(Failure::Connect)?;
        let mut message = Request::new(request);
        if let Some(file) = &self.token {
            let token = tokio::fs::read_to_string(file).await.with_context(|| file.display().to_string());
            let header: Result<MetadataValue<Ascii>, _> =
                format!("Bearer {}", token.map_err(Failure::Connect)?.trim()).parse();
            let header = header.map_err(|_| Failure::Connect(anyhow!("{}: no token", file.display())))?;
            message.metadata_mut().insert("authorization", header);
        }
        let mut client = Grpc::new(channel);
        client.ready().await.map_err(|error| Failure::Connect(error.into()))?;
        let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
        let path = http::uri::PathAndQuery::from_static(METHOD);
        let answer = client.unary(message, path, codec).await.map_err(Failure::Status)?;
        Ok(answer.into_inner().cert_chain)
    }

    async fn connect(&self) -> anyhow::Result<Channel> {
        let own = match &self.certificate {
            Some((chain, key)) => {
                let [chain, key] = [tokio::fs::read(chain).await, tokio::fs::read(key).await];
                Some(Identity::from_pem(&chain.context("our certificate")?, &key.context("our key")?)?)
            }
            None => None,
        };
        let tls = web_client(Roots::Given(&self.trusted()?), own.as_ref(), &[b"h2"])?;
        Ok(channel::secured(&self.address, tls, |endpoint| endpoint).await?)
    }
}

/// What callers are told is no more than that it did not work; the log has the rest.
fn internal(error: &anyhow::Error) -> Status {
    tracing::error!(error = format!("{error:#}"), "no certificate by the external authority");
    Status::internal("the external authority's answer cannot be used")
}

enum Failure {
    Connect(anyhow::Error),
    Status(Status),
}
