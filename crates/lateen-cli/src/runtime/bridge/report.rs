//! What `lateen up` prints.

use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use super::{Options, detach, suggestions};
use crate::runtime::messages::Event;
use crate::runtime::paint::{ERROR, FAINT, GOOD, PLAIN, STRONG, WARNING};
use crate::runtime::state_dir::Running;

/// Prints events, one line each, and what is worth trying when everything is ready.
pub(super) struct Reporter {
    started: Instant,
    stopping: Option<Instant>,
    running: Option<Running>,
    /// A detached mesh tells the command that started it, too, until everything is ready.
    starter: Option<File>,
    options: Options,
    /// Where the app starts.
    landing: String,
}

impl Reporter {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            started: Instant::now(),
            stopping: None,
            running: None,
            starter: detach::starter(),
            options: options.clone(),
            landing: String::new(),
        }
    }

    /// The node has been started.
    pub(super) fn mesh(&mut self, running: &Running, landing: &str) {
        self.running = Some(running.clone());
        landing.clone_into(&mut self.landing);
    }

    pub(super) fn was_stopped(&self) -> bool {
        self.stopping.is_some()
    }

    pub(super) fn stopping(&mut self) {
        self.stopping = Some(Instant::now());
        self.line("ending the mesh (once more: at once)");
    }

    pub(super) fn stopping_hard(&mut self) {
        self.line("ending the mesh at once");
    }

    pub(super) fn event(&mut self, event: &Event) {
        let seconds = |millis: &u64| *millis as f64 / 1000.0;
        match event {
            Event::ControlPlane { millis } => {
                self.line(&format!("{GOOD}✓{PLAIN} control plane {FAINT}{:.1} s{PLAIN}", seconds(millis)));
            }
            Event::PodReady { namespace, pod, injected, millis } => {
                let place = if namespace == "default" { String::new() } else { format!(" in {namespace}") };
                let mesh = if *injected { "" } else { ", outside the mesh" };
                let time = format!("{FAINT}{:.1} s{mesh}{PLAIN}", seconds(millis));
                self.line(&format!("{GOOD}✓{PLAIN} {pod}{place} {time}"));
            }
            Event::AllReady { pods, .. } => self.all_ready(*pods),
            Event::PodGone { namespace, pod } => self.line(&format!("{FAINT}- {pod} in {namespace} ended{PLAIN}")),
            Event::Note { text } => self.line(text),
            Event::Problem { text } => self.line(&format!("{WARNING}!{PLAIN} {text}")),
            Event::Solved { text } => self.line(&format!("{GOOD}✓{PLAIN} solved: {text}")),
            Event::Fatal { text } => self.line(&format!("{ERROR}✗{PLAIN} {text}")),
        }
    }

    fn all_ready(&mut self, pods: usize) {
        let Some(running) = self.running.clone() else { return };
        let took = self.started.elapsed().as_secs_f64();
        let app = match running.published.first() {
            Some(address) => format!("{address}{}", self.landing),
            None => "(no port published)".to_owned(),
        };
        let count = if pods == 1 { "1 pod".to_owned() } else { format!("{pods} pods") };
        self.line(&format!("\n{STRONG}{count} ready in {took:.1} s{PLAIN}"));
        self.line(&format!("  app      {app}"));
        self.line(&format!("  console  {}", running.console));
        self.line("\nTry in another terminal:");
        for line in suggestions::lines(&self.options, &app) {
            match line.strip_prefix('#') {
                Some(_) => self.line(&format!("\n  {FAINT}{line}{PLAIN}")),
                None => self.line(&format!("  {line}")),
            }
        }
        if let Some(mut starter) = self.starter.take() {
            let _ = starter.write_all(detach::READY);
        }
    }

    /// What the command's exit code is, after everything has ended.
    pub(super) fn ended(mut self, ended: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
        match (ended, self.stopping) {
            (Ok(()), Some(since)) => {
                let took = since.elapsed().as_secs_f64();
                self.line(&format!("{GOOD}the mesh is down{PLAIN} ({took:.1} s)"));
                Ok(ExitCode::SUCCESS)
            }
            (Ok(()), None) => anyhow::bail!("the node ended by itself"),
            (Err(error), _) => {
                if let Some(mut starter) = self.starter.take() {
                    let _ = writeln!(starter, "{ERROR}error:{PLAIN} {error:#}");
                }
                Err(error)
            }
        }
    }

    fn line(&mut self, text: &str) {
        // A reader that went away must not end the mesh.
        let _ = writeln!(anstream::stdout(), "{text}");
        if let Some(starter) = &mut self.starter
            && writeln!(starter, "{text}").is_err()
        {
            self.starter = None;
        }
    }
}
