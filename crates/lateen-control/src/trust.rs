//! Whom workloads trust: the authority's roots for the mesh's own trust domain and its other names, and those of others that
//! the mesh config names; told to proxies as they change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_identity::{Trust, TrustBundle};
use lateen_mesh::MeshConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::mesh_settings::{Anchor, Roots};
use crate::source::Source;
use crate::store::Note;

/// The newest bundle of each endpoint that has been heard, by its URL.
pub(crate) type Bundles = BTreeMap<String, TrustBundle>;

/// Who says whom to trust.
#[derive(Clone)]
pub struct Telling {
    authority: Authority,
    config: Arc<MeshConfig>,
    anchors: Arc<[Anchor]>,
    bundles: watch::Receiver<Bundles>,
    source: Arc<Source>,
}

impl Telling {
    pub(crate) fn new(
        authority: Authority,
        config: Arc<MeshConfig>,
        anchors: Arc<[Anchor]>,
        bundles: watch::Receiver<Bundles>,
        source: Arc<Source>,
    ) -> Self {
        Self { authority, config, anchors, bundles, source }
    }

    /// Has the store say what there is to trust now. Gives the revision from which on it is in force; none when the source has
    /// ended.
    pub(crate) async fn tell(&self) -> Option<u64> {
        let trust = {
            let (ca, bundles) = (self.authority.current(), self.bundles.borrow());
            let domains = domains(ca.roots(), &self.config, &self.anchors, &bundles);
            Trust { domains, revocation: ca.revocation().cloned() }
        };
        self.source.note(Note::Trust(trust)).await
    }

    /// Tells it as it changes, until it is time to stop.
    pub(crate) async fn follow(mut self, stop: CancellationToken) {
        let mut authority = self.authority.watch();
        let mut bundles = self.bundles.clone();
        while self.tell().await.is_some() {
            tokio::select! {
                changed = authority.changed() => if changed.is_err() { return },
                Ok(()) = bundles.changed() => {}
                () = stop.cancelled() => return,
            }
            self.bundles.mark_unchanged();
        }
    }
}

/// Roots by trust domain. The authority's are for the mesh's own and for its other names; a name for which somebody else's
/// are given has those alone, since that is whose name it is. Roots for no domain in particular are for the mesh's own.
fn domains(
    own: &TrustBundle,
    config: &MeshConfig,
    anchors: &[Anchor],
    bundles: &Bundles,
) -> BTreeMap<String, TrustBundle> {
    let mesh: BTreeSet<&str> = config.trust_domains().collect();
    let claimed: BTreeSet<&str> = anchors.iter().flat_map(|anchor| &anchor.trust_domains).map(String::as_str).collect();
    let is_ours = |domain: &str| domain == config.trust_domain || !claimed.contains(domain);
    let mut out: BTreeMap<String, TrustBundle> =
        mesh.iter().filter(|domain| is_ours(domain)).map(|domain| ((*domain).to_owned(), own.clone())).collect();
    for anchor in anchors {
        let roots = match &anchor.roots {
            Roots::Given(roots) => roots,
            Roots::Fetched(endpoint) => {
                let first = endpoint.known_by.as_ref().map(|known| &known.first);
                match bundles.get(&endpoint.url).or(first) {
                    Some(roots) => roots,
                    None => continue,
                }
            }
        };
        let named: Vec<&str> = if anchor.trust_domains.is_empty() {
            mesh.iter().copied().filter(|domain| is_ours(domain)).collect()
        } else {
            anchor.trust_domains.iter().map(String::as_str).collect()
        };
        for domain in named {
            let known = out.get(domain);
            match known.map_or_else(|| Ok(roots.clone()), |known| known.merge(roots)) {
                Ok(all) => drop(out.insert(domain.to_owned(), all)),
                Err(error) => tracing::error!(domain, %error, "roots are left out"),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use lateen_identity::CertificateAuthority;

    use super::*;
    use crate::mesh_settings::Endpoint;

    fn root(domain: &str) -> TrustBundle {
        CertificateAuthority::self_signed(domain, std::time::SystemTime::now()).expect("it can be made").roots().clone()
    }

    fn given(roots: &TrustBundle, domains: &[&str]) -> Anchor {
        let trust_domains = domains.iter().map(ToString::to_string).collect();
        Anchor { trust_domains, roots: Roots::Given(roots.clone()) }
    }

    #[test]
    fn each_trust_domain_has_its_own_roots() {
        let [own, more, old, theirs] = ["own", "more", "old", "theirs"].map(root);
        let config = MeshConfig {
            trust_domain: "own.test".to_owned(),
            trust_domain_aliases: vec!["other-name.test".to_owned(), "old.test".to_owned()],
            ..MeshConfig::default()
        };
        let anchors = [
            given(&more, &[]),
            given(&old, &["old.test"]),
            given(&theirs, &["theirs.test"]),
            Anchor {
                trust_domains: vec!["far.test".to_owned()],
                roots: Roots::Fetched(Endpoint { url: "https://far.test/".to_owned(), known_by: None }),
            },
        ];
        let both = own.merge(&more).expect("they are few");
        let mut expected = BTreeMap::from([
            ("own.test".to_owned(), both.clone()),
            ("other-name.test".to_owned(), both),
            ("old.test".to_owned(), old),
            ("theirs.test".to_owned(), theirs),
        ]);
        assert_eq!(
            domains(&own, &config, &anchors, &Bundles::new()),
            expected,
            "and nobody for what was not heard yet"
        );
        let far = root("far");
        expected.insert("far.test".to_owned(), far.clone());
        let heard = Bundles::from([("https://far.test/".to_owned(), far)]);
        assert_eq!(domains(&own, &config, &anchors, &heard), expected);
    }
}
