//! Files of log lines. Workers append to memory; a thread of its own writes, a few times a second or when much has gathered,
//! so that no request waits for a disk and no line wakes a thread. What a slow disk leaves waiting is bounded: lines beyond
//! are dropped and counted.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::telemetry::stats::Counter;

/// How long a line waits at most to be written.
const INTERVAL: Duration = Duration::from_millis(100);
/// So many bytes are written without waiting.
const ENOUGH: usize = 64 << 10;
/// So many may wait.
const MOST: usize = 4 << 20;

/// All files; the writing thread ends when the last handle goes.
#[derive(Clone, Debug)]
pub(crate) struct LogFiles(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Shared {
    files: Mutex<HashMap<Arc<str>, Arc<LogFile>>>,
    orders: Mutex<Orders>,
    /// Tells the writing thread of orders.
    given: Condvar,
    /// Tells who waits of what was written.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Orders {
    /// There are lines.
    lines: bool,
    /// They are to be written now.
    now: bool,
    /// Flushes that were asked for, and those that were done.
    flushes: u64,
    flushed: u64,
    ended: bool,
}

/// One file, and the lines that wait for it.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: Arc<str>,
    lines: Mutex<Vec<u8>>,
    dropped: Counter,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogFiles {
    /// Starts the writing thread.
    pub(crate) fn start(dropped: Counter) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writing = Arc::clone(&shared);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write(&writing))?;
        Ok(Self(Arc::new(Handle { shared, dropped })))
    }

    /// The file at `path`, which is opened with its first line.
    pub(crate) fn open(&self, path: &Arc<str>) -> Arc<LogFile> {
        let mut files = lock(&self.0.shared.files);
        let file = files.entry(Arc::clone(path)).or_insert_with(|| {
            Arc::new(LogFile {
                path: Arc::clone(path),
                lines: Mutex::default(),
                dropped: self.0.dropped.clone(),
                shared: Arc::clone(&self.0.shared),
            })
        });
        Arc::clone(file)
    }

    /// Blocks until everything logged so far is written.
    pub(crate) fn flush(&self) {
        let shared = &self.0.shared;
        let mut orders = lock(&shared.orders);
        orders.flushes += 1;
        orders.now = true;
        shared.given.notify_one();
        let mine = orders.flushes;
        while orders.flushed < mine && !orders.ended {
            orders = shared.done.wait(orders).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.shared.orders).ended = true;
        self.shared.given.notify_one();
    }
}

impl LogFile {
    /// Appends what `fill` does.
    pub(crate) fn append(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut lines = lock(&self.lines);
        let before = lines.len();
        if before >= MOST {
            self.dropped.inc();
            return;
        }
        fill(&mut lines);
        let now = before < ENOUGH && lines.len() >= ENOUGH;
        drop(lines);
        if before == 0 || now {
            let mut orders = lock(&self.shared.orders);
            orders.lines = true;
            orders.now |= now;
            self.shared.given.notify_one();
        }
    }
}

/// The writing thread.
fn write(shared: &Shared) {
    let mut open: HashMap<Arc<str>, Option<Box<dyn Write>>> = HashMap::new();
    let mut batch = Vec::new();
    loop {
        let mut orders = lock(&shared.orders);
        while !(orders.lines || orders.now || orders.ended) {
            orders = shared.given.wait(orders).unwrap_or_else(PoisonError::into_inner);
        }
        // More lines may come while the first waits its time.
        let waited = shared.given.wait_timeout_while(orders, INTERVAL, |orders| !(orders.now || orders.ended));
        let mut orders = waited.unwrap_or_else(PoisonError::into_inner).0;
        let (ended, flushes) = (orders.ended, orders.flushes);
        (orders.lines, orders.now) = (false, false);
        drop(orders);
        let files: Vec<Arc<LogFile>> = lock(&shared.files).values().map(Arc::clone).collect();
        for file in files {
            batch.clear();
            std::mem::swap(&mut batch, &mut lock(&file.lines));
            if batch.is_empty() {
                continue;
            }
            let out = open.entry(Arc::clone(&file.path)).or_insert_with(|| open_file(&file.path));
            if let Some(out) = out
                && let Err(error) = out.write_all(&batch).and_then(|()| out.flush())
            {
                tracing::warn!(path = %file.path, %error, "access log cannot be written");
            }
        }
        let mut orders = lock(&shared.orders);
        orders.flushed = flushes;
        shared.done.notify_all();
        if ended {
            return;
        }
    }
}

fn open_file(path: &str) -> Option<Box<dyn Write>> {
    match path {
        "/dev/stdout" => return Some(Box::new(std::io::stdout())),
        "/dev/stderr" => return Some(Box::new(std::io::stderr())),
        _ => {}
    }
    match std::fs::OpenOptions::new().create(true).append(true).open(path) {
        Ok(file) => Some(Box::new(file)),
        Err(error) => {
            tracing::error!(path, %error, "access log cannot be opened");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_whole_and_in_their_order() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path: Arc<str> = folder.path().join("log").display().to_string().into();
        let files = LogFiles::start(Counter::default()).expect("a thread can be started");
        let file = files.open(&path);
        let mut expected = String::new();
        for number in 0..20_000 {
            let line = format!("line {number}\n");
            file.append(|lines| lines.extend_from_slice(line.as_bytes()));
            expected.push_str(&line);
        }
        files.flush();
        assert_eq!(std::fs::read_to_string(&*path).expect("it can be read"), expected);
    }

    #[test]
    fn what_nobody_writes_is_bounded_and_counted() {
        let dropped = Counter::default();
        // No thread writes here.
        let file = LogFile {
            path: "unwritten".into(),
            lines: Mutex::default(),
            dropped: dropped.clone(),
            shared: Arc::default(),
        };
        for _ in 0..=MOST / 1000 + 10 {
            file.append(|lines| lines.extend_from_slice(&[b'x'; 1000]));
        }
        assert!(lock(&file.lines).len() < MOST + 1000);
        assert!(dropped.get() > 0);
    }
}
