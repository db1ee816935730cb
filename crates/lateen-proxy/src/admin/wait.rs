//! `lateen-proxy wait`: ends when the proxy that runs beside it is ready; a hook after the start of a proxy's container, so that
//! a kubelet starts the pod's other containers only then.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::ports;

/// Between two questions, and how long one may take.
const PERIOD: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_millis(500);

const QUESTION: &[u8] = b"GET /healthz/ready HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n";

/// Waits.
///
/// # Errors
/// It is not ready in time.
pub(crate) fn run(timeout: Duration) -> anyhow::Result<()> {
    let (start, address) = (Instant::now(), SocketAddr::from((Ipv4Addr::LOCALHOST, ports::HEALTH)));
    loop {
        if ask(address).is_ok_and(|is_ready| is_ready) {
            return Ok(());
        }
        if start.elapsed() >= timeout {
            bail!("the proxy is not ready after {} s", timeout.as_secs());
        }
        std::thread::sleep(PERIOD);
    }
}

fn ask(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(QUESTION)?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn ready_is_what_says_200() {
        for (answer, is_ready) in [("HTTP/1.1 200 OK\r\n\r\n", true), ("HTTP/1.1 503 No\r\n\r\n", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.read_exact(&mut [0; QUESTION.len()]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(ask(address).unwrap(), is_ready);
            server.join().unwrap();
        }
    }
}
