//! Answering queries over UDP and TCP (RFC 1035 section 4.2). What is kept for askers is bounded.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

use super::names::{Answer, Found, Names};

/// Seconds an answer may be kept; short, because pods come and go.
const TTL: u32 = 5;
/// Queries worked on at a time; more are dropped, and the asker asks again.
const MAX_QUERIES: usize = 256;
/// Open TCP connections; more are closed at once.
const MAX_CONNECTIONS: usize = 64;
/// A TCP connection without a query for so long is closed (RFC 7766 section 6.2.3 asks for seconds).
const IDLE: Duration = Duration::from_secs(10);
/// A UDP answer longer than this is cut, unless the asker says by EDNS that it takes more (RFC 1035 section 2.3.4).
const PLAIN_UDP: usize = 512;

/// A look-up that is under way.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<Ipv4Addr>>> + Send>>;

/// Looks up the addresses of a name outside the cluster. `NotFound` means that there is no such name; an empty list, that
/// it has no IPv4 address.
pub type Forwarder = Arc<dyn Fn(String) -> Lookup + Send + Sync>;

/// The two sockets of a server.
pub struct Server {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    resolver: Resolver,
}

impl Server {
    /// Binds `address` for UDP and TCP, in the network namespace of the calling thread. Port 0 is resolved to the same free
    /// port for both.
    pub async fn bind(
        address: SocketAddr,
        names: watch::Receiver<Arc<Names>>,
        forwarder: Forwarder,
    ) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let udp = Arc::new(UdpSocket::bind(tcp.local_addr()?).await?);
        Ok(Self { udp, tcp, resolver: Resolver::new(names, forwarder) })
    }

    /// Where the server listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until dropped.
    pub async fn run(self) {
        tokio::join!(serve_udp(self.udp, self.resolver.clone()), serve_tcp(self.tcp, self.resolver));
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: Resolver) {
    let mut buffer = vec![0; 4096];
    loop {
        let (length, asker) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An earlier answer that could not be delivered is reported here; nothing is wrong with the socket.
                tracing::debug!(%error, "receiving a DNS query");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&resolver.permits).try_acquire_owned() else { continue };
        let (query, socket, resolver) = (buffer[..length].to_vec(), Arc::clone(&socket), resolver.clone());
        tokio::spawn(async move {
            if let Some(answer) = resolver.answer(&query, true).await {
                let _ = socket.send_to(&answer, asker).await;
            }
            drop(permit);
        });
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Resolver) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a DNS connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
        let resolver = resolver.clone();
        tokio::spawn(async move {
            let _ = serve_connection(stream, resolver).await;
            drop(permit);
        });
    }
}

/// Each message comes after its length in two bytes (RFC 1035 section 4.2.2).
async fn serve_connection(mut stream: TcpStream, resolver: Resolver) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(IDLE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut query)).await??;
        let Some(answer) = resolver.answer(&query, false).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

#[derive(Clone)]
pub(super) struct Resolver {
    names: watch::Receiver<Arc<Names>>,
    forwarder: Forwarder,
    permits: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new(names: watch::Receiver<Arc<Names>>, forwarder: Forwarder) -> Self {
        Self { names, forwarder, permits: Arc::new(Semaphore::new(MAX_QUERIES)) }
    }

    /// The answer to a query in wire form; `None` for what deserves none (not a query, or not even a header).
    pub(super) async fn answer(&self, query: &[u8], udp: bool) -> Option<Vec<u8>> {
        let Ok(query) = Message::from_vec(query) else {
            let id = u16::from_be_bytes([*query.first()?, *query.get(1)?]);
            // Bit 7 of the third byte marks a response, and those are never answered.
            if query.get(2)? & 0x80 != 0 {
                return None;
            }
            return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok();
        };
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
        reply.metadata.recursion_desired = query.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        match (query.metadata.op_code, query.queries.as_slice()) {
            (OpCode::Query, [question]) => {
                reply.add_query(question.clone());
                self.resolve(question, &mut reply).await;
            }
            (OpCode::Query, _) => reply.metadata.response_code = ResponseCode::FormErr,
            _ => reply.metadata.response_code = ResponseCode::NotImp,
        }
        let bytes = reply.to_vec().ok()?;
        let limit = query.edns.as_ref().map_or(PLAIN_UDP, |edns| usize::from(edns.max_payload()).max(PLAIN_UDP));
        if udp && bytes.len() > limit {
            return reply.truncate().to_vec().ok();
        }
        Some(bytes)
    }

    async fn resolve(&self, question: &Query, reply: &mut Message) {
        if question.query_class() != DNSClass::IN {
            reply.metadata.response_code = ResponseCode::NotImp;
            return;
        }
        let asked = text_of(question.name());
        let names = Arc::clone(&self.names.borrow());
        match names.find(&asked) {
            Found::NoSuchName => {
                reply.metadata.authoritative = true;
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            Found::Elsewhere => self.forward(question.name(), question.query_type(), reply).await,
            Found::Known(Answer::Addresses(addresses)) => {
                reply.metadata.authoritative = true;
                if question.query_type() == RecordType::A {
                    add_addresses(reply, question.name(), addresses);
                }
            }
            Found::Known(Answer::Alias(target)) => {
                let Ok(alias) = Name::from_ascii(format!("{}.", target.trim_end_matches('.'))) else {
                    reply.metadata.response_code = ResponseCode::ServFail;
                    return;
                };
                let record = RData::CNAME(CNAME(alias.clone()));
                reply.add_answer(Record::from_rdata(question.name().clone(), TTL, record));
                match names.find(&text_of(&alias)) {
                    Found::Known(Answer::Addresses(addresses)) if question.query_type() == RecordType::A => {
                        add_addresses(reply, &alias, addresses);
                    }
                    Found::Elsewhere if question.query_type() == RecordType::A => {
                        self.forward(&alias, RecordType::A, reply).await;
                    }
                    _ => {}
                }
            }
        }
    }

    /// Pods have no IPv6, so that nothing is lost by saying that a name has no such address.
    async fn forward(&self, name: &Name, kind: RecordType, reply: &mut Message) {
        match kind {
            RecordType::A => {}
            RecordType::AAAA => return,
            _ => {
                reply.metadata.response_code = ResponseCode::NotImp;
                return;
            }
        }
        match (self.forwarder)(text_of(name)).await {
            Ok(addresses) => add_addresses(reply, name, &addresses),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            Err(error) => {
                tracing::debug!(%name, %error, "looking up a name outside the cluster");
                reply.metadata.response_code = ResponseCode::ServFail;
            }
        }
    }
}

fn add_addresses(reply: &mut Message, name: &Name, addresses: &[Ipv4Addr]) {
    for address in addresses {
        reply.add_answer(Record::from_rdata(name.clone(), TTL, RData::A(A(*address))));
    }
}

fn text_of(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}
