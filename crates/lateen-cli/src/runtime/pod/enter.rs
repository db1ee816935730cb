//! Running a command in a container that runs: entering its namespaces.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use lateen_intercept::spawn::Spawn;
use nix::sched::{CloneFlags, setns};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use serde::Serialize;

use super::{container_init, shepherd};
use crate::runtime::channel::inherited;
use crate::runtime::images::{find_in, find_program};
use crate::runtime::messages::EnterPlan;
use crate::runtime::node::reaper::{Child, Reaper};
use crate::runtime::{ENTER, THIS_PROGRAM};

/// Number under which the helper finds its plan.
const PLAN: i32 = 3;
/// Exit status of a command that is not there (as shells and kubectl have it).
const NOT_FOUND: u8 = 127;

/// Starts a helper that enters the container and runs the command there, with these files as its input, output and error
/// output. Blocks for as long as it takes to make a process.
pub(crate) fn start(reaper: &Reaper, plan: &EnterPlan, files: [BorrowedFd<'_>; 3]) -> anyhow::Result<Child> {
    let plan = plan_file(plan)?;
    let mut spawn =
        Spawn::new(Path::new(THIS_PROGRAM), &[ENTER.into()], &[])?.called(OsStr::new("lateen"))?.own_session();
    for (number, file) in files.into_iter().enumerate() {
        spawn = spawn.descriptor(file, number as i32);
    }
    let spawn = spawn.descriptor(plan.as_fd(), PLAN);
    Ok(reaper.spawn(|| spawn.start())?)
}

/// A plan as a file in memory, to be read from its start.
pub(super) fn plan_file(plan: &impl Serialize) -> anyhow::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"lateen-plan", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(plan)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// What `lateen __enter` does. What goes wrong is told on the error output, which is the user's.
pub(crate) fn main() -> ExitCode {
    shepherd::hold_signals();
    match enter() {
        Ok(child) => ExitCode::from(shepherd::watch(child)),
        Err(error) => {
            eprintln!("lateen exec: {error:#}");
            ExitCode::from(NOT_FOUND)
        }
    }
}

fn enter() -> anyhow::Result<Pid> {
    let mut text = Vec::new();
    File::from(inherited(PLAN)).read_to_end(&mut text)?;
    let plan: EnterPlan = serde_json::from_slice(&text)?;
    let namespaces = [
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("net", CloneFlags::CLONE_NEWNET),
        ("pid", CloneFlags::CLONE_NEWPID),
        // Last: it changes what paths mean.
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let mut opened = Vec::new();
    for (name, flag) in namespaces {
        let path = format!("/proc/{}/ns/{name}", plan.pid);
        opened.push((name, flag, File::open(&path).context("the container is gone")?));
    }
    for (name, flag, file) in opened {
        setns(file, flag).with_context(|| format!("enter the container's {name} namespace"))?;
    }
    std::env::set_current_dir(&plan.workdir).or_else(|_| std::env::set_current_dir("/"))?;
    container_init::give_up_rights(plan.network_admin)?;
    let mut arguments = plan.command.iter().map(OsString::from);
    let name = arguments.next().context("the command is empty")?;
    let arguments: Vec<OsString> = arguments.collect();
    let environment: Vec<(OsString, OsString)> =
        plan.environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let program = look_up(&plan)?;
    let mut spawn = Spawn::new(&program, &arguments, &environment)?.called(&name)?.dies_with_parent();
    if plan.terminal {
        spawn = spawn.own_session().controlling_terminal();
    }
    spawn.start().with_context(|| format!("start {}", program.display()))
}

/// By the container's PATH, not this process's.
fn look_up(plan: &EnterPlan) -> anyhow::Result<std::path::PathBuf> {
    let name = &plan.command[0];
    if name.contains('/') {
        return find_program(name, &plan.workdir);
    }
    let path = plan.environment.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
    find_in(name, std::env::split_paths(path))
        .with_context(|| format!("there is no program `{name}` on the container's PATH"))
}
