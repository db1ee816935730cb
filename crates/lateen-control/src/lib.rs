//! The control plane: sources, store, push, injector, certificate and discovery services, API.
//!
//! A change goes one way: source → [`store`] → [`push`] → [`discovery`] → the streams of the proxies. Each step takes the
//! newest state of the one before it; no lock is held across two of them.

pub mod api;
pub mod authentication;
pub mod authority;
mod authority_secret;
pub mod ca_service;
pub mod discovery;
pub mod external_ca;
mod federation;
pub mod inject;
pub mod issuers;
pub mod keys;
pub mod leader;
pub mod listen;
pub mod manifest;
pub mod mesh_settings;
pub mod metrics;
pub mod push;
mod root_certificates;
pub mod serve;
mod serving_tls;
pub mod source;
mod status;
pub mod store;
pub mod token_review;
pub mod traffic;
pub mod trust;
mod web;
mod webhook;
