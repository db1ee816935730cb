//! What a container sees of the file system: this machine's, with some files and directories put in or replaced, and a
//! `/run` and a `/proc` of its own. Nothing of it is visible to anybody else, and nothing is made on the machine's disks.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::runtime::messages::{ContainerPlan, Mount};
use crate::runtime::node::network::mount_proc;

const NOTHING: Option<&str> = None;
/// Where the machine's own root is while the view is built.
const OLD: &str = "/.machine";
/// Where a program that would be hidden is shown.
const PROGRAM: &str = "/run/lateen";
/// Where a directory that is to be replaced waits meanwhile.
const ASIDE: &str = "/.aside";

/// Replaces the root of the calling process's mount namespace; returns where the plan's program is in it.
pub(super) fn build(plan: &ContainerPlan) -> anyhow::Result<PathBuf> {
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING).context("make mounts private")?;
    let root = &plan.staging;
    mount(Some("tmpfs"), root, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).context("mount a new root")?;
    let old = root.join(OLD.trim_start_matches('/'));
    fs::create_dir(&old)?;
    nix::unistd::pivot_root(root, &old).context("change to the new root")?;
    std::env::set_current_dir("/")?;
    let mut view = View { owners: BTreeMap::from([(PathBuf::from("/"), Owner::Container)]) };
    view.copy_entries(Path::new(OLD), Path::new("/"), &["proc", "run", ".machine"])?;
    for folder in ["/run", "/proc", ASIDE] {
        fs::create_dir_all(folder)?;
    }
    mount_proc_or_share()?;
    // Programs may hold their lock files there.
    fs::create_dir_all("/run/lock")?;
    for wanted in &plan.mounts {
        view.put(wanted).with_context(|| format!("mount {}", wanted.target.display()))?;
    }
    if !plan.workdir.exists() {
        view.make(&plan.workdir, true).with_context(|| format!("working directory {}", plan.workdir.display()))?;
    }
    let program = visible_program(&plan.program)?;
    umount2(OLD, MntFlags::MNT_DETACH).context("leave the old root")?;
    fs::remove_dir(OLD)?;
    fs::remove_dir(ASIDE)?;
    Ok(program)
}

/// Where the program is in the view. A volume may hide it (on `/tmp`, say, with the program's directory below); then that
/// directory is shown once more where nothing is mounted over it.
fn visible_program(program: &Path) -> anyhow::Result<PathBuf> {
    let machines = on_machine(program);
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    if identity(program).is_some() && identity(program) == identity(&machines) {
        return Ok(program.to_owned());
    }
    let (Some(folder), Some(name)) = (machines.parent(), program.file_name()) else { bail!("the program has no name") };
    fs::create_dir_all(PROGRAM)?;
    bind(folder, Path::new(PROGRAM))?;
    Ok(Path::new(PROGRAM).join(name))
}

/// A path of the machine while its root is aside.
fn on_machine(path: &Path) -> PathBuf {
    Path::new(OLD).join(path.strip_prefix("/").unwrap_or(path))
}

/// Where a fresh one is forbidden, the node's has to do.
fn mount_proc_or_share() -> anyhow::Result<()> {
    mount_proc("/proc")?;
    if !Path::new("/proc/self").exists() {
        bind(&Path::new(OLD).join("proc"), Path::new("/proc"))?;
    }
    Ok(())
}

fn bind(source: &Path, target: &Path) -> anyhow::Result<()> {
    // What is mounted below a directory comes along: the kernel forbids to uncover what a mount hides.
    mount(Some(source), target, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)
        .with_context(|| format!("show {} at {}", source.display(), target.display()))
}

/// Who has what is mounted somewhere: in what is the container's may be written while the view is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Machine,
    Container,
}

/// The view under construction: what is mounted where.
struct View {
    owners: BTreeMap<PathBuf, Owner>,
}

impl View {
    /// Shows every entry of one directory of the machine in another, which is the container's.
    fn copy_entries(&mut self, from: &Path, to: &Path, except: &[&str]) -> anyhow::Result<()> {
        for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            if except.iter().any(|left_out| name == *left_out) {
                continue;
            }
            let (source, target) = (entry.path(), to.join(&name));
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                symlink(fs::read_link(&source)?, &target)?;
                continue;
            }
            if kind.is_dir() {
                fs::create_dir(&target)?;
            } else {
                fs::File::create(&target)?;
            }
            bind(&source, &target)?;
            self.owners.insert(target, Owner::Machine);
        }
        Ok(())
    }

    fn put(&mut self, wanted: &Mount) -> anyhow::Result<()> {
        let source = on_machine(&wanted.source);
        let is_folder = fs::metadata(&source).with_context(|| format!("find {}", wanted.source.display()))?.is_dir();
        let target = self.make(&wanted.target, is_folder)?;
        bind(&source, &target)?;
        if wanted.read_only {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | restrictions(&target)?;
            mount(NOTHING, &target, NOTHING, flags, NOTHING).context("make it read-only")?;
        }
        self.owners.insert(target, if wanted.read_only { Owner::Machine } else { Owner::Container });
        Ok(())
    }

    /// Sees to it that there is something to mount on at `path`, and returns where that really is.
    fn make(&mut self, path: &Path, is_folder: bool) -> anyhow::Result<PathBuf> {
        if !path.is_absolute() {
            bail!("the path is not absolute");
        }
        match fs::canonicalize(path) {
            Ok(real) if real.is_dir() == is_folder => return Ok(real),
            Ok(_) => bail!("what is there is {}", if is_folder { "not a directory" } else { "a directory" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        // A link that leads nowhere (resolv.conf, whose target was in /run) is followed by hand.
        if let Ok(target) = fs::read_link(path) {
            let parent = path.parent().unwrap_or(path);
            return self.make(&plain(&parent.join(target)), is_folder);
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { bail!("the path has no name") };
        let parent = self.make(parent, true)?;
        if self.owner(&parent) == Owner::Machine {
            self.replace(&parent)?;
        }
        let real = parent.join(name);
        if is_folder {
            fs::create_dir(&real)?;
        } else {
            fs::File::create(&real)?;
        }
        Ok(real)
    }

    /// Puts a directory of ours in the place of one of the machine's, with the same content and room for more.
    fn replace(&mut self, folder: &Path) -> anyhow::Result<()> {
        bind(folder, Path::new(ASIDE))?;
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
        self.owners.insert(folder.to_owned(), Owner::Container);
        self.copy_entries(Path::new(ASIDE), folder, &[])?;
        umount2(ASIDE, MntFlags::MNT_DETACH)?;
        Ok(())
    }

    fn owner(&self, path: &Path) -> Owner {
        path.ancestors().find_map(|above| self.owners.get(above).copied()).unwrap_or(Owner::Machine)
    }
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// Flags of a mount that one may not take away when changing another.
fn restrictions(path: &Path) -> anyhow::Result<MsFlags> {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let flags = statvfs(path)?.flags();
    let mut kept = MsFlags::empty();
    for (has, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if flags.contains(has) {
            kept |= keep;
        }
    }
    Ok(kept)
}
