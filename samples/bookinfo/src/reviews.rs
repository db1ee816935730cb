//! reviews: what readers thought. v1 leaves the stars out, v2 asks ratings and paints them black, v3 red.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::client::{self, Client};
use crate::http;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    V1,
    V2,
    V3,
}

impl Version {
    fn star_colour(self) -> Option<&'static str> {
        match self {
            Self::V1 => None,
            Self::V2 => Some("black"),
            Self::V3 => Some("red"),
        }
    }

    /// How long ratings may take. v2 is patient and v3 is not: the fault-injection tasks rest on this difference.
    fn patience(self) -> Duration {
        match self {
            Self::V1 | Self::V2 => Duration::from_secs(10),
            Self::V3 => Duration::from_millis(2500),
        }
    }
}

#[derive(Clone)]
struct Reviews {
    version: Version,
    client: Client,
    ratings: String,
}

pub(crate) fn router(version: Version) -> Router {
    let state = Reviews { version, client: Client::new(), ratings: client::peer("ratings") };
    Router::new()
        .route("/health", get(|| http::health("Reviews is healthy")))
        .route("/reviews/{product}", get(read))
        .with_state(state)
}

async fn read(State(reviews): State<Reviews>, Path(product): Path<String>, headers: HeaderMap) -> Response {
    let Ok(number) = product.parse::<u64>() else {
        return http::json(StatusCode::BAD_REQUEST, &json!({ "error": "please provide numeric product ID" }));
    };
    let stars = reviews.stars(number, &headers).await;
    let first = "I laughed in the first act and had to draw a diagram in the second. Go and see it twice.";
    let second =
        "Great fun while it lasts. Every question is answered by the wrong twin, and still it all gets through.";
    let texts = [("Reviewer1", first), ("Reviewer2", second)];
    let entries: Vec<Value> = texts.iter().map(|(reviewer, text)| entry(reviewer, text, &stars)).collect();
    let body = json!({
        "id": product,
        "podname": std::env::var("HOSTNAME").unwrap_or_default(),
        "clustername": std::env::var("CLUSTER_NAME").ok(),
        "version": reviews.version.to_string(),
        "reviews": entries,
    });
    http::json(StatusCode::OK, &body)
}

/// The stars of each reviewer, or why there are none.
enum Stars {
    NotShown,
    Unavailable,
    Given { colour: &'static str, ratings: Value },
}

fn entry(reviewer: &str, text: &str, stars: &Stars) -> Value {
    let mut entry = json!({ "reviewer": reviewer, "text": text });
    match stars {
        Stars::NotShown => {}
        Stars::Unavailable => entry["rating"] = json!({ "error": "Ratings service is currently unavailable" }),
        Stars::Given { colour, ratings } => {
            entry["rating"] = json!({ "stars": ratings[reviewer].as_i64().unwrap_or(-1), "color": colour });
        }
    }
    entry
}

impl Reviews {
    async fn stars(&self, product: u64, headers: &HeaderMap) -> Stars {
        let Some(colour) = self.version.star_colour() else { return Stars::NotShown };
        let url = format!("{}/ratings/{product}", self.ratings);
        match self.client.get(&url, client::passed_on(headers), self.version.patience()).await {
            Ok(mut answer) => Stars::Given { colour, ratings: answer["ratings"].take() },
            Err(failure) => {
                eprintln!("ratings of product {product}: {failure:?}");
                Stars::Unavailable
            }
        }
    }
}
