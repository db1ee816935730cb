//! Against a stranger that speaks TLS in the buffered way: in both roles and both versions, however bytes arrive.

use std::future::poll_fn;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

struct Sides {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// Both trust one certificate, which is that of both.
fn sides(version: &'static SupportedProtocolVersion) -> Sides {
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let certificate = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("a name is good");
    let certificate = certificate.self_signed(&key).expect("it can be signed").der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("it is a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .expect("it is there")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("it is there")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("key and certificate belong together");
    Sides { client: Arc::new(client), server: Arc::new(server) }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.expect("it listens"), far.expect("it was asked").0)
}

/// A connection that passes on one byte at a time.
async fn slow_sockets() -> (TcpStream, TcpStream) {
    let ((near, first), (second, far)) = tokio::join!(sockets(), sockets());
    second.set_nodelay(true).expect("it can be set");
    first.set_nodelay(true).expect("it can be set");
    let ((mut one, mut one_out), (mut two, mut two_out)) = (first.into_split(), second.into_split());
    tokio::spawn(async move {
        while let Ok(byte) = one.read_u8().await {
            if two_out.write_u8(byte).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        while let Ok(byte) = two.read_u8().await {
            if one_out.write_u8(byte).await.is_err() {
                break;
            }
        }
    });
    (near, far)
}

fn name() -> ServerName<'static> {
    ServerName::try_from("a.test").expect("it is a name")
}

async fn our_client(sides: &Sides, tcp: TcpStream) -> io::Result<Secured> {
    let session = UnbufferedClientConnection::new(Arc::clone(&sides.client), name()).expect("the name is good");
    Secured::handshake(Session::Client(session), tcp.into(), BytesMut::new()).await
}

async fn our_server(sides: &Sides, tcp: TcpStream, prefix: BytesMut) -> io::Result<Secured> {
    let session = UnbufferedServerConnection::new(Arc::clone(&sides.server)).expect("the configuration is good");
    Secured::handshake(Session::Server(session), tcp.into(), prefix).await
}

type Boxed = Box<dyn Duplex>;
trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// Ours, and the stranger's end of the same connection.
async fn connection(sides: &Sides, we_are_client: bool, (near, far): (TcpStream, TcpStream)) -> (Secured, Boxed) {
    if we_are_client {
        let theirs = TlsAcceptor::from(Arc::clone(&sides.server)).accept(far);
        let (ours, theirs) = tokio::join!(our_client(sides, near), theirs);
        (ours.expect("they agree"), Box::new(theirs.expect("they agree")))
    } else {
        let theirs = TlsConnector::from(Arc::clone(&sides.client)).connect(name(), far);
        let (ours, theirs) = tokio::join!(our_server(sides, near, BytesMut::new()), theirs);
        (ours.expect("they agree"), Box::new(theirs.expect("they agree")))
    }
}

fn every_case() -> impl Iterator<Item = (Sides, bool)> {
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    versions.into_iter().flat_map(|version| [true, false].map(|we_are_client| (sides(version), we_are_client)))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from(place % 251).expect("it is small")).collect()
}

#[tokio::test]
async fn what_is_sent_both_ways_at_once_arrives_whole() {
    for (sides, we_are_client) in every_case() {
        let (ours, theirs) = connection(&sides, we_are_client, sockets().await).await;
        let sent = pattern(3_000_000);
        let ((mut our_read, mut our_write), (mut their_read, mut their_write)) =
            (tokio::io::split(ours), tokio::io::split(theirs));
        let (mut ours, mut theirs) = (vec![0; sent.len()], vec![0; sent.len()]);
        let (one, two, three, four) = tokio::join!(
            async { our_write.write_all(&sent).await.and(our_write.flush().await) },
            async { their_write.write_all(&sent).await.and(their_write.flush().await) },
            // In pieces smaller than a record: what has no room is kept.
            async {
                for piece in ours.chunks_mut(1_000) {
                    our_read.read_exact(piece).await?;
                }
                io::Result::Ok(())
            },
            their_read.read_exact(&mut theirs),
        );
        assert!(one.is_ok() && two.is_ok() && three.is_ok() && four.is_ok(), "{one:?} {two:?} {three:?} {four:?}");
        assert!(ours == sent && theirs == sent);
    }
}

