//! The commands on a running mesh: what somebody with kubectl in their fingers types.

use std::path::Path;
use std::process::Command;

use lateen_testing::eventually::eventually_blocking;
use serde_json::Value;

use crate::programs::Programs;
use crate::running::Mesh;

const RULE: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: details, labels: {team: books}}
spec: {host: details}
";

/// One mesh for all steps: each step leaves it as it found it.
#[test]
fn commands_do_what_somebody_with_kubectl_in_their_fingers_expects() {
    let mesh = Mesh::up(Programs::ours());
    objects_are_shown_applied_and_deleted_as_by_kubectl(&mesh);
    what_is_suspicious_is_told_and_in_force(&mesh);
    what_is_wrong_in_a_call_is_told_with_what_to_do(&mesh);
    the_state_of_things_can_be_read_by_programs(&mesh);
    a_saved_mistake_is_shown_and_goes_when_it_is_mended(&mesh);
    ejected_hosts_are_shown(&mesh);
    what_a_proxy_holds_is_shown(&mesh);
    connections_are_made_anew(&mesh);
    a_stopped_proxy_is_named(&mesh);
    what_is_suggested_works_when_pasted(&mesh);
}

/// A service of one host at which nobody listens: the first request finds that out.
const DEAD: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dead}
spec:
  hosts: [dead.test]
  addresses: [240.0.0.9]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1, ports: {http: 9}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: dead}
spec:
  host: dead.test
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 10m, maxEjectionPercent: 100}
";

fn ejected_hosts_are_shown(mesh: &Mesh) {
    assert_eq!(mesh.run(&["stat", "--ejections"]), "no host is ejected\n");
    mesh.apply_text(DEAD);
    let script = "import urllib.request as u; u.urlopen(u.Request('http://240.0.0.9/', headers={'Host': 'dead.test'}))";
    let asked = mesh.lateen(&["exec", "deploy/productpage-v1", "--", "python3", "-c", script]).output();
    assert!(!asked.expect("lateen can be run").status.success(), "nobody listens there");
    let shown = eventually_blocking("the host is ejected", || {
        let shown = mesh.run(&["stat", "--ejections"]);
        shown.contains("127.0.0.1:9").then_some(shown)
    });
    let row = shown.lines().nth(1).expect("there is one");
    assert!(row.starts_with("productpage-v1-") && row.contains("outbound|80||dead.test   consecutive_5xx"), "{shown}");
    let json: Value = serde_json::from_str(&mesh.run(&["stat", "deploy/productpage-v1", "--ejections", "-o", "json"]))
        .expect("it is JSON");
    assert_eq!(json["ejections"][0]["cause"], "consecutive_5xx", "{json}");
    assert_eq!(mesh.run(&["stat", "deploy/details-v1", "--ejections"]), "no host is ejected\n");
    mesh.delete("destinationrule", "dead");
    mesh.delete("serviceentry", "dead");
}

fn what_a_proxy_holds_is_shown(mesh: &Mesh) {
    let shown = |part: &str| mesh.run(&["proxy-config", part, "deploy/productpage-v1"]);
    let has = |part: &str, words: &[&str]| {
        let shown = shown(part);
        let fits = |line: &&str| words.iter().all(|word| line.contains(word));
        assert!(shown.lines().any(|line| fits(&line)), "{part}, {words:?}:\n{shown}");
    };
    has("listener", &["0.0.0.0", "9080", "http/1.1", "Route: 9080"]);
    has("listener", &["0.0.0.0", "15006", "Addr: *:9080", "Inline Route: inbound|9080||"]);
    has(
        "route",
        &[
            "9080",
            "reviews.default.svc.cluster.local:9080",
            "reviews, reviews.default + ",
            "/*",
            "outbound|9080||reviews",
        ],
    );
    has("cluster", &["reviews.default.svc.cluster.local", "9080", "outbound", "EDS"]);
    has("endpoint", &[":9080", "HEALTHY", "OK", "outbound|9080||details.default.svc.cluster.local"]);
    has("secret", &["default", "Cert Chain", "ACTIVE", "true"]);
    has("secret", &["ROOTCA", "CA", "ACTIVE", "true"]);
    let all = shown("all");
    assert!(all.contains("SERVICE FQDN") && all.contains("VHOST NAME") && all.contains("SERIAL NUMBER"), "{all}");
    let json: Value =
        serde_json::from_str(&mesh.run(&["pc", "s", "deploy/productpage-v1", "-o", "json"])).expect("JSON");
    assert!(json.to_string().contains("notAfter") && !json.to_string().to_lowercase().contains("private"), "{json}");
    let (code, complaint) = refused(mesh, &["proxy-config", "cluster", "deploy/outsider"]);
    assert!(code == Some(1) && complaint.contains("there is no proxy in pod outsider-"), "{complaint}");
    let (code, complaint) = refused(mesh, &["proxy-config", "cluster", "deploy/reviws-v1"]);
    assert!(code == Some(1) && complaint.contains("did you mean `reviews-v1`?"), "{complaint}");
}

