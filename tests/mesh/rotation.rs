//! Every certificate of a mesh is replaced while requests run and connections live: leaves again and again, the intermediate that
//! signs them, and the root. No request fails, and what was connected before stays connected.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lateen_testing::eventually::eventually_blocking;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::Value;

use crate::identity::peer_authentication;
use crate::load::{Load, none_failed};
use crate::programs::Programs;
use crate::running::{Mesh, PROBE};

/// Certificates of all proxies are for so long, so that each has several while the test runs.
const SHORT: &str = "\
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: short, namespace: istio-system}
spec: {environmentVariables: {SECRET_TTL: 12s}}
";

#[test]
fn nobody_notices_new_leaves_intermediates_and_roots() {
    let [old, new] = ["old", "new"].map(Root::new);
    let [first, second, third] =
        [(&old, "first"), (&old, "second"), (&new, "third")].map(|(root, name)| root.intermediate(name));
    let both = format!("{}{}", old.pem, new.pem);
    let files = [("rules.yaml", ""), ("short.yaml", SHORT), ("cacerts.yaml", &*first.secret(&old.pem))];
    let more = ["-f", "tests/mesh/input/services.yaml", "--images", "tests/mesh/input/images.yaml"].map(str::to_owned);
    let mesh = Mesh::start_by(Programs::ours(), &files, &more).0;
    mesh.apply_text(&peer_authentication("default", "", "STRICT"));
    let load = Load::inside(&mesh, "deploy/client", "httpbin:8000", "/get", 0, 50);
    let mut talks = [Talk::by_tcp(&mesh), Talk::by_grpc(&mesh)];
    let mut said = 0;
    let mut goes_on = |load: &Load, what: &str| {
        load.more(50);
        for talk in &mut talks {
            said += 1;
            talk.says(&format!("{what} {said}"));
        }
    };
    goes_on(&load, "at first");
    assert!(holds(&mesh, &first.pem, &old.pem), "it is the plugged-in authority that signs");
    for renewal in 0..2 {
        let before = SERVERS.map(|pod| Held::of(&mesh, pod).chain);
        let renewed = || SERVERS.iter().zip(&before).all(|(pod, before)| Held::of(&mesh, pod).chain != *before);
        eventually_blocking("new leaves are there", || renewed().then_some(()));
        goes_on(&load, &format!("after renewal {renewal}"));
    }
    for (what, signer, roots) in [
        ("another intermediate", &second, &old.pem),
        ("the next root is trusted, too", &second, &both),
        ("the next root signs", &third, &both),
        ("the last root is trusted no more", &third, &new.pem),
    ] {
        mesh.write("cacerts.yaml", &signer.secret(roots));
        eventually_blocking(what, || holds(&mesh, &signer.pem, roots).then_some(()));
        goes_on(&load, what);
    }
    drop(talks);
    let answers = load.stop();
    none_failed(&answers);
    assert!(answers.len() > 350, "{} answers", answers.len());
}

/// Whose certificates are looked at: who asks, and who answers.
const SERVERS: [&str; 4] = ["deploy/client", "deploy/httpbin", "deploy/rpc", "deploy/echo"];

/// Whether everybody has a certificate by this authority, and trusts these roots and no others.
fn holds(mesh: &Mesh, signer: &str, roots: &str) -> bool {
    SERVERS.iter().all(|pod| {
        let held = Held::of(mesh, pod);
        held.chain.ends_with(signer) && held.roots == roots
    })
}

/// What a sidecar says that it has, in PEM.
struct Held {
    chain: String,
    roots: String,
}

impl Held {
    fn of(mesh: &Mesh, pod: &str) -> Self {
        let answer = mesh.ask(pod, "127.0.0.1", 15000, "/config_dump?resource=dynamic_active_secrets");
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        let dump: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
        let of = |name: &str| {
            let named = |config: &&Value| config["name"] == name;
            dump["configs"].as_array().into_iter().flatten().find(named).map(|config| config["secret"].clone())
        };
        let bytes = |value: &Value| {
            let bytes = value["inline_bytes"].as_str().and_then(|text| STANDARD.decode(text).ok());
            String::from_utf8(bytes.unwrap_or_default()).expect("PEM is text")
        };
        let chain = of("default").map(|secret| bytes(&secret["tls_certificate"]["certificate_chain"]));
        let roots = of("ROOTCA").map(|secret| {
            let domains = &secret["validation_context"]["custom_validator_config"]["typed_config"]["trust_domains"];
            bytes(&domains[0]["trust_bundle"])
        });
        Self { chain: chain.unwrap_or_default(), roots: roots.unwrap_or_default() }
    }
}

/// A connection through two sidecars, on which something is said now and then.
struct Talk {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What the other end puts before what it has heard.
    prefix: &'static str,
}

impl Talk {
    fn by_tcp(mesh: &Mesh) -> Self {
        let script = "exec 3<>/dev/tcp/echo/9000 && while read -r line; do echo \"$line\" >&3 && read -r answer <&3 && echo \"$answer\" || exit 1; done";
        Self::start(mesh.lateen(&["exec", "deploy/client", "--", "bash", "-c", script]), "heard ")
    }

    fn by_grpc(mesh: &Mesh) -> Self {
        Self::start(mesh.lateen(&["exec", "deploy/client", "--", PROBE, "http2-talk", "http://rpc:7000/talk"]), "")
    }

    fn start(mut command: Command, prefix: &'static str) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("lateen can be run");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, input, output, prefix }
    }

    fn says(&mut self, text: &str) {
        writeln!(self.input, "{text}").unwrap_or_else(|error| panic!("the connection has ended {text}: {error}"));
        let mut heard = String::new();
        self.output.read_line(&mut heard).expect("it can be read");
        assert_eq!(heard, format!("{}{text}\n", self.prefix), "the connection has ended");
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A root, whose key stays elsewhere.
struct Root {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// An authority that signs for it.
struct Intermediate {
    pem: String,
    key: String,
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Root {
    fn new(name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().expect("a key can be made"));
        let pem = params.self_signed(&key).expect("it can be signed").pem();
        Self { issuer: Issuer::new(params, key), pem: with_unix_lines(&pem) }
    }

    fn intermediate(&self, name: &str) -> Intermediate {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = authority(name).signed_by(&key, &self.issuer).expect("it can be signed");
        Intermediate { pem: with_unix_lines(&certificate.pem()), key: key.serialize_pem() }
    }
}

fn with_unix_lines(pem: &str) -> String {
    pem.lines().map(|line| format!("{line}\n")).collect()
}

impl Intermediate {
    /// As Istio plugs it in.
    fn secret(&self, roots: &str) -> String {
        let entry = |(name, pem): (&str, &str)| {
            let lines: String = pem.lines().map(|line| format!("    {line}\n")).collect();
            format!("  {name}: |\n{lines}")
        };
        let entries = [
            ("ca-cert.pem", &*self.pem),
            ("ca-key.pem", &*self.key),
            ("cert-chain.pem", &*self.pem),
            ("root-cert.pem", roots),
        ];
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: cacerts, namespace: istio-system}}\nstringData:\n{}",
            entries.map(entry).concat()
        )
    }
}
