//! Gateways of Istio: their pods, the Services that lead to those, and their Secrets.

use std::collections::BTreeSet;

use lateen_api::Object;
use lateen_api::kubernetes::secret::REDACTED;
use x509_parser::pem::parse_x509_pem;

use crate::document::{Document, Labels, items, labels, scalar, selects, shown, text};
use crate::report::Report;
use crate::world::{CORE, NETWORKING, World};

pub(super) fn ports(world: &World, report: &mut Report) {
    for document in world.each(NETWORKING, "Gateway") {
        let selector = labels(&document.spec()["selector"]);
        let Some(known) = known_ports(&selector, world) else {
            nobody(document, &selector, report);
            continue;
        };
        for (index, server) in items(&document.spec()["servers"]).iter().enumerate() {
            let Some(number) = server["port"]["number"].as_u64() else { continue };
            if !known.contains(&number) {
                let message = format!("no Service leads to port {number} of the pods `{}`", shown(&selector));
                report.add(document, "IST0162", &format!("spec.servers[{index}].port.number"), message);
            }
        }
    }
}

/// The ports of pods that Services lead to, and the Services' own; `None` if there are no pods.
fn known_ports(selector: &Labels, world: &World) -> Option<BTreeSet<u64>> {
    let pods: Vec<_> = world.workloads().filter(|pod| selects(selector, pod.labels)).collect();
    let mut known = BTreeSet::new();
    for service in world.each(CORE, "Service") {
        let wanted = labels(&service.spec()["selector"]);
        if !pods.iter().any(|pod| pod.namespace() == service.namespace && selects(&wanted, pod.labels)) {
            continue;
        }
        for port in items(&service.spec()["ports"]).iter().filter(|port| matches!(text(&port["protocol"]), "" | "TCP"))
        {
            // A name leads to whatever port of the pod has it.
            known.extend(port["port"].as_u64());
            known.extend(scalar(&port["targetPort"]).parse::<u64>().ok());
        }
    }
    (!pods.is_empty()).then_some(known)
}

fn nobody(document: &Document, selector: &Labels, report: &mut Report) {
    let message = format!("selector `{}` selects no pod, so that nobody listens", shown(selector));
    report.add(document, "IST0101", "spec.selector", message);
}

pub(super) fn secrets(world: &World, report: &mut Report) {
    for document in world.each(NETWORKING, "Gateway") {
        let selector = labels(&document.spec()["selector"]);
        let Some(pod) = world.workloads().find(|pod| selects(&selector, pod.labels)) else {
            nobody(document, &selector, report);
            continue;
        };
        for (index, server) in items(&document.spec()["servers"]).iter().enumerate() {
            let name = text(&server["tls"]["credentialName"]);
            if name.is_empty() {
                continue;
            }
            let field = format!("spec.servers[{index}].tls.credentialName");
            let namespace = pod.namespace();
            match world.find(CORE, "Secret", namespace, name) {
                None => {
                    let message =
                        format!("there is no Secret `{name}` in namespace {namespace}, where the gateway's pods run");
                    report.add(document, "IST0101", &field, message);
                }
                Some(secret) => {
                    if let Err(reason) = certificate(secret, world.now) {
                        report.add(
                            document,
                            "IST0161",
                            &field,
                            format!("Secret `{name}` in namespace {namespace}: {reason}"),
                        );
                    }
                }
            }
        }
    }
}

/// Whether a Secret holds a certificate that is valid now and its key, in either of Istio's two forms.
fn certificate(secret: &Document, now: Option<i64>) -> Result<(), String> {
    let Ok(Object::Secret(secret)) = lateen_api::parse_json(&secret.file, &secret.json, &secret.namespace) else {
        return Err("it cannot be read".to_owned());
    };
    let pair = |certificate: &str, key: &str| Some((secret.spec.value(certificate)?, secret.spec.value(key)?));
    let is_there = |(chain, key): &(Vec<u8>, Vec<u8>)| !chain.is_empty() && !key.is_empty();
    let found = pair("cert", "key").filter(is_there).or_else(|| pair("tls.crt", "tls.key").filter(is_there));
    let Some((chain, _)) = found else {
        return Err("it has neither `tls.crt` and `tls.key` nor `cert` and `key`".to_owned());
    };
    let unreadable = "its chain holds no certificate that can be read";
    // What runs is shown without its secrets.
    if chain == REDACTED.as_bytes() {
        return Ok(());
    }
    let (_, pem) = parse_x509_pem(&chain).map_err(|_| unreadable.to_owned())?;
    let certificate = pem.parse_x509().map_err(|_| unreadable.to_owned())?;
    let validity = certificate.validity();
    match now {
        Some(now) if now > validity.not_after.timestamp() => {
            Err(format!("its certificate has expired ({})", validity.not_after))
        }
        Some(now) if now < validity.not_before.timestamp() => {
            Err(format!("its certificate is not valid yet ({})", validity.not_before))
        }
        _ => Ok(()),
    }
}
