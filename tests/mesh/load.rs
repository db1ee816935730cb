//! Requests at a steady rate while something happens, and what became of each.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lateen_testing::eventually::eventually_blocking;

use crate::running::{Mesh, PROBE};

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// When it came, in milliseconds since 1970.
    pub(crate) at: u128,
    /// Status and first line of the body, or `error` and why.
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        self.text.starts_with("200 ")
    }

    /// Whether a sample server of this version gave it.
    pub(crate) fn is_of(&self, version: &str) -> bool {
        self.text.contains(&format!("version: {version},"))
    }
}

/// A client that is asking.
pub(crate) struct Load {
    child: Child,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Load {
    /// From outside, through the gateway.
    pub(crate) fn on_gateway(mesh: &Mesh, path: &str, count: u32, per_second: u32) -> Self {
        let mut command = Command::new(PROBE);
        command.args(arguments(mesh.gateway(), path, count, per_second));
        Self::start(command)
    }

    /// From a container of `from`, through its proxy.
    pub(crate) fn inside(mesh: &Mesh, from: &str, service: &str, path: &str, count: u32, per_second: u32) -> Self {
        let arguments = arguments(service, path, count, per_second);
        Self::start(mesh.probe_in(from, &arguments.each_ref().map(String::as_str)))
    }

    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the probe can be started");
        let output = child.stdout.take().expect("it is piped");
        let answers = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&answers);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output);
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
                let (at, text) = line.trim_end().split_once(' ').expect("a line has a time and a text");
                let answer = Answer { at: at.parse().expect("a time is a number"), text: text.to_owned() };
                list.lock().expect("nobody panics with it").push(answer);
                line.clear();
            }
        });
        Self { child, answers }
    }

    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.answers.lock().expect("nobody panics with it").clone()
    }

    /// Waits for so many more answers.
    #[track_caller]
    pub(crate) fn more(&self, count: usize) {
        let wanted = self.answers().len() + count;
        eventually_blocking("answers come", || (self.answers().len() >= wanted).then_some(()));
    }

    /// Waits for so many answers in a row by one version.
    #[track_caller]
    pub(crate) fn only(&self, version: &str, count: usize) {
        eventually_blocking(&format!("only {version} answers"), || {
            let answers = self.answers();
            (answers.iter().rev().take_while(|answer| answer.is_of(version)).count() >= count).then_some(())
        });
    }

    /// Ends it; gives all answers.
    pub(crate) fn stop(mut self) -> Vec<Answer> {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was started here");
        self.answers()
    }

    /// Waits for its end; gives all answers.
    #[track_caller]
    pub(crate) fn all(mut self, count: usize) -> Vec<Answer> {
        eventually_blocking("all answers come", || (self.answers().len() == count).then_some(()));
        assert!(self.child.wait().expect("it was started here").success());
        self.answers()
    }
}

fn arguments(host: &str, path: &str, count: u32, per_second: u32) -> [String; 4] {
    ["load".to_owned(), format!("http://{host}{path}"), count.to_string(), per_second.to_string()]
}

/// Every one of them must be a good answer.
#[track_caller]
pub(crate) fn none_failed(answers: &[Answer]) {
    let failed: Vec<&Answer> = answers.iter().filter(|answer| !answer.is_ok()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), answers.len(), &failed[..failed.len().min(10)]);
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis()
}
