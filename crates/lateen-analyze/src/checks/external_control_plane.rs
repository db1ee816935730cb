//! Webhooks of an installation whose control plane runs elsewhere.

use std::net::IpAddr;

use serde_json::Value;

use crate::document::{Document, items, text};
use crate::report::Report;
use crate::world::{ADMISSION, World};

pub(super) fn check(world: &World, report: &mut Report) {
    let is_validator = |name: &str| name == "istiod-default-validator" || name.starts_with("istio-validator");
    let validators = world.each(ADMISSION, "ValidatingWebhookConfiguration").filter(|it| is_validator(&it.name));
    let injectors = world.each(ADMISSION, "MutatingWebhookConfiguration");
    for document in validators.chain(injectors.filter(|it| it.name.starts_with("istio-sidecar-injector"))) {
        for (index, webhook) in items(&document.json["webhooks"]).iter().enumerate() {
            address(document, webhook, &format!("webhooks[{index}].clientConfig"), report);
        }
    }
}

fn address(document: &Document, webhook: &Value, field: &str, report: &mut Report) {
    let config = &webhook["clientConfig"];
    let name = text(&webhook["name"]);
    let Some(url) = config["url"].as_str() else {
        if !config["service"].is_object() {
            let message = format!("webhook `{name}` names neither a URL nor a service of its control plane");
            report.add(document, "IST0163", field, message);
        }
        return;
    };
    let field = format!("{field}.url");
    match host(url) {
        None => {
            let message = format!("`{url}` of webhook `{name}` is no URL");
            report.add(document, "IST0163", &field, message);
        }
        Some(host) if host.parse::<IpAddr>().is_ok() => {
            let message = format!("webhook `{name}` reaches its control plane at the address {host} instead of a name");
            report.add(document, "IST0164", &field, message);
        }
        Some(_) => {}
    }
}

/// The host of a URL; empty where a URL has none, `None` if it is none.
fn host(url: &str) -> Option<&str> {
    if url.contains(|letter: char| letter.is_control() || letter == ' ') || url.starts_with(':') {
        return None;
    }
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map(|(host, _)| host);
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let is_port = port.bytes().all(|digit| digit.is_ascii_digit());
    (is_port && !host.contains('%')).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn hosts_are_read_off_urls() {
        assert_eq!(host("https://istiod.example.com:15017/inject"), Some("istiod.example.com"));
        assert_eq!(host("https://[fd00::1]:15017/inject"), Some("fd00::1"));
        assert_eq!(host("https://user@10.0.0.1/inject?x"), Some("10.0.0.1"));
        assert_eq!(host("https://host:port/inject"), None);
        assert_eq!(host("http:// host"), None);
    }
}
