//! A real server on loopback, asked over both transports.

use std::net::Ipv4Addr;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;

use super::*;

const REVIEWS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);

fn names() -> Names {
    let mut names = Names::new("cluster.local");
    names.insert("reviews.default.svc.cluster.local", Answer::Addresses(vec![REVIEWS]));
    names.insert("away.default.svc.cluster.local", Answer::Alias("example.org".to_owned()));
    let many = (0..100).map(|index| Ipv4Addr::new(10, 244, 0, index)).collect();
    names.insert("many.default.svc.cluster.local", Answer::Addresses(many));
    names
}

fn forwarder() -> Forwarder {
    Arc::new(|name| {
        Box::pin(async move {
            match name.as_str() {
                "example.org" => Ok(vec![Ipv4Addr::new(192, 0, 2, 1)]),
                "broken.example" => Err(std::io::Error::other("no server answers")),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            }
        })
    })
}

async fn start() -> (std::net::SocketAddr, watch::Sender<Arc<Names>>) {
    let (sender, receiver) = watch::channel(Arc::new(names()));
    let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), receiver, forwarder()).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(server.run());
    (address, sender)
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn ask_raw(server: std::net::SocketAddr, query: &[u8]) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(query, server).await.unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).await.unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn ask(server: std::net::SocketAddr, name: &str, kind: RecordType) -> Message {
    ask_raw(server, &query(name, kind)).await
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let address = |data: &RData| if let RData::A(address) = data { Some(address.0) } else { None };
    message.answers.iter().filter_map(|record| address(&record.data)).collect()
}

#[tokio::test]
async fn names_of_the_cluster_come_from_the_table() {
    let (server, sender) = start().await;
    let known = ask(server, "Reviews.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!((addresses(&known), known.metadata.response_code), (vec![REVIEWS], ResponseCode::NoError));
    assert_eq!(known.metadata.id, 4711);
    let ip6 = ask(server, "reviews.default.svc.cluster.local.", RecordType::AAAA).await;
    assert_eq!((ip6.answers.len(), ip6.metadata.response_code), (0, ResponseCode::NoError));
    let unknown = ask(server, "example.org.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    sender.send_replace(Arc::new(Names::new("cluster.local")));
    let gone = ask(server, "reviews.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn other_names_are_forwarded() {
    let (server, _sender) = start().await;
    assert_eq!(addresses(&ask(server, "example.org.", RecordType::A).await), [Ipv4Addr::new(192, 0, 2, 1)]);
    assert_eq!(ask(server, "nobody.example.", RecordType::A).await.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(ask(server, "broken.example.", RecordType::A).await.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(ask(server, "example.org.", RecordType::MX).await.metadata.response_code, ResponseCode::NotImp);
    let alias = ask(server, "away.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!((alias.answers.len(), addresses(&alias)), (2, vec![Ipv4Addr::new(192, 0, 2, 1)]));
}

#[tokio::test]
async fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
    let (server, _sender) = start().await;
    let cut = ask(server, "many.default.svc.cluster.local.", RecordType::A).await;
    assert!(cut.metadata.truncation);
    let mut stream = TcpStream::connect(server).await.unwrap();
    // Two queries on one connection, the second only after the first was answered.
    for _ in 0..2 {
        let query = query("many.default.svc.cluster.local.", RecordType::A);
        stream.write_u16(query.len() as u16).await.unwrap();
        stream.write_all(&query).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(addresses(&Message::from_vec(&answer).unwrap()).len(), 100);
    }
}

#[tokio::test]
async fn nonsense_is_called_so_and_answers_are_not_answered() {
    let (server, _sender) = start().await;
    let mut broken = query("reviews.default.svc.cluster.local.", RecordType::A);
    broken.truncate(20);
    assert_eq!(ask_raw(server, &broken).await.metadata.response_code, ResponseCode::FormErr);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut reply = query("reviews.default.svc.cluster.local.", RecordType::A);
    reply[2] |= 0x80;
    socket.send_to(&reply, server).await.unwrap();
    socket.send_to(&[1], server).await.unwrap();
    // The first answer that comes is to the query sent last.
    let mut ours = query("reviews.default.svc.cluster.local.", RecordType::A);
    ours[0] = 0x42;
    socket.send_to(&ours, server).await.unwrap();
    let mut buffer = [0; 512];
    socket.recv(&mut buffer).await.unwrap();
    assert_eq!(buffer[0], 0x42);
}

#[test]
fn a_pod_searches_its_own_namespace_first() {
    let text = resolv_conf(Ipv4Addr::new(169, 254, 1, 1), "shop", "cluster.local");
    assert_eq!(
        text,
        "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 169.254.1.1\noptions ndots:5\n"
    );
}
