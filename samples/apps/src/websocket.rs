//! A chat of one page: whoever has it open sees what the others type, over a WebSocket at `/ws`.

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::{Html, Response};
use axum::routing::get;
use tokio::sync::broadcast;

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Chat</title>
<style>body{font:16px system-ui;max-width:40rem;margin:3rem auto;padding:0 1rem}input{font:inherit;width:100%}</style>
<h1>Chat</h1><input placeholder="say something" autofocus><ul></ul>
<script>
const socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/ws");
const show = text => { const item = document.createElement("li"); item.textContent = text; document.querySelector("ul").prepend(item); };
socket.onmessage = event => show(event.data);
socket.onclose = () => show("(the connection is closed)");
document.querySelector("input").onchange = event => { socket.send(event.target.value); event.target.value = ""; };
</script>
"#;

/// How many messages a slow visitor may lag behind before losing some.
const BACKLOG: usize = 64;

pub(crate) fn router() -> Router {
    let (said, _) = broadcast::channel(BACKLOG);
    Router::new().route("/", get(|| std::future::ready(Html(PAGE)))).route("/ws", get(join)).with_state(said)
}

async fn join(State(said): State<broadcast::Sender<Utf8Bytes>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.max_message_size(64 << 10).on_upgrade(move |socket| converse(socket, said))
}

async fn converse(mut socket: WebSocket, said: broadcast::Sender<Utf8Bytes>) {
    let mut hears = said.subscribe();
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    // Nobody listening is no error: the speaker listens too.
                    let _ = said.send(text);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            text = hears.recv() => match text {
                Ok(text) => if socket.send(Message::Text(text)).await.is_err() { return },
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}
