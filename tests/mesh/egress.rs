//! Who may leave the mesh, where to and how: one object each time.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::running::Mesh;

const BANK: &str = "bank.far.svc.cluster.local";
const VAULT: &str = "vault.far.svc.cluster.local";

/// One mesh for all steps.
#[test]
fn one_object_says_who_may_leave_where_to_and_how() {
    let mesh = Mesh::of("egress");
    assert!(paying(&mesh, BANK).starts_with("HTTP/1.1 200"), "unknown hosts are passed on: {}", paying(&mesh, BANK));
    sidecars_let_some_through(&mesh);
    names_under_a_wildcard_are_resolved_when_they_are_asked_for(&mesh);
    a_gateway_lets_some_through(&mesh);
    a_gateway_begins_tls_with_a_certificate_of_its_own(&mesh);
}

fn egress(spec: &str) -> String {
    format!("apiVersion: policy.lateen.dev/v1alpha1\nkind: Egress\nmetadata: {{name: out}}\nspec: {spec}\n")
}

fn ask(mesh: &Mesh, who: &str, host: &str) -> String {
    mesh.ask(&format!("deploy/{who}"), host, 80, "/hello")
}

fn paying(mesh: &Mesh, host: &str) -> String {
    ask(mesh, "paying", host)
}

fn is_refused(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 403") && answer.contains("RBAC: access denied")
}

fn sidecars_let_some_through(mesh: &Mesh) {
    mesh.apply_text(&egress(&format!(
        "{{hosts: [{BANK}], ports: [{{number: 80, protocol: HTTP}}], from: [{{serviceAccounts: [paying]}}]}}"
    )));
    let answer = paying(mesh, BANK);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("bank"), "{answer}");
    let refused = ask(mesh, "reading", BANK);
    assert!(is_refused(&refused), "{refused}");
    mesh.apply_text(&egress(&format!("{{hosts: [{BANK}], ports: [{{number: 80, protocol: HTTP}}]}}")));
    assert!(ask(mesh, "reading", BANK).starts_with("HTTP/1.1 200"), "everybody may");
    mesh.delete("egress", "out");
}

fn names_under_a_wildcard_are_resolved_when_they_are_asked_for(mesh: &Mesh) {
    mesh.apply_text(&egress(
        "{hosts: ['*.far.svc.cluster.local'], ports: [{number: 80, protocol: HTTP}], from: [{selector: {matchLabels: {app: paying}}}]}",
    ));
    let answer = paying(mesh, BANK);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("bank"), "{answer}");
    assert!(is_refused(&ask(mesh, "reading", BANK)));
    let to = |authority: &str| {
        let script = format!(
            "printf 'GET /hello HTTP/1.1\\r\\nhost: {authority}\\r\\nconnection: close\\r\\n\\r\\n' >&3 && timeout 10 cat <&3"
        );
        mesh.converse("deploy/paying", BANK, 80, &script)
    };
    let unknown = to("nobody.far.svc.cluster.local");
    assert!(unknown.starts_with("HTTP/1.1 503") && unknown.contains("DNS resolution failure"), "{unknown}");
    // The object is about port 80, whatever a request says.
    let elsewhere = to(&format!("{BANK}:5000"));
    assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
    mesh.delete("egress", "out");
}

const GATEWAY: &str =
    "via: {gateway: {service: egress.istio-system.svc.cluster.local, selector: {matchLabels: {istio: egressgateway}}}}";

fn a_gateway_lets_some_through(mesh: &Mesh) {
    let of = |hosts: &str, from: &str| {
        egress(&format!("{{hosts: ['{hosts}'], ports: [{{number: 80, protocol: HTTP}}], from: [{from}], {GATEWAY}}}"))
    };
    for hosts in [BANK, "*.far.svc.cluster.local"] {
        mesh.apply_text(&of(hosts, "{serviceAccounts: [paying]}"));
        let answer = paying(mesh, BANK);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("bank"), "{hosts}: {answer}");
        assert!(is_refused(&ask(mesh, "reading", BANK)), "{hosts}");
    }
    mesh.delete("egress", "out");
}

/// Certificates in PEM.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "outside");
        let certificate = params.self_signed(&key).expect("it can be signed");
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// A Secret with a certificate for this name, and with the authority as its root.
    fn secret(&self, namespace: &str, name: &str) -> String {
        let key = KeyPair::generate().expect("a key can be made");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("the name is good");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: vault, namespace: {namespace}}}\ntype: kubernetes.io/tls\n\
             stringData:\n  tls.crt: |\n{}  tls.key: |\n{}  ca.crt: |\n{}",
            indented(&certificate.pem()),
            indented(&key.serialize_pem()),
            indented(&self.pem)
        )
    }
}

fn a_gateway_begins_tls_with_a_certificate_of_its_own(mesh: &Mesh) {
    let authority = Authority::new();
    let object = egress(&format!(
        "{{hosts: [{VAULT}], ports: [{{number: 80, protocol: HTTP}}], from: [{{serviceAccounts: [paying]}}], tls: {{mode: MUTUAL, credentialName: vault}}, {GATEWAY}}}"
    ));
    // A server that another authority vouches for is not the one. It comes first: what is connected stays so.
    let stranger = Authority::new();
    let own = authority.secret("istio-system", "egress.test");
    mesh.apply_text(&format!("{object}{}{own}", stranger.secret("far", VAULT)));
    let answer = paying(mesh, VAULT);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    mesh.apply_text(&authority.secret("far", VAULT));
    let answer = paying(mesh, VAULT);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("this is the vault"), "{answer}");
    assert!(is_refused(&ask(mesh, "reading", VAULT)));
    mesh.delete("egress", "out");
}
