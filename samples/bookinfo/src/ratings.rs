//! ratings: how many stars each reviewer gave. `GET /ratings/{product}`, `POST` to change them until the next restart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use crate::http;

/// Ratings that were posted, by product; at most [`MAX_PRODUCTS`] of them.
type Posted = Arc<Mutex<HashMap<u64, Value>>>;

const MAX_PRODUCTS: usize = 1000;

pub(crate) fn router() -> Router {
    Router::new()
        .route("/health", get(|| http::health("Ratings is healthy")))
        .route("/ratings/{product}", get(read).post(write))
        .layer(DefaultBodyLimit::max(16 << 10))
        .with_state(Posted::default())
}

fn not_numeric() -> Response {
    http::json(StatusCode::BAD_REQUEST, &json!({ "error": "please provide numeric product ID" }))
}

async fn read(State(posted): State<Posted>, Path(product): Path<String>) -> Response {
    let Ok(product) = product.parse::<u64>() else { return not_numeric() };
    let posted = posted.lock().expect("no holder of this lock panics").get(&product).cloned();
    let ratings = posted.unwrap_or_else(|| json!({ "Reviewer1": 5, "Reviewer2": 4 }));
    http::json(StatusCode::OK, &json!({ "id": product, "ratings": ratings }))
}

async fn write(State(posted): State<Posted>, Path(product): Path<String>, body: String) -> Response {
    let Ok(product) = product.parse::<u64>() else { return not_numeric() };
    let Ok(ratings @ Value::Object(_)) = serde_json::from_str(&body) else {
        return http::json(StatusCode::BAD_REQUEST, &json!({ "error": "please provide valid ratings JSON" }));
    };
    let mut posted = posted.lock().expect("no holder of this lock panics");
    if posted.len() >= MAX_PRODUCTS && !posted.contains_key(&product) {
        return http::json(StatusCode::INSUFFICIENT_STORAGE, &json!({ "error": "too many products" }));
    }
    posted.insert(product, ratings.clone());
    http::json(StatusCode::OK, &json!({ "id": product, "ratings": ratings }))
}
