//! A netlink socket: requests in, acknowledgements, answers and the kernel's own words about a refusal out.

#![expect(unsafe_code, reason = "setsockopt of SOL_NETLINK has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto};

use super::message::{Attributes, HEADER, Message};

const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
/// `NLMSGERR_ATTR_MSG`: the kernel's explanation, a string.
const EXPLANATION: u16 = 1;

/// Which part of the kernel to talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route,
    /// nf_tables.
    Netfilter,
}

/// The kernel refused a request.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}{}", explanation.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Error {
    /// What was asked for, in words.
    pub doing: String,
    /// The kernel's own explanation, where it gives one.
    pub explanation: Option<String>,
    #[source]
    pub source: io::Error,
}

impl Error {
    pub(crate) fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), explanation: None, source: source.into() }
    }

    /// Whether the kernel says that the thing asked about is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH))
    }
}

/// A netlink socket in the network namespace of the thread that opens it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub fn open(protocol: Protocol) -> Result<Self, Error> {
        let (name, number) = match protocol {
            Protocol::Route => ("rtnetlink", SockProtocol::NetlinkRoute),
            Protocol::Netfilter => ("netfilter's netlink", SockProtocol::NetlinkNetFilter),
        };
        let failed = |source: nix::Error| Error::new(format!("open {name}"), source);
        let fd = nix::sys::socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, number)
            .map_err(failed)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed)?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let on: libc::c_int = 1;
            // SAFETY: the descriptor is open, and the option's value is an int that outlives the call.
            let done = unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_NETLINK,
                    option,
                    (&raw const on).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            if done != 0 {
                return Err(Error::new(format!("open {name}"), io::Error::last_os_error()));
            }
        }
        // A whole rule set is one datagram; what the kernel grants at most is enough for thousands of rules.
        let _ = nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::SndBuf, &(4 << 20));
        let _ = nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::RcvBuf, &(4 << 20));
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn request(&mut self, mut message: Message) -> Result<(), Error> {
        message.add_flags(libc::NLM_F_ACK);
        self.exchange(message).map(drop)
    }

    /// Sends one query and returns the bodies (after the header) of all its answers.
    pub fn query(&mut self, mut message: Message, flags: i32) -> Result<Vec<Vec<u8>>, Error> {
        message.add_flags(flags | libc::NLM_F_ACK);
        self.exchange(message)
    }

    fn exchange(&mut self, message: Message) -> Result<Vec<Vec<u8>>, Error> {
        let doing = message.doing().to_owned();
        self.sequence += 1;
        let sequence = self.sequence;
        self.send(&message.finish(sequence)).map_err(|source| Error::new(&doing, source))?;
        let mut bodies = Vec::new();
        loop {
            for answer in self.receive(MsgFlags::empty()).map_err(|source| Error::new(&doing, source))? {
                match answer {
                    Answer::End { sequence: number, error } if number == sequence => {
                        return match error {
                            None => Ok(bodies),
                            Some((source, explanation)) => Err(Error { doing, explanation, source }),
                        };
                    }
                    Answer::Body { sequence: number, body } if number == sequence => bodies.push(body),
                    Answer::End { .. } | Answer::Body { .. } => {}
                }
            }
        }
    }

    /// Sends `messages` as one netfilter transaction: all of them take effect, or none.
    pub fn transaction(&mut self, begin: Message, messages: Vec<Message>, end: Message) -> Result<(), Error> {
        let first = self.sequence + 1;
        let mut doing = Vec::with_capacity(messages.len() + 2);
        let mut bytes = Vec::new();
        let last = messages.len();
        for (index, mut message) in std::iter::once(begin).chain(messages).chain([end]).enumerate() {
            // The kernel reports every refusal unasked; one acknowledgement shows that it got to the end.
            if index == last {
                message.add_flags(libc::NLM_F_ACK);
            }
            self.sequence += 1;
            doing.push(message.doing().to_owned());
            bytes.extend(message.finish(self.sequence));
        }
        let about = |sequence: u32| {
            let index = sequence.wrapping_sub(first) as usize;
            doing.get(index).cloned().unwrap_or_else(|| "apply the rules".to_owned())
        };
        self.send(&bytes).map_err(|source| Error::new("send the rules to the kernel", source))?;
        // The kernel works through a transaction inside `send`, so all answers are there by now.
        let mut acknowledged = false;
        loop {
            let answers = match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(answers) => answers,
                Err(nix::Error::EAGAIN) if acknowledged => return Ok(()),
                Err(source) => return Err(Error::new("learn what became of the rules", source)),
            };
            for answer in answers {
                if let Answer::End { sequence, error } = answer {
                    match error {
                        None => acknowledged = true,
                        Some((source, explanation)) => {
                            return Err(Error { doing: about(sequence), explanation, source });
                        }
                    }
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> nix::Result<()> {
        sendto(self.fd.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty()).map(drop)
    }

    fn receive(&self, flags: MsgFlags) -> nix::Result<Vec<Answer>> {
        let mut buffer = vec![0; 256 << 10];
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, flags) {
                Err(nix::Error::EINTR) => {}
                other => break other?,
            }
        };
        Ok(parse(&buffer[..length]))
    }
}

/// One message from the kernel.
enum Answer {
    /// The request is finished: acknowledged, refused, or all of a listing was sent.
    End {
        sequence: u32,
        error: Option<(io::Error, Option<String>)>,
    },
    Body {
        sequence: u32,
        body: Vec<u8>,
    },
}

fn parse(mut datagram: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while datagram.len() >= HEADER {
        let word = |at: usize| u32::from_ne_bytes([datagram[at], datagram[at + 1], datagram[at + 2], datagram[at + 3]]);
        let length = word(0) as usize;
        let Some(body) = datagram.get(HEADER..length) else { break };
        let (kind, sequence) = (u16::from_ne_bytes([datagram[4], datagram[5]]), word(8));
        answers.push(match kind {
            NLMSG_ERROR | NLMSG_DONE => Answer::End { sequence, error: refusal(body) },
            _ => Answer::Body { sequence, body: body.to_vec() },
        });
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// The error of an `NLMSG_ERROR` or `NLMSG_DONE` body: a negative errno, then (for errors) the header of the request and
/// attributes.
fn refusal(body: &[u8]) -> Option<(io::Error, Option<String>)> {
    let code = i32::from_ne_bytes(body.get(0..4)?.try_into().ok()?);
    if code == 0 {
        return None;
    }
    let explanation = Attributes(body.get(4 + HEADER..).unwrap_or_default())
        .find(|(kind, _)| *kind == EXPLANATION)
        .map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Some((io::Error::from_raw_os_error(-code), explanation))
}
