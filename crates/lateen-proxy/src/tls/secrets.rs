//! What contexts name instead of holding it: the workload's own certificate and the mesh's roots, whoever gives them, and what
//! discovery sent.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use lateen_engine::config::Secret;
use lateen_engine::config::tls::{Certificates, Common, Source, Trusted, Validation};
use lateen_identity::TrustBundle;
use lateen_identity::tls::verify::{Anchors, Authorities};

use super::material::{self, Identity};
use super::{TlsError, TlsStore};

/// What a mesh's contexts name by `default` and `ROOTCA`: the workload's own certificate, and whom the mesh trusts.
pub(crate) struct Workload {
    pub identity: lateen_identity::Identity,
    pub trust: Trust,
    /// When it came.
    pub since: SystemTime,
}

/// Who says whom the mesh trusts.
pub(crate) enum Trust {
    /// The authority did, with the certificate. Discovery's word comes sooner, and says of whose workloads it is.
    Issued(TrustBundle),
    /// Whoever gave the certificate does, and nobody else: roots, as a secret.
    Given(Arc<Secret>),
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload").field("names", &self.identity.names()).finish_non_exhaustive()
    }
}

pub(crate) const WORKLOAD_CERTIFICATE: &str = "default";
pub(crate) const MESH_ROOTS: &str = "ROOTCA";

impl TlsStore {
    /// The certificates of a context.
    pub(super) fn identities(&self, common: &Common) -> Result<Vec<Identity>, TlsError> {
        match &common.certificates {
            None => Ok(Vec::new()),
            Some(Certificates::Static(list)) => list.iter().map(Identity::read).collect(),
            Some(Certificates::Sds(names)) => names.iter().map(|name| self.discovered(name)).collect(),
        }
    }

    /// A certificate by the name of its secret.
    fn discovered(&self, name: &str) -> Result<Identity, TlsError> {
        match &*self.workload.load() {
            Some(workload) if name == WORKLOAD_CERTIFICATE => {
                Ok(Identity { chain: workload.identity.chain().to_vec(), key: workload.identity.key().clone_key() })
            }
            _ => match self.secrets.load().get(name).map(|secret| &**secret) {
                Some(Secret::Certificate(certificate)) => Identity::read(certificate),
                Some(Secret::Roots { .. }) => Err(TlsError::new(format!("the secret {name} is no certificate"))),
                None => Err(TlsError::new(format!("the secret {name} is not there"))),
            },
        }
    }

    /// Who vouches for a context's peers; nothing where it checks no chain.
    pub(super) fn authorities(&self, validation: &Validation) -> Result<Option<Authorities>, TlsError> {
        let own = validation.crl.as_ref();
        let Some(name) = &validation.sds else {
            let trusted = validation.trusted.as_ref();
            return trusted.map(|trusted| material::authorities(trusted, own)).transpose();
        };
        match (self.roots_named(name).as_deref(), &*self.workload.load()) {
            (Some(Secret::Roots { trusted, crl }), _) => material::authorities(trusted, crl.as_ref().or(own)).map(Some),
            (None, Some(workload)) if name == MESH_ROOTS => match &workload.trust {
                Trust::Issued(bundle) => Ok(Some(Authorities::Workloads(Anchors::new(bundle.store())))),
                Trust::Given(_) => Err(TlsError::new("the roots of the mesh are not there")),
            },
            (Some(Secret::Certificate(_)), _) => Err(TlsError::new(format!("the secret {name} holds no roots"))),
            (None, _) => Err(TlsError::new(format!("the secret {name} is not there"))),
        }
    }

    /// Roots by the name of their secret: those of the mesh by whoever has the say.
    fn roots_named(&self, name: &str) -> Option<Arc<Secret>> {
        match &*self.workload.load() {
            Some(workload) if name == MESH_ROOTS => match &workload.trust {
                Trust::Given(roots) => return Some(Arc::clone(roots)),
                Trust::Issued(_) => {}
            },
            _ => {}
        }
        self.secrets.load().get(name).cloned()
    }

    /// The mesh's roots as PEM, by trust domain; for any, as long as discovery has not said more (then under no name).
    pub(crate) fn mesh_roots(&self) -> Vec<(String, Vec<u8>)> {
        let pem = |source: &Source| material::bytes(source).unwrap_or_default();
        match (self.roots_named(MESH_ROOTS).as_deref(), &*self.workload.load()) {
            (Some(Secret::Roots { trusted: Trusted::Any(source), .. }), _) => vec![(String::new(), pem(source))],
            (Some(Secret::Roots { trusted: Trusted::ByTrustDomain(domains), .. }), _) => {
                domains.iter().map(|(domain, source)| (domain.clone(), pem(source))).collect()
            }
            (_, Some(workload)) => match &workload.trust {
                Trust::Issued(bundle) => vec![(String::new(), bundle.to_pem().into_bytes())],
                Trust::Given(_) => Vec::new(),
            },
            (_, None) => Vec::new(),
        }
    }

    /// Whether somebody else than the control plane and its authority gives identity and roots.
    pub(crate) fn is_given(&self) -> bool {
        self.workload.load().as_ref().is_some_and(|workload| matches!(workload.trust, Trust::Given(_)))
    }

    /// The workload's certificate, and whom the mesh trusts as a secret, once they are there.
    pub(crate) fn own_secrets(&self) -> Option<(Arc<Workload>, Arc<Secret>)> {
        let workload = self.workload()?;
        let roots = self.roots_named(MESH_ROOTS).or_else(|| match &workload.trust {
            Trust::Issued(bundle) => {
                let trusted = Trusted::Any(Source::Inline(bundle.to_pem().into_bytes()));
                Some(Arc::new(Secret::Roots { trusted, crl: None }))
            }
            Trust::Given(_) => None,
        })?;
        Some((workload, roots))
    }
}
