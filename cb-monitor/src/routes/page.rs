//! The page: embedded files, and a policy that lets it load nothing else.

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// The page loads only its own files and has no inline scripts or styles.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const CSP: HeaderName = header::CONTENT_SECURITY_POLICY;

async fn html() -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (CSP, POLICY)];
    (headers, include_str!("../page/page.html"))
}

/// The page's files by name. A script imports only those above it.
const FILES: [(&str, &str, &str); 17] = [
    ("page.css", CSS, include_str!("../page/page.css")),
    ("icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
    ("dom.js", SCRIPT, include_str!("../page/dom.js")),
    ("signals.js", SCRIPT, include_str!("../page/signals.js")),
    ("spark.js", SCRIPT, include_str!("../page/spark.js")),
    ("words.js", SCRIPT, include_str!("../page/words.js")),
    ("known.js", SCRIPT, include_str!("../page/known.js")),
    ("address.js", SCRIPT, include_str!("../page/address.js")),
    ("token.js", SCRIPT, include_str!("../page/token.js")),
    ("action.js", SCRIPT, include_str!("../page/action.js")),
    ("timeline.js", SCRIPT, include_str!("../page/timeline.js")),
    ("rows.js", SCRIPT, include_str!("../page/rows.js")),
    ("detail.js", SCRIPT, include_str!("../page/detail.js")),
    ("overview.js", SCRIPT, include_str!("../page/overview.js")),
    ("input.js", SCRIPT, include_str!("../page/input.js")),
    ("stream.js", SCRIPT, include_str!("../page/stream.js")),
    ("page.js", SCRIPT, include_str!("../page/page.js")),
];

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Adds the routes of the page and of its files.
pub(super) fn add<S: Clone + Send + Sync + 'static>(router: Router<S>, prefix: &str) -> Router<S> {
    let page = router.route(&format!("{prefix}/"), get(html));
    FILES.into_iter().fold(page, |router, (name, mime, content)| {
        let file = move || async move { ([(header::CONTENT_TYPE, mime)], content) };
        router.route(&format!("{prefix}/{name}"), get(file))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_script_imports_one_below_it() {
        for (place, (name, _, content)) in FILES.iter().enumerate() {
            let imports =
                content.lines().filter_map(|line| line.split_once(" from \"./")?.1.strip_suffix("\";"));
            for import in imports {
                assert!(FILES[..place].iter().any(|file| file.0 == import), "{name} imports {import}");
            }
        }
    }
}
