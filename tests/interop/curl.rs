//! curl, in each version of HTTP that it speaks.

use std::fmt::Write as _;
use std::path::Path;

use crate::bed::{self, Bed};
use crate::tools::{self, run, words};

/// Written behind each answer: what it was.
const WRITE: &str = "\n=%{http_code} %{http_version} %{size_download} %{num_connects}\n";
/// Larger than windows and buffers; curl asks `100-continue` for so much.
const UPLOAD: usize = 2_000_000;

/// How curl is to connect.
struct Way {
    flags: &'static str,
    tls: bool,
    version: &'static str,
    /// curl 7.88 breaks a connection that it uses again without having negotiated its version.
    reuses: bool,
}

const WAYS: [Way; 5] = [
    Way { flags: "--http1.1", tls: false, version: "1.1", reuses: true },
    Way { flags: "--http2-prior-knowledge", tls: false, version: "2", reuses: false },
    // It offers `Upgrade: h2c`, and is content with HTTP/1.1.
    Way { flags: "--http2", tls: false, version: "1.1", reuses: true },
    Way { flags: "--http1.1", tls: true, version: "1.1", reuses: true },
    Way { flags: "--http2", tls: true, version: "2", reuses: true },
];

/// A request: what curl is told, the path, what the answer is (status and length), and what must stand in what curl shows.
struct Row {
    flags: &'static str,
    path: &'static str,
    status: u16,
    length: Option<usize>,
    shows: &'static [&'static str],
}

const fn row(flags: &'static str, path: &'static str, status: u16, length: usize) -> Row {
    Row { flags, path, status, length: Some(length), shows: &[] }
}

const fn shows(flags: &'static str, path: &'static str, shows: &'static [&'static str]) -> Row {
    Row { flags, path, status: 200, length: None, shows }
}

const ROWS: &[Row] = &[
    row("", "bytes/0", 200, 0),
    row("-o BODY", "bytes/3000000", 200, 3_000_000),
    shows("-I", "bytes/1000", &["content-length: 1000"]),
    shows("--data-binary @FILE", "seen", &["\"method\":\"POST\"", "\"length\":2000000"]),
    shows("-H expect:100-continue --data-binary @FILE", "seen", &["\"length\":2000000"]),
    shows("-H transfer-encoding:chunked -T FILE", "seen", &["\"method\":\"PUT\"", "\"length\":2000000"]),
    shows("-X PUT -d some", "seen", &["\"method\":\"PUT\"", "\"length\":4"]),
    shows("-X PATCH -d some", "seen", &["\"method\":\"PATCH\""]),
    shows("-X DELETE", "seen", &["\"method\":\"DELETE\""]),
    shows("-X OPTIONS", "seen", &["\"method\":\"OPTIONS\""]),
    shows("-X PROPFIND", "seen", &["\"method\":\"PROPFIND\""]),
    shows("-i -d 12345", "trailers", &["with trailers", "x-sum: 5"]),
    row("", "status/204", 204, 0),
    row("", "status/304", 304, 0),
    row("", "status/418", 418, 0),
];

#[test]
fn curl_in_all_versions() {
    let Some(curl) = tools::tool("CURL_BIN") else { return };
    let Some(node) = tools::tool("NODE_BIN") else { return };
    let (_origin, origins) = bed::node_origin(&node);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("upload");
    std::fs::write(&file, vec![7; UPLOAD]).expect("the temporary folder can be written");
    bed::through_every_chain(&origins, |bed| {
        for way in &WAYS {
            for origin in ["h1", "h2"] {
                ask_all(&curl, bed, way, origin, folder.path());
            }
        }
        single(&curl, bed, &file.display().to_string());
    });
}

