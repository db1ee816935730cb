//! Annotations that say which traffic is redirected, as arguments of the program that redirects it. No shell reads them.

use lateen_api::Diagnostic;

use super::Subject;

/// The proxy's own ports, which are never redirected, beside that of its status: readiness and metrics.
const OWN_PORTS: &str = "15090,15021";

/// An annotation, the option it becomes, and how its value is checked.
struct Setting {
    annotation: &'static str,
    option: &'static str,
    check: fn(&str) -> Result<(), String>,
}

const INBOUND: &str = "traffic.sidecar.istio.io/includeInboundPorts";

const SETTINGS: &[Setting] = &[
    Setting { annotation: INBOUND, option: "-b", check: ports_or_all },
    Setting { annotation: "traffic.sidecar.istio.io/excludeInboundPorts", option: "-d", check: ports },
    Setting { annotation: "traffic.sidecar.istio.io/includeOutboundPorts", option: "-q", check: ports },
    Setting { annotation: "traffic.sidecar.istio.io/excludeOutboundPorts", option: "-o", check: ports },
    Setting { annotation: "traffic.sidecar.istio.io/includeOutboundIPRanges", option: "-i", check: ranges_or_all },
    Setting { annotation: "traffic.sidecar.istio.io/excludeOutboundIPRanges", option: "-x", check: ranges },
    Setting { annotation: "traffic.sidecar.istio.io/excludeInterfaces", option: "-c", check: interfaces },
    Setting { annotation: "istio.io/reroute-virtual-interfaces", option: "-k", check: interfaces },
];
/// The former name of the last of them.
const KUBEVIRT: &str = "traffic.sidecar.istio.io/kubevirtInterfaces";

/// The arguments.
///
/// # Errors
/// Annotations that make no sense, all of them.
pub(super) fn arguments(subject: &Subject<'_>, status_port: Option<u16>) -> Result<Vec<String>, Vec<Diagnostic>> {
    let old = Setting { annotation: KUBEVIRT, option: "-k", check: interfaces };
    let problems: Vec<Diagnostic> = SETTINGS
        .iter()
        .chain([&old])
        .filter_map(|setting| {
            let why = (setting.check)(subject.annotation(setting.annotation)?).err()?;
            Some(subject.wrong(setting.annotation, why))
        })
        .collect();
    if problems.is_empty() { Ok(options(subject, status_port)) } else { Err(problems) }
}

fn options(subject: &Subject<'_>, status_port: Option<u16>) -> Vec<String> {
    let fixed = ["apply", "-p", "15001", "-z", "15006", "-u", "1337", "-g", "1337", "-m", "REDIRECT"];
    let mut out: Vec<String> = fixed.map(str::to_owned).into();
    let own_ports = match status_port {
        Some(port) => format!("{OWN_PORTS},{port}"),
        None => OWN_PORTS.to_owned(),
    };
    for Setting { annotation, option, .. } in SETTINGS {
        let own = subject.annotation(annotation).or_else(|| match *option {
            "-k" => subject.annotation(KUBEVIRT),
            _ => None,
        });
        let value = match (*option, own.map(str::trim)) {
            ("-b" | "-i", None) => "*".to_owned(),
            // Ports are taken out only where all are in; then the proxy's own are among them.
            ("-d", _) if !includes_all_inbound(subject) => continue,
            ("-d", None | Some("")) => own_ports.clone(),
            ("-d", Some(ports)) => format!("{own_ports},{ports}"),
            (_, None | Some("")) if !matches!(*option, "-b" | "-i") => continue,
            (_, own) => own.unwrap_or_default().to_owned(),
        };
        out.extend([(*option).to_owned(), value]);
    }
    out
}

fn includes_all_inbound(subject: &Subject<'_>) -> bool {
    subject.annotation(INBOUND).is_none_or(|ports| ports.trim() == "*")
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
    // A name that starts with a dash would be an option to whoever reads the arguments.
    let legal = |part: &str| {
        part.len() < 16 && !part.starts_with('-') && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
    };
    each(
        text,
        |part| if legal(part) { Ok(()) } else { Err(format!("`{part}` is not the name of a network interface")) },
    )
}
