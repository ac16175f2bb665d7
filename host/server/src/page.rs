//! The web page at `/`. It is built from `page/` by npm; what was built is committed and compiled in, so that cargo needs no node.
//!
//! Its Content-Security-Policy lets it load its own files and ask its own server, and nothing else: neither a mistake in the page nor
//! what a model writes can have the browser fetch from elsewhere or run a script. `trusted-types` leaves no way from a text to
//! markup but the sanitizer's. The page itself is public: with keys, it is what asks for one.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types dompurify";

/// A file of the page.
struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! built {
    ($name:literal) => {
        include_bytes!(concat!("../page/dist/", $name))
    };
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

const ASSETS: [Asset; 6] = [
    Asset { path: "/", kind: "text/html; charset=utf-8", bytes: built!("index.html") },
    Asset { path: "/page/app.js", kind: SCRIPT, bytes: built!("app.js") },
    Asset { path: "/page/theme.js", kind: SCRIPT, bytes: built!("theme.js") },
    Asset { path: "/page/app.css", kind: "text/css; charset=utf-8", bytes: built!("app.css") },
    Asset { path: "/page/icon.svg", kind: "image/svg+xml", bytes: built!("icon.svg") },
    Asset { path: "/page/licences.txt", kind: "text/plain; charset=utf-8", bytes: built!("licences.txt") },
];

/// Whether this asks for the page, and not for anything of the model's.
pub(super) fn serves(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && ASSETS.iter().any(|asset| asset.path == path)
}

/// The page's routes.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let tag = tag(asset.bytes);
        let handler = move |headers: HeaderMap| async move { answer(asset, &tag, &headers) };
        router.route(asset.path, get(handler))
    })
}

/// A weak tag: the same text may be sent compressed.
fn tag(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("W/\"{hex}\"")
}

/// The file, or status 304 where the browser has this version of it.
fn answer(asset: &Asset, tag: &str, headers: &HeaderMap) -> Response {
    let head = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // Names stay the same from version to version, so browsers ask each time.
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, tag),
    ];
    if has(headers, tag) {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, [(header::CONTENT_TYPE, asset.kind)], asset.bytes).into_response()
}

/// Whether the client has this version (RFC 9110, 13.1.2: by the weak comparison).
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|list| list.split(',').any(|known| known.trim() == "*" || opaque(known) == opaque(tag)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn page() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("page")
    }

    /// The files under a folder, by their paths from `page/`.
    fn files(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                files(&path, found);
            } else {
                let from_page = path.strip_prefix(page()).expect("a file of the page");
                found.insert(from_page.to_str().expect("UTF-8").replace('\\', "/"));
            }
        }
    }

    /// `build.mjs` writes the hash of the sources beside what it builds of them.
    #[test]
    fn the_built_page_is_of_these_sources() {
        let mut sources: BTreeSet<String> =
            ["build.mjs", "package-lock.json", "package.json", "tsconfig.json"].map(str::to_owned).into();
        files(&page().join("src"), &mut sources);
        let mut hash = Sha256::new();
        for path in &sources {
            let content = fs::read(page().join(path)).expect("a source");
            hash.update(format!("{path}\n{}\n", content.len()));
            hash.update(content);
        }
        let expected: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let built = fs::read_to_string(page().join("dist/sources.sha256")).expect("the built page");
        assert_eq!(
            built.trim(),
            expected,
            "host/server/page/dist is stale: `npm ci && npm run build` in host/server/page builds it anew"
        );
    }

    #[test]
    fn every_built_file_is_served() {
        let mut built = BTreeSet::new();
        files(&page().join("dist"), &mut built);
        built.remove("dist/sources.sha256");
        let served: BTreeSet<String> = ASSETS
            .iter()
            .map(|asset| asset.path.trim_start_matches("/page").trim_start_matches('/'))
            .map(|name| format!("dist/{}", if name.is_empty() { "index.html" } else { name }))
            .collect();
        assert_eq!(built, served);
    }

    #[test]
    fn a_version_is_known_by_any_of_its_tags() {
        let tag = tag(b"a page");
        let asked =
            |value: &str| HeaderMap::from_iter([(header::IF_NONE_MATCH, value.parse().expect("a value"))]);
        for known in [tag.clone(), tag.replace("W/", ""), format!("\"other\", {tag}"), "*".to_owned()] {
            assert!(has(&asked(&known), &tag), "{known}");
        }
        assert!(!has(&asked("\"other\""), &tag) && !has(&HeaderMap::new(), &tag));
    }
}
