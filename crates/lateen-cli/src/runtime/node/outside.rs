//! The node's view of the bridge: connections and names outside, and the user's ear.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::runtime::channel::Channel;
use crate::runtime::messages::{Event, FromNode, ToNode};

/// Questions that wait for an answer from the bridge.
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<io::Result<Answer>>>>>;

/// Events that wait to be told; beyond that they are dropped, the latest first.
const MAX_EVENTS: usize = 4096;

/// What the bridge can do for the node.
#[derive(Clone)]
pub(crate) struct Outside {
    channel: Arc<Channel>,
    waiting: Waiting,
    events: mpsc::Sender<Told>,
    next: Arc<AtomicU64>,
}

/// What waits to be told.
enum Told {
    Event(Event),
    /// Answered when everything before it has been told.
    Mark(oneshot::Sender<()>),
}

enum Answer {
    Connected(OwnedFd),
    Resolved(Vec<Ipv4Addr>),
}

impl Outside {
    /// Also returns what tells that the mesh is to end: the bridge says so, or it is gone. Needs a running runtime.
    pub(super) fn new(channel: Channel) -> (Self, watch::Receiver<bool>) {
        let (stop, stopped) = watch::channel(false);
        let (events, told) = mpsc::channel(MAX_EVENTS);
        let outside = Self { channel: Arc::new(channel), waiting: Arc::default(), events, next: Arc::default() };
        tokio::spawn(listen(Arc::clone(&outside.channel), Arc::clone(&outside.waiting), stop));
        tokio::spawn(pass_on(Arc::clone(&outside.channel), told));
        (outside, stopped)
    }

    /// Tells the user, soon.
    pub(crate) fn tell(&self, event: Event) {
        let _ = self.events.try_send(Told::Event(event));
    }

    /// Waits until all events so far have been told.
    pub(super) async fn flush(&self) {
        let (sender, told) = oneshot::channel();
        if self.events.send(Told::Mark(sender)).await.is_ok() {
            let _ = told.await;
        }
    }

    /// Connects to an address outside the mesh.
    pub(crate) async fn connect(&self, address: SocketAddrV4) -> io::Result<TcpStream> {
        match self.ask(|id| FromNode::Connect { id, address }).await? {
            Answer::Connected(socket) => {
                let stream = std::net::TcpStream::from(socket);
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream)
            }
            Answer::Resolved(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Looks up a name outside the cluster; `NotFound` where there is none.
    pub(crate) async fn resolve(&self, name: String) -> io::Result<Vec<Ipv4Addr>> {
        match self.ask(|id| FromNode::Resolve { id, name }).await? {
            Answer::Resolved(addresses) => Ok(addresses),
            Answer::Connected(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    async fn ask(&self, question: impl FnOnce(u64) -> FromNode) -> io::Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(id, sender);
        // An asker that goes away must not leave its question behind.
        let _forget = Forget { waiting: &self.waiting, id };
        self.channel.send(&question(id), &[]).await?;
        answer.await.map_err(|_| io::ErrorKind::BrokenPipe)?
    }
}

struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.id);
    }
}

async fn listen(channel: Arc<Channel>, waiting: Waiting, stop: watch::Sender<bool>) {
    while let Ok(Some((message, files))) = channel.receive::<ToNode>().await {
        let (id, answer) = match message {
            ToNode::Stop => {
                stop.send_replace(true);
                continue;
            }
            ToNode::Connected { id } => match files.into_iter().next() {
                Some(socket) => (id, Ok(Answer::Connected(socket))),
                None => (id, Err(io::ErrorKind::InvalidData.into())),
            },
            ToNode::Resolved { id, addresses } => (id, Ok(Answer::Resolved(addresses))),
            ToNode::Failed { id, code } => (id, Err(io::Error::from_raw_os_error(code))),
        };
        if let Some(sender) = lock(&waiting).remove(&id) {
            let _ = sender.send(answer);
        }
    }
    stop.send_replace(true);
}

async fn pass_on(channel: Arc<Channel>, mut events: mpsc::Receiver<Told>) {
    while let Some(told) = events.recv().await {
        match told {
            Told::Mark(sender) => drop(sender.send(())),
            Told::Event(event) => {
                if channel.send(&FromNode::Event(event), &[]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<io::Result<Answer>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
