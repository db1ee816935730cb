//! Annotations that say which traffic is redirected, as arguments of the program that redirects it.

use lateen_api::kubernetes::Pod;
use lateen_api::{Diagnostic, Resource};

use super::problem;

const MODE: &str = "sidecar.istio.io/interceptionMode";
/// The proxy's own ports, which are never redirected: merged metrics, readiness, metrics (Istio: `ALWAYS_EXCLUDED`).
const OWN_PORTS: &str = "15090,15021,15020";
const INTERFACES: &str = "traffic.sidecar.istio.io/excludeInterfaces";

/// An annotation, the option it becomes, and how its value is checked.
struct Setting {
    annotation: &'static str,
    option: &'static str,
    check: fn(&str) -> Result<(), String>,
}

const SETTINGS: &[Setting] = &[
    Setting { annotation: "traffic.sidecar.istio.io/includeInboundPorts", option: "-b", check: ports_or_all },
    Setting { annotation: "traffic.sidecar.istio.io/excludeInboundPorts", option: "-d", check: ports },
    Setting { annotation: "traffic.sidecar.istio.io/includeOutboundPorts", option: "-q", check: ports },
    Setting { annotation: "traffic.sidecar.istio.io/excludeOutboundPorts", option: "-o", check: ports },
    Setting { annotation: "traffic.sidecar.istio.io/includeOutboundIPRanges", option: "-i", check: ranges_or_all },
    Setting { annotation: "traffic.sidecar.istio.io/excludeOutboundIPRanges", option: "-x", check: ranges },
    Setting { annotation: INTERFACES, option: "-c", check: interfaces },
];

/// The arguments; none when the pod wants no redirection (interception mode `NONE`).
pub(super) fn arguments(pod: &Resource<Pod>) -> Result<Option<Vec<String>>, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let mode = pod.metadata.annotation(MODE).unwrap_or("REDIRECT");
    match mode {
        "REDIRECT" | "NONE" => {}
        "TPROXY" => problems.push(problem(pod, MODE, "TPROXY is not supported: use REDIRECT".to_owned())),
        other => problems.push(problem(pod, MODE, format!("`{other}` is not one of REDIRECT, TPROXY and NONE"))),
    }
    for setting in SETTINGS {
        let value = pod.metadata.annotation(setting.annotation);
        if let Some(Err(why)) = value.map(setting.check) {
            problems.push(problem(pod, setting.annotation, why));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok((mode == "REDIRECT").then(|| options(pod)))
}

fn options(pod: &Resource<Pod>) -> Vec<String> {
    let fixed = ["apply", "-p", "15001", "-z", "15006", "-u", "1337", "-g", "1337", "-m", "REDIRECT"];
    let mut out: Vec<String> = fixed.map(str::to_owned).into();
    for Setting { annotation, option, .. } in SETTINGS {
        let own = pod.metadata.annotation(annotation).map(str::trim);
        let value = match (*option, own) {
            ("-b" | "-i", None) => "*".to_owned(),
            // Ports are taken out only where all are in; then the proxy's own are among them.
            ("-d", _) if !includes_all_inbound(pod) => continue,
            ("-d", None | Some("")) => OWN_PORTS.to_owned(),
            ("-d", Some(ports)) => format!("{OWN_PORTS},{ports}"),
            (_, None | Some("")) if !matches!(*option, "-b" | "-i") => continue,
            (_, own) => own.unwrap_or_default().to_owned(),
        };
        out.extend([(*option).to_owned(), value]);
    }
    out
}

fn includes_all_inbound(pod: &Resource<Pod>) -> bool {
    pod.metadata.annotation(SETTINGS[0].annotation).is_none_or(|ports| ports.trim() == "*")
}

fn each(text: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).try_for_each(check)
}

fn ports(text: &str) -> Result<(), String> {
    each(text, |part| match part.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(format!("`{part}` is not a port (1 to 65535)")),
    })
}

fn ports_or_all(text: &str) -> Result<(), String> {
    if text.trim() == "*" { Ok(()) } else { ports(text) }
}

fn ranges(text: &str) -> Result<(), String> {
    each(text, |part| match part.parse::<ipnet::IpNet>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("`{part}` is not a range of addresses such as 10.0.0.0/8")),
    })
}

fn ranges_or_all(text: &str) -> Result<(), String> {
    if text.trim() == "*" { Ok(()) } else { ranges(text) }
}

fn interfaces(text: &str) -> Result<(), String> {
    let legal = |part: &str| part.len() < 16 && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    each(
        text,
        |part| if legal(part) { Ok(()) } else { Err(format!("`{part}` is not the name of a network interface")) },
    )
}
