//! HTTP/2 peers over the `h2` crate: a client, and an upstream whose every stream the test follows itself.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::eventually::within;

/// Connects, with the whole connection driven by a task of its own.
///
/// # Panics
/// When nobody speaks HTTP/2 there.
pub async fn connect(to: SocketAddr) -> SendRequest<Bytes> {
    let stream = within("connecting", TcpStream::connect(to)).await.expect("somebody listens");
    let (sender, connection) = within("the handshake", h2::client::handshake(stream)).await.expect("they agree");
    tokio::spawn(async move {
        // How it ends, its streams tell.
        let _ = connection.await;
    });
    within("a stream may be opened", sender.ready()).await.expect("the connection is open")
}

/// One stream as the upstream sees it.
#[derive(Debug)]
pub struct Stream {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
}

/// GOAWAY that takes what is open and nothing new.
#[derive(Clone, Copy, Debug)]
struct GoAway;

/// Accepts HTTP/2 connections and hands out their streams as they come.
#[derive(Debug)]
pub struct Upstream {
    pub address: SocketAddr,
    streams: mpsc::UnboundedReceiver<Stream>,
    connections: mpsc::UnboundedReceiver<mpsc::UnboundedSender<GoAway>>,
    known: Vec<mpsc::UnboundedSender<GoAway>>,
}

impl Upstream {
    /// # Panics
    /// When loopback cannot be bound.
    pub async fn start() -> Self {
        Self::with(h2::server::Builder::new()).await
    }

    /// An upstream with settings of its own.
    ///
    /// # Panics
    /// When loopback cannot be bound.
    pub async fn with(settings: h2::server::Builder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (arrived, streams) = mpsc::unbounded_channel();
        let (opened, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((socket, _)) = listener.accept().await else { return };
                let (order, orders) = mpsc::unbounded_channel();
                let (settings, arrived) = (settings.clone(), arrived.clone());
                tokio::spawn(async move {
                    let Ok(connection) = settings.handshake(socket).await else { return };
                    drive(connection, number, arrived, orders).await;
                });
                if opened.send(order).is_err() {
                    return;
                }
            }
        });
        Self { address, streams, connections, known: Vec::new() }
    }

    /// The next stream on any connection.
    ///
    /// # Panics
    /// When none comes.
    pub async fn accept(&mut self) -> Stream {
        within("a stream comes", self.streams.recv()).await.expect("the upstream runs")
    }

    /// How many connections were accepted.
    pub fn connections(&mut self) -> usize {
        while let Ok(order) = self.connections.try_recv() {
            self.known.push(order);
        }
        self.known.len()
    }

    /// Tells a connection's peer to go away, while open streams go on.
    ///
    /// # Panics
    /// When there is no such connection.
    pub fn go_away(&mut self, connection: usize) {
        assert!(connection < self.connections(), "there is no connection {connection}");
        self.known[connection].send(GoAway).expect("the connection is open");
    }
}

async fn drive(
    mut connection: h2::server::Connection<TcpStream, Bytes>,
    number: usize,
    arrived: mpsc::UnboundedSender<Stream>,
    mut orders: mpsc::UnboundedReceiver<GoAway>,
) {
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                if arrived.send(Stream { connection: number, request, respond }).is_err() {
                    return;
                }
            }
            Some(GoAway) = orders.recv() => connection.graceful_shutdown(),
        }
    }
}

/// Sends the rest of a body, as its window allows, and ends the stream if that is its `end`.
///
/// # Panics
/// When the stream is gone.
pub async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = within("the window opens", std::future::poll_fn(|cx| stream.poll_capacity(cx))).await;
        let room = room.expect("the stream is open").expect("the stream is open");
        stream.send_data(data.split_to(room.min(data.len())), false).expect("the stream is open");
    }
    if end {
        stream.send_data(Bytes::new(), true).expect("the stream is open");
    }
}

/// The next data of a body that is not empty; none at its end.
///
/// # Panics
/// When nothing comes.
pub async fn data(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    loop {
        let data = within("data comes", body.data()).await?;
        if let Ok(data) = &data {
            body.flow_control().release_capacity(data.len()).expect("it was received");
        }
        if !matches!(&data, Ok(data) if data.is_empty()) {
            return Some(data);
        }
    }
}

/// A body to its end, and its trailers.
///
/// # Errors
/// When the stream was reset.
///
/// # Panics
/// When nothing comes.
pub async fn whole(body: &mut RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut all = BytesMut::new();
    while let Some(more) = data(body).await {
        all.extend_from_slice(&more?);
    }
    let trailers = within("the stream ends", body.trailers()).await?;
    Ok((all.freeze(), trailers))
}