#[tokio::test]
async fn a_byte_at_a_time_is_enough_and_an_idle_connection_holds_no_buffer() {
    for (sides, we_are_client) in every_case() {
        let (mut ours, mut theirs) = connection(&sides, we_are_client, slow_sockets().await).await;
        for number in 0..3u8 {
            theirs.write_all(&[number; 300]).await.expect("it is open");
            theirs.flush().await.expect("it is open");
            let mut read = [0; 300];
            ours.read_exact(&mut read).await.expect("it arrives");
            assert_eq!(read, [number; 300]);
            ours.write_all(&read).await.expect("it is open");
            ours.flush().await.expect("it is open");
            theirs.read_exact(&mut read).await.expect("it arrives");
            assert_eq!(read, [number; 300]);
        }
        let held = [&ours.incoming, &ours.rest.plain, &ours.rest.outgoing].map(BytesMut::capacity);
        assert_eq!(held, [0; 3]);
    }
}

#[tokio::test]
async fn an_end_is_told_from_a_cut() {
    for (sides, we_are_client) in every_case() {
        let (mut ours, mut theirs) = connection(&sides, we_are_client, sockets().await).await;
        theirs.write_all(b"last").await.expect("it is open");
        theirs.shutdown().await.expect("it is open");
        let mut read = Vec::new();
        ours.read_to_end(&mut read).await.expect("it ends well");
        assert_eq!(read, b"last");
        ours.write_all(b"answer").await.expect("our direction is open");
        ours.shutdown().await.expect("our direction is open");
        theirs.read_to_end(&mut read).await.expect("it ends well");
        assert_eq!(read, b"lastanswer");

        let (near, far) = sockets().await;
        let dropped = far.into_std().expect("it is a socket");
        let copy = dropped.try_clone().expect("a descriptor is left");
        let far = TcpStream::from_std(dropped).expect("it is a socket");
        let (mut ours, theirs) = connection(&sides, we_are_client, (near, far)).await;
        copy.shutdown(std::net::Shutdown::Both).expect("it is connected");
        let error = ours.read_u8().await.expect_err("nobody said that it ends");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        drop(theirs);
    }
}

#[tokio::test]
async fn a_message_too_short_to_be_one_waits_and_what_is_no_tls_is_answered_by_an_alert() {
    let sides = sides(&rustls::version::TLS13);
    let (near, mut far) = sockets().await;
    let (ours, alert) = tokio::join!(our_server(&sides, near, BytesMut::from("GET / HT")), async {
        far.write_all(b"TP/1.1\r\n\r\n").await?;
        let mut alert = [0; 7];
        far.read_exact(&mut alert).await.map(|_| alert)
    });
    assert_eq!(ours.expect_err("it is no TLS").kind(), io::ErrorKind::InvalidData);
    assert_eq!(alert.expect("it is told")[..3], [0x15, 3, 3], "a record with an alert");
}

#[tokio::test]
async fn bytes_read_before_are_the_beginning_of_the_handshake() {
    let sides = sides(&rustls::version::TLS13);
    let (near, far) = sockets().await;
    let connector = TlsConnector::from(Arc::clone(&sides.client));
    let theirs = tokio::spawn(async move { connector.connect(name(), far).await });
    let mut prefix = BytesMut::with_capacity(100);
    near.readable().await.expect("a hello comes");
    near.try_read_buf(&mut prefix).expect("a hello is there");
    let ours = our_server(&sides, near, prefix).await;
    assert!(ours.is_ok() && theirs.await.expect("it does not panic").is_ok());
}

#[tokio::test]
async fn what_the_kernel_does_not_take_is_kept_within_bounds() {
    let sides = sides(&rustls::version::TLS13);
    let (mut ours, mut theirs) = connection(&sides, true, sockets().await).await;
    let (piece, mut sent) = (pattern(200_000), 0usize);
    // Nobody reads: the sockets fill, and then nothing is taken any more.
    poll_fn(|cx| {
        loop {
            match Pin::new(&mut ours).poll_write(cx, &piece) {
                Poll::Ready(written) => sent += written.expect("it is open"),
                Poll::Pending => return Poll::Ready(()),
            }
        }
    })
    .await;
    assert!(ours.rest.outgoing.len() <= WRITE + 4096, "{}", ours.rest.outgoing.len());
    let mut read = vec![0; sent];
    let (flushed, arrived) = tokio::join!(ours.flush(), theirs.read_exact(&mut read));
    assert!(flushed.is_ok() && arrived.is_ok());
}