/// All rows, on one connection where curl can.
fn ask_all(curl: &Path, bed: &Bed, way: &Way, origin: &str, folder: &Path) {
    let commands: Vec<Vec<String>> = ROWS.iter().map(|row| command(bed, way, row, origin, folder)).collect();
    let said = if way.reuses {
        run(curl, &commands.join(&"--next".to_owned())).0
    } else {
        commands.iter().map(|command| run(curl, command).0).collect()
    };
    let context = format!("{}, curl {} {} to {origin}", bed.name, way.flags, if way.tls { "by TLS" } else { "" });
    let mut rest = said.as_str();
    for (at, row) in ROWS.iter().enumerate() {
        let cut = rest.split_once("\n=").and_then(|(shown, rest)| Some((shown, rest.split_once('\n')?)));
        let Some((shown, (verdict, after))) = cut else { panic!("{context}: no answer for {}: {said}", row.path) };
        rest = after;
        let verdict: Vec<&str> = verdict.split(' ').collect();
        let length = row.length.map_or_else(|| verdict[2].to_owned(), |length| length.to_string());
        let mut wanted = vec![row.status.to_string(), way.version.to_owned(), length];
        wanted.push(if at == 0 || !way.reuses { "1" } else { "0" }.to_owned());
        assert_eq!(verdict, wanted, "{context}: {} {}: {shown}", row.flags, row.path);
        for text in row.shows {
            assert!(shown.contains(text), "{context}: {} {} shows no {text}: {shown}", row.flags, row.path);
        }
    }
    let body = std::fs::read(folder.join("body")).expect("curl has written it");
    assert!(body.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251), "{context}: a body is broken");
}

fn command(bed: &Bed, way: &Way, row: &Row, origin: &str, folder: &Path) -> Vec<String> {
    let mut out = words("-sS --max-time 60");
    out.extend(["-w".to_owned(), WRITE.to_owned()]);
    out.extend(words(way.flags));
    let flags = row.flags.replace("FILE", &folder.join("upload").display().to_string());
    out.extend(words(&flags.replace("BODY", &folder.join("body").display().to_string())));
    out.push(url(bed, way.tls, &format!("{origin}/{}", row.path)));
    if way.tls {
        out.extend(["--cacert".to_owned(), bed.authority().display().to_string()]);
    }
    out
}

fn url(bed: &Bed, tls: bool, path: &str) -> String {
    let mut out = String::new();
    let written = match tls {
        true => write!(out, "https://localhost:{}/{path}", bed.tls.port()),
        false => write!(out, "http://{}/{path}", bed.plain),
    };
    written.expect("a string takes it");
    out
}

/// What is asked once: HTTP/1.0, an upgrade, many at once, and ends before the end.
fn single(curl: &Path, bed: &Bed, upload: &str) {
    let ask = |flags: &str, path: &str| {
        let mut arguments = words(&format!("-sS --max-time 60 {flags}"));
        arguments.push(url(bed, false, path));
        run(curl, &arguments)
    };
    let expect = |flags: &str, path: &str, code: i32, texts: &[&str]| {
        let (said, ended) = ask(flags, path);
        let right = ended == code && texts.iter().all(|text| said.contains(text));
        assert!(
            right,
            "{}: curl {flags} {path} ended with {ended}, not {code}, or without {texts:?}: {said}",
            bed.name
        );
    };
    for origin in ["h1", "h2"] {
        let at = |path: &str| format!("{origin}/{path}");
        // RFC 9112 section 9.3: its connection is closed.
        expect("--http1.0 -i -d 10", &at("echo"), 0, &[" 200 OK", "connection: close", "10"]);
        let many = "-Z --parallel-max 20 --http1.1 -o /dev/null -w %{http_code}%{size_download};";
        expect(many, &at("bytes/[1000-1019]"), 0, &["2001000;", "2001019;"]);
        // Answered before it has sent everything. By HTTP/2 curl 7.88 takes the RST_STREAM behind the answer for a failure.
        expect(&format!("--http1.1 -w =%{{http_code}} --data-binary @{upload}"), &at("early"), 0, &["no\n=413"]);
        // 28: it takes too long; the origin hears of it. 18 and 92: the answer is cut off.
        let name = format!("{origin}-curl");
        expect("-o /dev/null --max-time 0.3", &at(&format!("endless/{name}")), 28, &[]);
        expect("", &at(&format!("gone/{name}")), 0, &["gone"]);
        expect("-o /dev/null --http1.1", &at("midway"), 18, &[]);
        expect("-o /dev/null --http2-prior-knowledge", &at("midway"), 92, &[]);
        expect("-i", &at("reset/2"), 0, &["HTTP/1.1 503 Service Unavailable"]);
    }
    let key = "-H sec-websocket-version:13 -H sec-websocket-key:dGhlIHNhbXBsZSBub25jZQ==";
    let upgrade = format!("-i --http1.1 -H connection:upgrade -H upgrade:websocket {key}");
    let texts = ["101 Switching Protocols", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "hello"];
    expect(&upgrade, "h1/hello", 0, &texts);
}