fn connections_are_made_anew(mesh: &Mesh) {
    let said = mesh.run(&["drain", "deploy/details-v1", "--connections", "--time", "1"]);
    assert!(said.contains("its clients are asked to connect anew"), "{said}");
    assert!(mesh.get("/productpage").starts_with("HTTP/1.1 200"), "and they do");
    let (code, complaint) = refused(mesh, &["drain", "deploy/outsider", "--connections"]);
    assert!(code == Some(1) && complaint.contains("there is no proxy in pod outsider-"), "{complaint}");
}

fn status(mesh: &Mesh) -> Value {
    serde_json::from_str(&mesh.run(&["status", "-o", "json"])).expect("status is JSON")
}

/// Exit code and complaints.
fn refused(mesh: &Mesh, arguments: &[&str]) -> (Option<i32>, String) {
    let output = mesh.lateen(arguments).output().expect("lateen can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn objects_are_shown_applied_and_deleted_as_by_kubectl(mesh: &Mesh) {
    let folder = mesh.folder().join("rules");
    std::fs::create_dir_all(folder.join("deeper")).expect("folders can be made");
    let folder = folder.display().to_string();
    let file = mesh.write("rules/details.yaml", RULE);
    mesh.write("rules/deeper/ratings.yaml", &RULE.replace("details", "ratings").replace("books", "stars"));
    mesh.write("rules/.hidden.yaml", "nonsense");
    mesh.write("rules/notes.txt", "nonsense");
    let said = mesh.run(&["apply", "-f", &folder]);
    assert_eq!(said, "destinationrule.networking.istio.io/details created\n");
    let said = mesh.run(&["apply", "-R", "-f", &folder, "--wait"]);
    assert!(said.contains("/details unchanged\n") && said.contains("/ratings created\n"), "{said}");
    assert!(said.contains("7/7 proxies live in ") && !said.contains(" 0 ms") && !said.contains("0.0 s"), "{said}");
    // An object remembers the file and the line that it came from.
    let shown = mesh.run(&["get", "dr", "details", "-o", "yaml"]);
    assert!(shown.contains(&format!("lateen.dev/origin: {file}:1")), "{shown}");

    let table = mesh.run(&["get", "dr"]);
    assert!(table.starts_with("NAME ") && table.lines().count() == 4, "reviews' is in the sample: {table}");
    let names = |arguments: &[&str]| mesh.run(&[arguments, &["-o", "name"]].concat());
    assert_eq!(names(&["get", "dr", "-l", "team in (books)"]), "destinationrule.networking.istio.io/details\n");
    assert_eq!(
        names(&["get", "dr/ratings", "svc/details"]),
        "destinationrule.networking.istio.io/ratings\nservice/details\n"
    );
    let several = mesh.run(&["get", "all,vs"]);
    for part in [
        "pod/details-v1-",
        "deployment.apps/reviews-v3",
        "service/ratings",
        "virtualservice.networking.istio.io/bookinfo",
    ] {
        assert!(several.contains(part), "{part} is missing:\n{several}");
    }
    assert!(mesh.run(&["get", "deploy", "details-v1"]).contains("1/1"));

    let said = mesh.run(&["delete", "dr", "details", "ratings", "--wait"]);
    assert_eq!(said.matches(" deleted\n").count(), 2, "{said}");
    assert_eq!(mesh.run(&["delete", "dr", "details", "--ignore-not-found"]), "");
}

/// As most of Istio's own samples are: subsets are named before their pods are there.
fn what_is_suspicious_is_told_and_in_force(mesh: &Mesh) {
    let subset = "spec: {host: details, subsets: [{name: v2, labels: {version: v2}}]}";
    let file = mesh.write("early.yaml", &RULE.replace("spec: {host: details}", subset));
    let said = mesh.run(&["apply", "--wait", "-f", &file]);
    assert!(said.contains("7/7 proxies live") && said.contains("subset `v2` selects no pod of `details`"), "{said}");
    mesh.run(&["delete", "-f", &file, "--wait"]);
}

fn what_is_wrong_in_a_call_is_told_with_what_to_do(mesh: &Mesh) {
    for (arguments, code, said) in [
        (&["get", "virtualservce"][..], 2, "there is no kind `virtualservce`, did you mean `virtualservice`?"),
        (&["get", "svc", "review"], 1, "service/review not found in namespace default, did you mean `reviews`?"),
        (&["get", "deploy", "istio-ingressgateway"], 1, "; there is one in -n istio-system"),
        (&["get", "po", "-l", "app in reviews"], 2, "is no condition on labels"),
        (&["delete", "vs"], 2, "say which ones: by name, by labels (-l), or --all"),
        (&["delete", "vs", "nobody"], 1, "virtualservice.networking.istio.io/nobody not found"),
        (&["apply", "-f", "no-such-file.yaml"], 1, "read no-such-file.yaml"),
        (&["exec", "deploy/reviews", "--", "true"], 1, "did you mean `reviews-v1`?"),
        (&["logs", "detials-v1"], 1, "did you mean `details-v1`?"),
        (&["logs", "svc/details"], 1, "a pod is named by its own name, pod/NAME, or deploy/NAME"),
    ] {
        let (got, errors) = refused(mesh, arguments);
        assert!(got == Some(code) && errors.contains(said), "{arguments:?}: {got:?} {errors}");
    }
}

fn the_state_of_things_can_be_read_by_programs(mesh: &Mesh) {
    let status = status(mesh);
    let pods = status["pods"].as_array().expect("pods are a list");
    assert!(pods.len() == 8 && pods.iter().all(|pod| pod["ready"] == true), "{status:#}");
    assert_eq!((&status["running"], &status["controlPlane"]), (&true.into(), &"answers".into()), "{status:#}");
    let proxies: Value =
        serde_json::from_str(&mesh.run(&["proxy-status", "-o", "json"])).expect("proxy-status is JSON");
    let proxies = proxies["proxies"].as_array().expect("proxies are a list");
    assert!(proxies.len() == 7 && proxies.iter().all(|proxy| proxy["state"] == "synced"));
}

/// A mistake is told with its line underlined, by `lateen up` when a file is saved, and by `status`.
fn a_saved_mistake_is_shown_and_goes_when_it_is_mended(mesh: &Mesh) {
    let input = mesh.folder().join("outsider.yaml");
    let text = std::fs::read_to_string(&input).expect("the input is there");
    let line = text.lines().count() + 5;
    let underlined = format!("\n  {line} | spec: {{hots: details}}\n");
    let wrong = format!("{text}---\n{}", RULE.replace("host:", "hots:"));
    for save in [write_over, replace] {
        let before = mesh.log().len();
        let since = || mesh.log()[before..].to_owned();
        save(&input, &wrong);
        let told = eventually_blocking("the mistake is told", || {
            let said = since();
            (said.contains("unknown field `hots`") && said.contains("^^^^ host\n")).then_some(said)
        });
        assert!(told.contains(&underlined), "{told}");
        let status = mesh.run(&["status"]);
        assert!(status.contains("1 problem\n") && status.contains(&underlined), "{status}");
        save(&input, &text);
        eventually_blocking("it is solved", || since().contains("solved: ").then_some(()));
        assert!(mesh.run(&["status"]).contains("no problems"));
    }
}

/// As editors do that open the file and write into it, with a moment when half of it is there.
fn write_over(path: &Path, text: &str) {
    std::fs::write(path, &text[..text.len() / 2]).expect("the input can be written");
    std::fs::write(path, text).expect("the input can be written");
}

/// As editors do that write another file first.
fn replace(path: &Path, text: &str) {
    let draft = path.with_file_name(".outsider.yaml.swp");
    std::fs::write(&draft, text).expect("a file can be written");
    std::fs::rename(draft, path).expect("files can be renamed");
}

fn a_stopped_proxy_is_named(mesh: &Mesh) {
    let proxies = mesh.run(&["get", "pods", "-l", "app=ratings", "-o", "name"]);
    let ratings = proxies.trim().trim_start_matches("pod/").to_owned();
    let signal = |name: &str| {
        let script = format!("kill -{name} $(pgrep -x lateen-proxy)");
        mesh.run(&["exec", &ratings, "-c", "istio-proxy", "--", "sh", "-c", &script]);
    };
    let file = mesh.write("details.yaml", RULE);
    signal("STOP");
    let (code, errors) = refused(mesh, &["apply", "--wait", "--timeout", "1", "-f", &file]);
    signal("CONT");
    let named = format!("{ratings}.default: has not acknowledged it yet");
    assert!(code == Some(1) && errors.contains(&named), "{code:?} {errors}");
    assert!(!errors.contains("reviews-v1"), "only that one: {errors}");
    mesh.run(&["delete", "-f", &file, "--wait"]);
}

/// In another terminal: somewhere else, without this one's environment. The last command ends the mesh.
fn what_is_suggested_works_when_pasted(mesh: &Mesh) {
    let log = mesh.log();
    let (_, suggested) = log.split_once("Try in another terminal:").expect("something is suggested");
    let commands: Vec<&str> = suggested.lines().map(str::trim).filter(|line| line.contains("--state-dir")).collect();
    let names: Vec<&str> = commands.iter().filter_map(|command| command.split(' ').nth(1)).collect();
    assert_eq!(names, ["apply", "apply", "apply", "exec", "apply", "status", "down"], "{suggested}");
    for command in commands {
        let output = Command::new("sh").args(["-c", command]).current_dir("/").env_remove("LATEEN_STATE_DIR").output();
        let output = output.expect("there is a shell");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command}: {said}{}", String::from_utf8_lossy(&output.stderr));
        let expected = match command.split(' ').nth(1) {
            Some("apply") => "7/7 proxies live in ",
            Some("exec") => "RBAC: access denied",
            Some("status") => "no problems",
            _ => "the mesh is down",
        };
        assert!(said.contains(expected), "{command}: {said}");
    }
}
