//! nghttp2's tools: `h2load` and `nghttp` before Node's servers, and `nghttpd` as a server of its own.

use std::path::Path;
use std::process::{Command, Stdio};

use lateen_testing::eventually::eventually_blocking;

use crate::bed::{self, Origin, Running};
use crate::tools::{self, run, words};

/// How `h2load` asks, what for, and how many bytes of bodies come back for how many requests.
const LOADS: &[(&str, &str, u64, u64)] = &[
    // Many streams on few connections, and many connections.
    ("-n 400 -c 2 -m 100", "h1/bytes/100", 400, 40_000),
    ("-n 400 -c 2 -m 100", "h2/bytes/100", 400, 40_000),
    ("-n 200 -c 50 -m 2", "h2/bytes/100", 200, 20_000),
    // Windows of 1 KiB for each stream and 4 KiB for all, answers of megabytes.
    ("-n 6 -c 2 -m 3 -w 10 -W 12", "h1/bytes/1000000", 6, 6_000_000),
    ("-n 6 -c 2 -m 3 -w 10 -W 12", "h2/bytes/1000000", 6, 6_000_000),
    ("-n 8 -c 2 -m 4", "h2/bytes/3000000", 8, 24_000_000),
    // Uploads that come back.
    ("-n 20 -c 2 -m 5 -d FILE", "h1/echo", 20, 2_000_000),
    ("-n 20 -c 2 -m 5 -d FILE", "h2/echo", 20, 2_000_000),
    // HTTP/1.1, also pipelined.
    ("-n 200 -c 10 --h1", "h2/bytes/100", 200, 20_000),
    ("-n 200 -c 10 -m 4 --h1", "h1/bytes/100", 200, 20_000),
    // Small frames, and a small table of headers.
    ("-n 40 -c 2 -m 10 --header-table-size=64 --encoder-header-table-size=64", "h1/bytes/1000", 40, 40_000),
];

#[test]
fn h2load_and_nghttp() {
    let Some(tools) = tools::tool("NGHTTP2_BIN") else { return };
    let Some(node) = tools::tool("NODE_BIN") else { return };
    let (_origin, origins) = bed::node_origin(&node);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("upload");
    std::fs::write(&file, vec![7; 100_000]).expect("the temporary folder can be written");
    bed::through_every_chain(&origins, |bed| {
        for (at, (flags, path, requests, bytes)) in LOADS.iter().enumerate() {
            // Every other one by TLS.
            let address = if at % 2 == 0 { format!("http://{}", bed.plain) } else { format!("https://{}", bed.tls) };
            let mut arguments = words(&flags.replace("FILE", &file.display().to_string()));
            arguments.push(format!("{address}/{path}"));
            let (said, _) = run(&tools.join("h2load"), &arguments);
            let (all, data) = (format!("{requests} succeeded, 0 failed, 0 errored"), format!("({bytes}) data"));
            let right = said.contains(&all) && said.contains(&format!("{requests} 2xx")) && said.contains(&data);
            assert!(right, "{}: h2load {flags} {path}: {said}", bed.name);
        }
        for origin in ["h1", "h2"] {
            let url = format!("http://{}/{origin}", bed.plain);
            by_nghttp(&tools.join("nghttp"), &url, &file, &bed.name);
        }
    });
}

/// What `nghttp` sends that others do not: padding, priorities, continuations, trailers, and no `content-length`.
fn by_nghttp(nghttp: &Path, url: &str, file: &Path, name: &str) {
    let file = file.display();
    let rows = [
        // A tree of priorities, then fifty requests that hang on it.
        (format!("-n -m 50 -p 200 {url}/bytes/1000"), ":status: 200", 50),
        (format!("--no-dep -n -b 255 -d {file} {url}/trailers"), "x-sum: 100000", 1),
        // Where the length is told, HTTP/1.1 has no place for trailers.
        (
            format!("-b 200 --no-content-length --trailer x-check:done -d {file} {url}/seen"),
            "\"trailers\":{\"x-check\":\"done\"}",
            1,
        ),
        (format!("--continuation {url}/seen"), "\"continuation-test-1\":", 1),
        (format!("--no-content-length -d {file} {url}/seen"), "\"length\":100000", 1),
        (format!("--expect-continue -d {file} {url}/seen"), "\"length\":100000", 1),
        (format!("-w 10 -W 12 -n {url}/bytes/100000"), ":status: 200", 1),
        (format!("--no-rfc7540-pri -H priority:u=1,i {url}/seen"), "\"priority\":\"u=1,i\"", 1),
        (format!("-n {url}/reset/2"), ":status: 503", 1),
        (format!("-n {url}/midway"), "RST_STREAM", 1),
    ];
    for (flags, text, times) in rows {
        let (said, _) = run(nghttp, &words(&format!("-v -t 60 {flags}")));
        assert_eq!(said.matches(text).count(), times, "{name}: nghttp {flags} shows {text}: {said}");
    }
}

/// A server that pads its frames, ends with trailers and echoes.
#[test]
fn nghttpd_as_the_origin() {
    let Some(tools) = tools::tool("NGHTTP2_BIN") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let served = folder.path().join("nghttpd");
    std::fs::create_dir(&served).expect("the temporary folder can be written");
    let large: Vec<u8> = (0..2_000_000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(served.join("large"), large).expect("the temporary folder can be written");
    for (flags, echoes) in [("--padding=255 --trailer x-end:done", false), ("--echo-upload -w 10 -W 12", true)] {
        let mut command = Command::new(server(&tools));
        command.args(words(&format!("--no-tls -a 127.0.0.1 {flags} -d"))).arg(folder.path()).arg("0");
        let running = Running(command.stdin(Stdio::null()).spawn().expect("nghttpd can be run"));
        let address = eventually_blocking("nghttpd listens", || listening(running.0.id()));
        let origin = Origin { name: "nghttpd", http2: true, address };
        bed::through_every_chain(&[origin], |bed| {
            let url = format!("http://{}/nghttpd", bed.plain);
            let large = served.join("large").display().to_string();
            if echoes {
                let (said, _) = run(&tools.join("h2load"), &words(&format!("-n 4 -c 2 -m 2 -d {large} {url}/echo")));
                assert!(said.contains("4 succeeded") && said.contains("(8000000) data"), "{}: {said}", bed.name);
                return;
            }
            let (said, _) = run(&tools.join("nghttp"), &words(&format!("-v -n -t 60 {url}/large")));
            assert!(said.contains("x-end: done"), "{}: {said}", bed.name);
            let (said, _) = run(&tools.join("h2load"), &words(&format!("-n 6 -c 2 -m 3 {url}/large")));
            assert!(said.contains("6 succeeded") && said.contains("(12000000) data"), "{}: {said}", bed.name);
        });
    }
}

/// Beside the clients, or where only root's PATH leads.
fn server(tools: &Path) -> std::path::PathBuf {
    let beside = tools.join("nghttpd");
    if beside.exists() { beside } else { tools.join("../sbin/nghttpd") }
}

/// The port on which a process listens that was told to take any: proc(5), `/proc/net/tcp`.
fn listening(process: u32) -> Option<std::net::SocketAddr> {
    const LISTEN: &str = "0A";
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let own: Vec<String> = links.map(|link| link.display().to_string()).collect();
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        let is_own = own.iter().any(|link| *link == format!("socket:[{inode}]"));
        (*state == LISTEN && is_own).then(|| std::net::SocketAddr::from(([127, 0, 0, 1], port)))
    })
}
