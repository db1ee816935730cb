//! productpage: the page a person looks at. It asks details and reviews, and shows what it got and what it did not.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::client::{self, Client, Failure};
use crate::{http, page};

/// How long one call to details or reviews may take. Reviews are tried twice, so that a 7 s delay of ratings shows
/// the classic mistake of time-outs that do not fit together.
const PATIENCE: Duration = Duration::from_secs(3);
const COOKIE: &str = "bookinfo-user";

#[derive(Clone)]
struct Productpage {
    client: Client,
    details: String,
    reviews: String,
    ratings: String,
}

pub(crate) fn router() -> Router {
    let state = Productpage {
        client: Client::new(),
        details: client::peer("details"),
        reviews: client::peer("reviews"),
        ratings: client::peer("ratings"),
    };
    Router::new()
        .route("/", get(index))
        .route("/index.html", get(index))
        .route("/health", get(|| http::health("Product page is healthy")))
        .route("/login", post(login))
        .route("/logout", get(logout))
        .route("/productpage", get(front))
        .route("/static/{file}", get(static_file))
        .route("/api/v1/products", get(products))
        .route("/api/v1/products/{id}", get(product_details))
        .route("/api/v1/products/{id}/reviews", get(product_reviews))
        .route("/api/v1/products/{id}/ratings", get(product_ratings))
        .with_state(state)
}

fn book() -> Value {
    json!({
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": "Two pairs of twins, parted by a shipwreck, come to the same town on the same day, and nobody can \
            tell who is who. <b>Shakespeare's</b> shortest play, and the patron of everyone who has ever asked: which of you \
            answered me just now? (<a href=\"https://en.wikipedia.org/wiki/The_Comedy_of_Errors\">Wikipedia</a>)",
    })
}

async fn index() -> Response {
    page::html(page::index())
}

async fn static_file(Path(file): Path<String>) -> Response {
    match page::asset(&file) {
        Some((kind, text)) => {
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=3600")], text).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The user's name from the session cookie. A demo: the name is taken at its word.
fn user(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned()).find(|value| is_name(value))
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
}

async fn login(body: String) -> Response {
    let fields = body.split('&').filter_map(|field| field.split_once('='));
    let name = fields.filter(|(key, _)| *key == "username").map(|(_, value)| value.replace("%40", "@")).next();
    let Some(name) = name.filter(|name| is_name(name)) else {
        return (StatusCode::BAD_REQUEST, "a user name has letters, digits, and any of - _ . @").into_response();
    };
    ([(header::SET_COOKIE, format!("{COOKIE}={name}; Path=/; HttpOnly; SameSite=Lax"))], Redirect::to("/productpage"))
        .into_response()
}

async fn logout() -> Response {
    ([(header::SET_COOKIE, format!("{COOKIE}=; Path=/; Max-Age=0"))], Redirect::to("/productpage")).into_response()
}

/// What is sent on: the usual headers, and the user as `end-user`, which routing rules match.
fn outgoing(headers: &HeaderMap) -> HeaderMap {
    let mut outgoing = client::passed_on(headers);
    if let Some(value) = user(headers).and_then(|user| user.parse().ok()) {
        outgoing.insert("end-user", value);
    }
    outgoing
}

async fn front(State(state): State<Productpage>, headers: HeaderMap) -> Response {
    let outgoing = outgoing(&headers);
    let (details, reviews) = tokio::join!(state.details(0, outgoing.clone()), state.reviews(0, outgoing));
    page::html(page::product(&book(), user(&headers).as_deref(), &details, &reviews))
}

async fn products() -> Json<Value> {
    Json(json!([book()]))
}

async fn product_details(State(state): State<Productpage>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    answer(state.details(id, outgoing(&headers)).await, "product details")
}

async fn product_reviews(State(state): State<Productpage>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    answer(state.reviews(id, outgoing(&headers)).await, "product reviews")
}

async fn product_ratings(State(state): State<Productpage>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    let url = format!("{}/ratings/{id}", state.ratings);
    answer(state.client.get(&url, outgoing(&headers), PATIENCE).await, "product ratings")
}

fn answer(result: Result<Value, Failure>, what: &str) -> Response {
    let (status, reason) = match result {
        Ok(body) => return http::json(StatusCode::OK, &body),
        Err(Failure::Status(status)) => (status, format!("status {status}")),
        Err(Failure::Unreachable(reason)) => (StatusCode::INTERNAL_SERVER_ERROR, reason),
    };
    let body = json!({ "error": format!("Sorry, {what} are currently unavailable for this book."), "reason": reason });
    http::json(status, &body)
}

impl Productpage {
    async fn details(&self, id: u64, headers: HeaderMap) -> Result<Value, Failure> {
        self.client.get(&format!("{}/details/{id}", self.details), headers, PATIENCE).await
    }

    async fn reviews(&self, id: u64, headers: HeaderMap) -> Result<Value, Failure> {
        let url = format!("{}/reviews/{id}", self.reviews);
        match self.client.get(&url, headers.clone(), PATIENCE).await {
            Ok(reviews) => Ok(reviews),
            Err(_) => self.client.get(&url, headers, PATIENCE).await,
        }
    }
}
