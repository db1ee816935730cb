//! `istio.v1.auth.IstioCertificateService`: certificates for callers who prove who they are.
//!
//! The two messages and the one method are small enough to stand here as they are (Istio: `security/v1alpha1/ca.proto`).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use envoy_types::pb::google::protobuf::Struct;
use lateen_identity::ca::{CaError, Issued, MAX_LIFETIME, SigningRequest};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::authentication::{Authenticator, Caller, ConnectionInfo};
use crate::authority::Authority;
use crate::external_ca::ExternalCa;
use crate::metrics::Metrics;
use crate::push::Pushed;

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Seconds; 0 for the authority's own choice.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// PEM: leaf, intermediates, root.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// The path of the one method.
pub const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Issues certificates.
#[derive(Clone)]
pub struct CertificateService {
    shared: Arc<Shared>,
}

struct Shared {
    authority: Authority,
    /// Who signs in place of our own authority.
    external: Option<ExternalCa>,
    authenticator: Authenticator,
    pushed: Pushed,
    metrics: Metrics,
}

impl CertificateService {
    pub fn new(
        authority: Authority,
        external: Option<ExternalCa>,
        authenticator: Authenticator,
        pushed: Pushed,
        metrics: Metrics,
    ) -> Self {
        Self { shared: Arc::new(Shared { authority, external, authenticator, pushed, metrics }) }
    }
}

impl Shared {
    /// Issues or refuses, and writes down either: who asked, from where, and what came of it.
    async fn create(&self, request: Request<CertificateRequest>) -> Result<CertificateResponse, Status> {
        let metrics = &self.metrics.certificates;
        metrics.asked.inc();
        let address = request.extensions().get::<ConnectionInfo>().map(|it| it.address.to_string()).unwrap_or_default();
        let mut caller = None;
        let created = self.issue(request, &mut caller).await;
        let id = caller.as_ref().map(|caller| caller.id.to_string());
        let pod = caller.as_ref().and_then(|caller| Some(caller.pod.as_ref()?.pod.as_str()));
        match created {
            Ok(issued) => {
                metrics.issued.inc();
                let time = |at| jiff::Timestamp::try_from(at).map(|time| time.to_string()).unwrap_or_default();
                let (begins, ends) = (time(issued.not_before), time(issued.not_after));
                tracing::info!(target: "audit", id, pod, address, serial = issued.serial, begins, ends, "certificate issued");
                Ok(CertificateResponse { cert_chain: issued.chain })
            }
            Err(status) => {
                metrics.refused.inc();
                match status.code() {
                    Code::Unauthenticated | Code::PermissionDenied => metrics.unauthenticated.inc(),
                    Code::InvalidArgument => metrics.unreadable.inc(),
                    _ => metrics.unsigned.inc(),
                };
                let reason = status.message();
                tracing::warn!(target: "audit", id, pod, address, reason, "certificate refused");
                Err(status)
            }
        }
    }

    /// The certificate is for whoever the caller has proved to be, who is put into `proved` as soon as that is known; the
    /// request's names do not matter.
    async fn issue(&self, request: Request<CertificateRequest>, proved: &mut Option<Caller>) -> Result<Issued, Status> {
        if let Some((caller, taken)) = self.authenticator.joining(request.metadata()).await? {
            let signed = self.sign(proved.insert(caller), request.into_inner()).await;
            if signed.is_err() {
                self.authenticator.give_back(taken).await;
            }
            return signed;
        }
        let connection = request.extensions().get::<ConnectionInfo>();
        let caller = self.authenticator.caller(request.metadata(), connection).await?;
        let caller = proved.insert(caller);
        if let Some(bearer) = &caller.pod {
            caller.workload = Some(self.pushed.pod_of(bearer).await?);
        }
        self.sign(caller, request.into_inner()).await
    }

    async fn sign(&self, caller: &Caller, body: CertificateRequest) -> Result<Issued, Status> {
        if names_somebody_else(body.metadata.as_ref()) {
            return Err(Status::permission_denied("nobody may ask for the certificate of another identity"));
        }
        let lifetime =
            u64::try_from(body.validity_duration).map_err(|_| Status::invalid_argument("the validity is negative"))?;
        if let Some(external) = &self.external {
            if Duration::from_secs(lifetime) > MAX_LIFETIME {
                return Err(status_of(&CaError::Lifetime(Duration::from_secs(lifetime))));
            }
            let request = CertificateRequest { metadata: None, ..body };
            return external.issue(&request, &caller.id).await;
        }
        let (ca, id, named) = (self.authority.current(), caller.id.clone(), caller.workload.clone());
        let issue = move || {
            let request = SigningRequest::from_pem(&body.csr)?;
            ca.issue_named(&request, &id, named.as_ref(), Some(Duration::from_secs(lifetime)), SystemTime::now())
        };
        let issued = tokio::task::spawn_blocking(issue).await.map_err(|_| Status::internal("signing failed"))?;
        issued.map_err(|error| status_of(&error))
    }
}

/// Istio's `ImpersonatedIdentity` is for node agents, of which there are none here.
fn names_somebody_else(metadata: Option<&Struct>) -> bool {
    metadata.is_some_and(|metadata| metadata.fields.contains_key("ImpersonatedIdentity"))
}

fn status_of(error: &CaError) -> Status {
    match error {
        CaError::Request(_) | CaError::Lifetime(_) => Status::invalid_argument(error.to_string()),
        CaError::Expired => Status::failed_precondition(error.to_string()),
        CaError::File { .. } | CaError::Authority(_) | CaError::Signing(_) => Status::internal("signing failed"),
    }
}

impl NamedService for CertificateService {
    const NAME: &'static str = "istio.v1.auth.IstioCertificateService";
}

impl Service<http::Request<Body>> for CertificateService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let create = Create(Arc::clone(&self.shared));
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let codec = ProstCodec::<CertificateResponse, CertificateRequest>::default();
            Ok(Grpc::new(codec).unary(create, request).await)
        })
    }
}

/// The method, in the form that the gRPC server calls.
struct Create(Arc<Shared>);

impl UnaryService<CertificateRequest> for Create {
    type Response = CertificateResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<CertificateResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { shared.create(request).await.map(Response::new) })
    }
}
