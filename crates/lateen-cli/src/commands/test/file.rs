//! A file of tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use serde_saphyr::Spanned;

/// `tests` and `invariants` of the mesh that `objects` are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct File {
    /// Files and folders, as seen from this file.
    #[serde(default)]
    pub(super) objects: Vec<PathBuf>,
    #[serde(default)]
    pub(super) mesh_config: Option<PathBuf>,
    #[serde(default)]
    pub(super) tests: Vec<Spanned<Case>>,
    #[serde(default)]
    pub(super) invariants: Vec<Spanned<Invariant>>,
}

/// A request, and what is to become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Case {
    pub(super) name: String,
    #[serde(default)]
    pub(super) from: Option<String>,
    #[serde(default)]
    pub(super) via: Option<String>,
    pub(super) to: String,
    #[serde(default)]
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) claims: Option<serde_json::Value>,
    pub(super) expect: Expectation,
}

/// Whatever of it is said.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Expectation {
    /// No policy, and no mTLS mode, stands against it.
    pub(super) allowed: Option<bool>,
    /// The policy that denies it, `namespace/name`.
    pub(super) denied_by: Option<String>,
    /// The policy that allows it.
    pub(super) allowed_by: Option<String>,
    /// Of an answer that no application gives.
    pub(super) status: Option<u16>,
    /// Workloads that answer, with their shares in percent: what owns the pods, as `NAME` or `NAME.NAMESPACE`.
    pub(super) served_by: Option<BTreeMap<String, f64>>,
    /// Where the caller's proxy, or the gateway, sends it: `HOST` or `HOST/SUBSET`, with shares in percent.
    pub(super) routed_to: Option<BTreeMap<String, f64>>,
    /// Of the request as it goes up; null: it is not there.
    pub(super) headers: Option<BTreeMap<String, Option<String>>>,
    pub(super) path: Option<String>,
    pub(super) host: Option<String>,
    /// In Kubernetes' form (`3s`, `250ms`), or `none`.
    pub(super) timeout: Option<String>,
    pub(super) retries: Option<u32>,
    /// Where the client is sent.
    pub(super) redirect: Option<String>,
    /// Percent of the requests that are answered on purpose.
    pub(super) aborted: Option<f64>,
    pub(super) delayed: Option<f64>,
    /// All of it goes over the mesh's mutual TLS.
    pub(super) mutual_tls: Option<bool>,
}

/// What holds for all callers and services.
#[derive(Debug, Deserialize)]
#[serde(try_from = "WrittenInvariant")]
pub(super) struct Invariant {
    pub(super) name: String,
    pub(super) rule: Rule,
}

#[derive(Debug)]
pub(super) enum Rule {
    /// No workload of the mesh is reached in plaintext; these callers excepted.
    NoPlaintext { except: Vec<String> },
    /// Of all workloads, only these may call a service, and these may.
    OnlyCallers { of: String, are: Vec<String>, path: Option<String> },
    /// What leaves the mesh leaves through this gateway.
    ExternalThrough { gateway: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenInvariant {
    name: String,
    no_plaintext: Option<NoPlaintext>,
    only_callers: Option<OnlyCallers>,
    external_through: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoPlaintext {
    #[serde(default)]
    except: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnlyCallers {
    of: String,
    are: Vec<String>,
    /// The path that is asked for, where that matters.
    path: Option<String>,
}

impl TryFrom<WrittenInvariant> for Invariant {
    type Error = String;

    fn try_from(written: WrittenInvariant) -> Result<Self, String> {
        let rule = match (written.no_plaintext, written.only_callers, written.external_through) {
            (Some(NoPlaintext { except }), None, None) => Rule::NoPlaintext { except },
            (None, Some(OnlyCallers { of, are, path }), None) => Rule::OnlyCallers { of, are, path },
            (None, None, Some(gateway)) => Rule::ExternalThrough { gateway },
            _ => {
                let name = written.name;
                return Err(format!(
                    "the invariant `{name}` must be one of noPlaintext, onlyCallers and externalThrough"
                ));
            }
        };
        Ok(Self { name: written.name, rule })
    }
}

pub(super) fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut file: File = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    for object in file.objects.iter_mut().chain(&mut file.mesh_config) {
        *object = folder.join(&*object);
    }
    Ok(file)
}
