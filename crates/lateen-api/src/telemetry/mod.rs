//! `telemetry.istio.io`: what is measured, traced and logged.

pub mod settings;

pub use settings::Telemetry;
