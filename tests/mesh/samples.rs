//! Istio's own samples as they are: Bookinfo under each of its rules, and the small applications doing what their READMEs
//! are for. Where they do not lie beside the checkout, that is said, and our own samples are checked alone.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::programs::Programs;
use crate::running::Mesh;

/// The folder of Istio's samples.
pub(crate) fn istio() -> Option<PathBuf> {
    let folder = lateen_tests::root().join("../shared/istio-samples");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", folder.display());
    eprintln!("LEFT OUT: Istio's samples, {} is missing", folder.display());
    None
}

fn start(programs: Programs, files: &[PathBuf], images: &str) -> Mesh {
    let mut arguments: Vec<String> =
        files.iter().flat_map(|file| ["-f".to_owned(), file.display().to_string()]).collect();
    arguments.extend(["--images".to_owned(), images.to_owned()]);
    Mesh::start_by(programs, &[], &arguments).0
}

/// What a rule must do to the page, by the end of its file's name; the page itself comes under every one of them.
const SEEN: &[(&str, &str)] = &[
    ("virtual-service-all-v1.yaml", "<b>v1</b>"),
    ("virtual-service-reviews-v3.yaml", "<b>v3</b>"),
    ("virtual-service-reviews-test-v2.yaml", "<b>v1</b>"),
    ("virtual-service-ratings-test-abort.yaml", "ISBN-10"),
    ("egress-rule-google-apis.yaml", "ISBN-10"),
    // Bookinfo as it is installed first has no version 2 of details.
    ("virtual-service-details-v2.yaml", "Error fetching product details"),
    ("reviews-v3.yaml", "<b>v3</b>"),
];

/// Applies and deletes each file of a folder; every proxy takes each, and the page comes.
fn apply_each(mesh: &Mesh, folder: &Path, kept: &[&str]) {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    files.retain(|file| !kept.iter().any(|kept| file.ends_with(kept)));
    // Those with subsets come last: deleting them takes the subsets of the running mesh with them.
    let has_subsets =
        |file: &PathBuf| std::fs::read_to_string(file).expect("it can be read").contains("kind: DestinationRule");
    files.sort_by_key(|file| (has_subsets(file), file.clone()));
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let name = file.display().to_string();
        let output =
            mesh.lateen(&["apply", "--wait", "--timeout", "60", "-f", &name]).output().expect("lateen can be run");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(said.contains("7/7 proxies live"), "{name}: {said}");
        // What leads to services and pods that are not there is taken all the same, and told with its place.
        let told = ["[IST0101]", "[IST0173]"].iter().any(|code| said.contains(code));
        assert!(output.status.success() || told, "{name}: {said}");
        let page = mesh.get("/productpage");
        assert!(page.starts_with("HTTP/1.1 200"), "{name}: {page}");
        for (_, part) in SEEN.iter().filter(|(rule, _)| file.ends_with(rule)) {
            assert!(page.contains(part), "{name}: {part} is not in {page}");
        }
        mesh.run(&["delete", "--wait", "-f", &name]);
    }
    let status = mesh.run(&["proxy-status"]);
    assert!(!status.to_lowercase().contains("refused"), "{status}");
}

#[test]
fn every_proxy_takes_every_rule_of_bookinfo() {
    every_rule_of_bookinfo(Programs::ours);
}

pub(crate) fn every_rule_of_bookinfo(programs: impl Fn() -> Programs) {
    let bookinfo = start(
        programs(),
        &["bookinfo", "gateway", "destination-rules"].map(|file| format!("samples/bookinfo/{file}.yaml").into()),
        "samples/bookinfo/images.yaml",
    );
    apply_each(&bookinfo, &lateen_tests::root().join("samples/bookinfo/routing"), &[]);
    drop(bookinfo);
    let Some(istio) = istio() else { return };
    let files =
        ["platform/kube/bookinfo.yaml", "networking/bookinfo-gateway.yaml", "networking/destination-rule-all.yaml"];
    let files = files.map(|file| istio.join("bookinfo").join(file));
    let bookinfo = start(programs(), &files, "samples/bookinfo/images.yaml");
    apply_each(&bookinfo, &istio.join("bookinfo/networking"), &["bookinfo-gateway.yaml", "destination-rule-all.yaml"]);
}

/// What each README has its reader do.
#[test]
fn istios_small_applications_do_what_they_are_for() {
    small_applications(Programs::ours());
}

