//! details: facts about a book. v1 knows them by itself; v2 asks a public book service when it is told to.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::client::{self, Client, Failure};
use crate::http;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    V1,
    V2,
}

#[derive(Clone)]
struct Details {
    client: Client,
    /// Ask the public book service instead of answering from memory.
    external: bool,
}

pub(crate) fn router(version: Version) -> Router {
    let external = version == Version::V2 && std::env::var("ENABLE_EXTERNAL_BOOK_SERVICE").is_ok_and(|v| v == "true");
    Router::new()
        .route("/health", get(|| http::health("Details is healthy")))
        .route("/details/{product}", get(read))
        .with_state(Details { client: Client::new(), external })
}

async fn read(State(details): State<Details>, Path(product): Path<String>, headers: HeaderMap) -> Response {
    let Ok(product) = product.parse::<u64>() else {
        return http::json(StatusCode::BAD_REQUEST, &json!({ "error": "please provide numeric product ID" }));
    };
    if !details.external {
        return http::json(StatusCode::OK, &from_memory(product));
    }
    match details.ask(product, &headers).await {
        Ok(book) => http::json(StatusCode::OK, &book),
        Err(failure) => {
            eprintln!("book service: {failure:?}");
            http::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": "the book service did not answer" }))
        }
    }
}

fn from_memory(product: u64) -> Value {
    json!({
        "id": product,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    })
}

impl Details {
    /// Plain HTTP on purpose: turning it into HTTPS is the mesh's work (a DestinationRule that originates TLS).
    async fn ask(&self, product: u64, headers: &HeaderMap) -> Result<Value, Failure> {
        const ISBN: &str = "0486424618";
        let url = format!("http://www.googleapis.com/books/v1/volumes?q=isbn:{ISBN}");
        let answer = self.client.get(&url, client::passed_on(headers), Duration::from_secs(5)).await?;
        let book = &answer["items"][0]["volumeInfo"];
        let identifier = |kind: &str| {
            let all = book["industryIdentifiers"].as_array().into_iter().flatten();
            all.filter(|entry| entry["type"] == kind).map(|entry| entry["identifier"].clone()).next()
        };
        Ok(json!({
            "id": product,
            "author": book["authors"][0],
            "year": book["publishedDate"],
            "type": if book["printType"] == "BOOK" { "paperback" } else { "unknown" },
            "pages": book["pageCount"],
            "publisher": book["publisher"],
            "language": if book["language"] == "en" { "English" } else { "unknown" },
            "ISBN-10": identifier("ISBN_10"),
            "ISBN-13": identifier("ISBN_13"),
        }))
    }
}
