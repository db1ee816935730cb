//! The console's files, which the build has put into the program, compressed as they are sent.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

/// A file, and the same compressed.
struct Asset {
    /// Below `console/dist`.
    name: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

/// None where the console was not built before the control plane was.
const ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/console_assets.rs"));

/// In place of the console where the build has none.
const NOT_BUILT: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Lateen</title>\n\
    <h1>Lateen</h1>\n<p>This lateend was built without its console. Where Node and npm are installed, \
    <code>cargo xtask console</code> builds it; lateend has it when it is built after that.\n\
    <p>The API that it would use is here: <a href=\"/api/v1/openapi.json\">its description</a>.\n</html>\n";

/// `GET /assets/{name}`: their names have a hash of their contents, so that they can be kept for good.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.name.strip_prefix("assets/") == Some(&name)) {
        Some(asset) => sent(asset, &headers, "public, max-age=31536000, immutable"),
        None => missing(),
    }
}

/// Every other path: a page of the console, which is one document and finds out by its address what to show.
pub(super) async fn page(uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    if path.starts_with("/api/") || path.starts_with("/assets/") {
        return missing();
    }
    let name = if path == "/icon.svg" { "icon.svg" } else { "index.html" };
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => sent(asset, &headers, "no-cache"),
        None if name == "index.html" => {
            ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], NOT_BUILT).into_response()
        }
        None => missing(),
    }
}

fn sent(asset: &Asset, headers: &HeaderMap, caching: &'static str) -> Response {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let common =
        [(header::CONTENT_TYPE, kind(asset.name)), (header::CACHE_CONTROL, caching), (header::VARY, "accept-encoding")];
    match accepted.split(',').any(|coding| coding.trim() == "gzip" || coding.trim().starts_with("gzip;q=1")) {
        true => (common, [(header::CONTENT_ENCODING, "gzip")], asset.gzip).into_response(),
        false => (common, asset.plain).into_response(),
    }
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, "there is nothing here\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a browser must have before it shows anything, in bytes.
    const FIRST_LOAD: usize = 200 << 10;

    #[test]
    fn the_first_load_is_small() {
        let Some(index) = ASSETS.iter().find(|asset| asset.name == "index.html") else {
            assert!(std::env::var_os("CI").is_none(), "the console is built before the tests are");
            return;
        };
        let page = String::from_utf8_lossy(index.plain);
        let first = ASSETS.iter().filter(|asset| page.contains(asset.name));
        let size: usize = first.map(|asset| asset.gzip.len()).sum::<usize>() + index.gzip.len();
        assert!(size <= FIRST_LOAD, "the first load has {size} bytes");
        assert!(!page.contains("<script>") && !page.contains("style="), "the policy lets nothing inline run");
    }
}
