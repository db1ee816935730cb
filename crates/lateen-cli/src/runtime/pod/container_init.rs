//! The first process of a container's pid namespace: builds what the container sees, gives up its rights, starts the
//! command, and looks after what the command leaves behind.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use caps::{CapSet, Capability};
use lateen_intercept::spawn::Spawn;
use nix::unistd::Pid;

use super::{shepherd, view};
use crate::runtime::channel::inherited;
use crate::runtime::messages::{ContainerPlan, StartReport};

/// Numbers under which the process finds its pipes.
pub(crate) mod descriptors {
    /// The plan, JSON.
    pub(crate) const PLAN: i32 = 3;
    /// Where the one report goes.
    pub(crate) const REPORT: i32 = 4;
}

/// What `lateen __container` does.
pub(crate) fn main() -> ExitCode {
    shepherd::hold_signals();
    let mut plan = File::from(inherited(descriptors::PLAN));
    let mut report = File::from(inherited(descriptors::REPORT));
    let started = read_plan(&mut plan).and_then(|plan| start(&plan));
    let (told, child) = match started {
        Ok(child) => (StartReport::Started, Some(child)),
        Err(error) => (StartReport::Failed(format!("{error:#}")), None),
    };
    let _ = serde_json::to_vec(&told).map(|text| report.write_all(&text));
    drop(report);
    match child {
        Some(child) => ExitCode::from(shepherd::watch(child)),
        None => ExitCode::FAILURE,
    }
}

fn read_plan(file: &mut File) -> anyhow::Result<ContainerPlan> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn start(plan: &ContainerPlan) -> anyhow::Result<Pid> {
    nix::unistd::sethostname(&plan.hostname).context("set the host name")?;
    let program = view::build(plan)?;
    std::env::set_current_dir(&plan.workdir)
        .with_context(|| format!("working directory {}", plan.workdir.display()))?;
    give_up_rights(plan.network_admin)?;
    let mut arguments = plan.command.iter().map(OsString::from);
    let name = arguments.next().context("the command is empty")?;
    let arguments: Vec<OsString> = arguments.collect();
    let environment: Vec<(OsString, OsString)> =
        plan.environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let spawn = Spawn::new(&program, &arguments, &environment)?.called(&name)?;
    spawn.start().with_context(|| format!("start {}", plan.program.display()))
}

/// Leaves the process and all it starts without capabilities, or with only the one for network settings, and without a
/// way to regain any.
pub(super) fn give_up_rights(network_admin: bool) -> anyhow::Result<()> {
    let keep = |capability: &Capability| network_admin && *capability == Capability::CAP_NET_ADMIN;
    for capability in caps::runtime::thread_all_supported() {
        if !keep(&capability) {
            caps::drop(None, CapSet::Bounding, capability).context("give up capabilities")?;
        }
    }
    caps::clear(None, CapSet::Ambient).context("give up capabilities")?;
    caps::clear(None, CapSet::Inheritable).context("give up capabilities")?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        let held = caps::read(None, set)?.into_iter().filter(|capability| keep(capability)).collect();
        caps::set(None, set, &held).context("give up capabilities")?;
    }
    nix::sys::prctl::set_no_new_privs().context("set no_new_privs")
}
