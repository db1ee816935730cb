//! From the mesh config that users write to the settings that translation depends on.

use std::path::Path;

use lateen_api::mesh_config::{self, Normalization};
use lateen_api::{Diagnostic, mesh_config::OutboundMode as Mode};
use lateen_mesh::{MeshConfig, OutboundMode, PathNormalization};

/// Reads a mesh config file; without one, Istio's defaults. Warnings come with it.
///
/// # Errors
/// A file that cannot be read, or the mistakes in it.
pub fn load(file: Option<&Path>) -> anyhow::Result<(MeshConfig, Vec<Diagnostic>)> {
    use anyhow::Context as _;
    let Some(file) = file else { return Ok((MeshConfig::default(), Vec::new())) };
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let (config, diagnostics) = mesh_config::parse(&file.display().to_string(), &text);
    let errors: Vec<String> = diagnostics.iter().filter(|it| it.is_error()).map(ToString::to_string).collect();
    if !errors.is_empty() {
        anyhow::bail!("the mesh config cannot be used\n{}", errors.join("\n"));
    }
    Ok((settings(config), diagnostics))
}

/// The settings of a mesh config.
pub fn settings(config: mesh_config::MeshConfig) -> MeshConfig {
    let text = |text: String| (!text.is_empty()).then_some(text);
    MeshConfig {
        root_namespace: config.root_namespace,
        trust_domain: config.trust_domain,
        trust_domain_aliases: config.trust_domain_aliases,
        outbound_mode: match config.outbound_traffic_policy.mode {
            Mode::AllowAny => OutboundMode::AllowAny,
            Mode::RegistryOnly => OutboundMode::RegistryOnly,
        },
        enable_auto_mtls: config.enable_auto_mtls,
        connect_timeout: config.connect_timeout.into(),
        protocol_detection_timeout: config.protocol_detection_timeout.map(Into::into),
        dns_refresh_rate: config.dns_refresh_rate.into(),
        path_normalization: match config.path_normalization.normalization {
            Normalization::Default | Normalization::Base => PathNormalization::Base,
            Normalization::None => PathNormalization::None,
            Normalization::MergeSlashes => PathNormalization::MergeSlashes,
            Normalization::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
        },
        access_log_file: text(config.access_log_file),
        access_log_format: text(config.access_log_format),
        locality_lb: config.locality_lb_setting.filter(|setting| setting.enabled != Some(false)),
        default_service_export_to: config.default_service_export_to,
        default_virtual_service_export_to: config.default_virtual_service_export_to,
        default_destination_rule_export_to: config.default_destination_rule_export_to,
        ..MeshConfig::default()
    }
}