pub(crate) fn small_applications(programs: Programs) {
    let Some(istio) = istio() else { return };
    let files = [
        "helloworld/helloworld.yaml",
        "httpbin/httpbin.yaml",
        "sleep/sleep.yaml",
        "curl/curl.yaml",
        "tcp-echo/tcp-echo-services.yaml",
        "health-check/liveness-command.yaml",
        "health-check/liveness-http-same-port.yaml",
        "websockets/app.yaml",
    ];
    let mesh = start(programs, &files.map(|file| istio.join(file)), "samples/apps/images.yaml");
    for name in ["sleep", "curl"] {
        let from = format!("deploy/{name}");
        let teapot = mesh.ask(&from, "httpbin", 8000, "/status/418");
        assert!(teapot.starts_with("HTTP/1.1 418"), "{name}: {teapot}");
        let hello = mesh.ask(&from, "helloworld", 5000, "/hello");
        assert!(hello.contains("Hello version: v"), "{name}: {hello}");
    }
    // On a port that is TCP for the mesh.
    let echo =
        |host: &str, port: u16| mesh.converse("deploy/sleep", host, port, "echo world >&3; timeout 10 head -n 1 <&3");
    let said = echo("tcp-echo", 9000);
    assert!(["one world\n", "two world\n"].contains(&said.as_str()), "{said}");
    for liveness in ["liveness", "liveness-http"] {
        let pod = mesh.status_of(&format!("{liveness}-"));
        assert!(pod.contains(&"0".to_owned()), "nothing was restarted: {pod:?}");
    }
    through_the_gateway(&mesh, &istio);
    // Port 31400 of the gateway, first all to one version, then to both.
    mesh.apply(&istio.join("tcp-echo/tcp-echo-all-v1.yaml").display().to_string());
    let gateway = mesh.address_of("istio-ingressgateway");
    assert!((0..10).all(|_| echo(&gateway, 31400) == "one world\n"));
    mesh.apply(&istio.join("tcp-echo/tcp-echo-20-v2.yaml").display().to_string());
    let said: Vec<String> = (0..60).map(|_| echo(&gateway, 31400)).collect();
    let count = |text: &str| said.iter().filter(|said| *said == text).count();
    let (one, two) = (count("one world\n"), count("two world\n"));
    // Of 60, 12 are to be expected; none, or more than half, happens less than once in 10⁵ runs.
    assert!(one + two == 60 && (1..=30).contains(&two), "{one} to v1, {two} to v2");
}

fn through_the_gateway(mesh: &Mesh, istio: &Path) {
    let with = |file: &str, step: &dyn Fn()| {
        let name = istio.join(file).display().to_string();
        mesh.apply(&name);
        step();
        mesh.run(&["delete", "--wait", "-f", &name]);
    };
    with("helloworld/helloworld-gateway.yaml", &|| {
        assert!(mesh.get("/hello").contains("Hello version: v"), "{}", mesh.get("/hello"));
    });
    with("httpbin/httpbin-gateway.yaml", &|| {
        assert!(mesh.get("/status/418").starts_with("HTTP/1.1 418"), "{}", mesh.get("/status/418"));
    });
    with("websockets/route.yaml", &|| {
        let upgrade = "GET /ws HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut stream = TcpStream::connect(mesh.gateway()).expect("the gateway is there");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes a time-out");
        stream.write_all(upgrade.as_bytes()).expect("the gateway reads");
        let mut answer = [0; 256];
        let read = stream.read(&mut answer).expect("the gateway answers");
        let answer = String::from_utf8_lossy(&answer[..read]).to_lowercase();
        assert!(answer.starts_with("http/1.1 101") && answer.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    });
}

/// What cannot work on one machine says so, with its place.
#[test]
fn what_cannot_work_on_one_machine_names_its_place() {
    let Some(istio) = istio() else { return };
    for (file, parts) in [
        ("ratelimit/local-rate-limit-service.yaml", &["local-rate-limit-service.yaml:5:", "kind EnvoyFilter"][..]),
        (
            "ratelimit/rate-limit-service.yaml",
            &["rate-limit-service.yaml:52:", "container `redis`", "docker.io/redis:alpine", "--images"],
        ),
        (
            "grpc-echo/grpc-echo.yaml",
            &[
                "grpc-echo.yaml:23: Deployment echo-v1, container `app`",
                "registry.istio.io/testing/app:latest",
                "--images",
            ],
        ),
        ("extauthz/ext-authz.yaml", &["registry.istio.io/testing/ext-authz:latest", "--images"]),
        ("extauthz/local-ext-authz.yaml", &["registry.istio.io/testing/ext-authz:latest", "--images"]),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = istio.join(file).display().to_string();
        let output = Command::new(lateen_tests::program("lateen"))
            .args(["up", "--detach", "--publish", "0:8080", "--console-port", "0", "-f", &file])
            .args(["--images", "samples/apps/images.yaml"])
            .env("LATEEN_STATE_DIR", folder.path().join("s"))
            .current_dir(lateen_tests::root())
            .output()
            .expect("lateen can be run");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let down = Command::new(lateen_tests::program("lateen"))
            .arg("down")
            .env("LATEEN_STATE_DIR", folder.path().join("s"))
            .output()
            .expect("lateen can be run");
        for part in parts {
            assert!(said.contains(part), "{file}: {part} is not in:\n{said}");
        }
        drop(down);
    }
}
