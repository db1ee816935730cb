//! The HTML of productpage: plain strings, everything from outside escaped.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use serde_json::Value;

use crate::client::Failure;

const SHELL: &str = include_str!("../static/page.html");
const STYLE: &str = include_str!("../static/style.css");
const COVER: &str = include_str!("../static/cover.svg");

pub(crate) fn html(body: String) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Html(body)).into_response()
}

/// A file below `/static/`: its content type and text.
pub(crate) fn asset(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "style.css" => Some(("text/css; charset=utf-8", STYLE)),
        "cover.svg" => Some(("image/svg+xml", COVER)),
        _ => None,
    }
}

pub(crate) fn index() -> String {
    let body = "<section class=\"intro\"><h1>Bookinfo</h1><p>A small web shop of four services, made to be watched \
        while a mesh moves its traffic around.</p><p><a class=\"button\" href=\"/productpage\">See the book</a></p></section>";
    SHELL.replace("{{title}}", "Bookinfo").replace("{{account}}", "").replace("{{body}}", body)
}

pub(crate) fn product(
    book: &Value,
    user: Option<&str>,
    details: &Result<Value, Failure>,
    reviews: &Result<Value, Failure>,
) -> String {
    let title = escape(text(&book["title"]).as_str());
    let body = format!(
        "<section class=\"book\"><img src=\"/static/cover.svg\" alt=\"\" width=\"180\" height=\"252\"><div><h1>{title}</h1>\
         <p class=\"summary\">{}</p></div></section><div class=\"columns\">{}{}</div>",
        // Our own text, with links in it; nothing from a peer.
        text(&book["descriptionHtml"]),
        details_column(details),
        reviews_column(reviews),
    );
    SHELL.replace("{{title}}", &title).replace("{{account}}", &account(user)).replace("{{body}}", &body)
}

fn account(user: Option<&str>) -> String {
    match user {
        Some(user) => {
            format!("<span class=\"user\">{}</span> <a class=\"quiet\" href=\"/logout\">sign out</a>", escape(user))
        }
        None => "<form method=\"post\" action=\"/login\"><input name=\"username\" placeholder=\"user name\" \
                 aria-label=\"user name\" required><button>Sign in</button></form>"
            .to_owned(),
    }
}

fn details_column(details: &Result<Value, Failure>) -> String {
    let Ok(details) = details else {
        return failed(
            "details",
            "Error fetching product details!",
            "Sorry, product details are currently unavailable for this book.",
        );
    };
    let rows = [
        ("Type", "type"),
        ("Pages", "pages"),
        ("Publisher", "publisher"),
        ("Language", "language"),
        ("ISBN-10", "ISBN-10"),
        ("ISBN-13", "ISBN-13"),
    ];
    let rows: String =
        rows.iter().map(|(name, key)| format!("<dt>{name}</dt><dd>{}</dd>", escape(&text(&details[*key])))).collect();
    format!("<section id=\"details\"><h2>Book details</h2><dl>{rows}</dl></section>")
}

fn reviews_column(reviews: &Result<Value, Failure>) -> String {
    let Ok(reviews) = reviews else {
        return failed(
            "reviews",
            "Error fetching product reviews!",
            "Sorry, product reviews are currently unavailable for this book.",
        );
    };
    let entries = reviews["reviews"].as_array().map(Vec::as_slice).unwrap_or_default();
    let entries: String = entries.iter().map(review).collect();
    let version = escape(&text(&reviews["version"]));
    let pod = escape(&text(&reviews["podname"]));
    format!(
        "<section id=\"reviews\"><h2>Book reviews</h2>{entries}<p class=\"served\">Reviews served by <b>{version}</b> \
         <code>{pod}</code></p></section>"
    )
}

fn review(review: &Value) -> String {
    let rating = &review["rating"];
    let stars = match (rating["stars"].as_u64(), rating.get("error")) {
        (Some(stars), _) => {
            let stars = usize::try_from(stars.min(5)).expect("at most five");
            let colour = if rating["color"] == "red" { "red" } else { "black" };
            let (full, empty) = ("★".repeat(stars), "☆".repeat(5 - stars));
            format!("<span class=\"stars {colour}\" aria-label=\"{stars} of 5 stars\">{full}{empty}</span>")
        }
        (None, Some(error)) => format!("<span class=\"missing\">{}</span>", escape(&text(error))),
        (None, None) => String::new(),
    };
    format!(
        "<blockquote><p>{}</p><footer>{} {stars}</footer></blockquote>",
        escape(&text(&review["text"])),
        escape(&text(&review["reviewer"])),
    )
}

fn failed(id: &str, headline: &str, sentence: &str) -> String {
    format!("<section id=\"{id}\" class=\"failed\"><h2>{headline}</h2><p>{sentence}</p></section>")
}

/// A JSON value as a person reads it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_peers_say_is_escaped() {
        let reviews = Ok(json!({ "version": "v1", "reviews": [{ "reviewer": "<b>", "text": "a & \"b\"" }] }));
        let page = product(&json!({ "title": "T" }), Some("me"), &Ok(json!({})), &reviews);
        assert!(page.contains("&lt;b&gt;") && page.contains("a &amp; &quot;b&quot;"), "{page}");
    }

    #[test]
    fn stars_have_the_colour_of_their_version() {
        let page = review(&json!({ "reviewer": "r", "text": "t", "rating": { "stars": 4, "color": "red" } }));
        assert!(page.contains("stars red") && page.contains("★★★★☆"), "{page}");
    }

    #[test]
    fn a_failed_call_is_told_in_its_column() {
        let failure = Err(Failure::Unreachable("x".into()));
        let page = product(&json!({ "title": "T" }), None, &Ok(json!({})), &failure);
        assert!(page.contains("Error fetching product reviews!") && page.contains("Book details"), "{page}");
    }
}
