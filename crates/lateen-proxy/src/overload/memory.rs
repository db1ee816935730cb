//! How much memory is in use, of how much there may be.

use std::io;
use std::path::{Path, PathBuf};

/// Something that is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Monitor {
    /// What the process has written and holds in memory (Envoy: its heap, `envoy.resource_monitors.fixed_heap`), of this many
    /// bytes.
    Own(u64),
    /// What the control group uses of what it may (`envoy.resource_monitors.cgroup_memory`), at most this many bytes.
    ///
    /// Unlike with Envoy, files that the kernel keeps in memory and has not needed lately do not count: it drops them before
    /// anybody lacks anything, and a long access log would otherwise look like an overload.
    Group(Group, Option<u64>),
}

/// The folder of a control group, by the version of the kernel's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Group {
    V1(PathBuf),
    V2(PathBuf),
}

impl Monitor {
    /// The part that is in use; above 1 there is more than there may be.
    ///
    /// # Errors
    /// What the kernel says, and files that are not what they should be.
    pub(super) fn pressure(&self) -> io::Result<f64> {
        let (used, most) = match self {
            Self::Own(most) => (own()?, *most),
            Self::Group(group, told) => {
                let most = [group.limit()?, *told].into_iter().flatten().min();
                // Without any limit there is no pressure.
                (group.used()?, most.unwrap_or(u64::MAX))
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "a part of bytes beyond 2^53 matters to nobody")]
        Ok(used as f64 / most.max(1) as f64)
    }
}

impl Group {
    /// The one that this process is in.
    pub(super) fn own() -> Self {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        if v1.join("memory.limit_in_bytes").exists() {
            return Self::V1(v1.to_owned());
        }
        let root = Path::new("/sys/fs/cgroup");
        let named = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let named = named.lines().find_map(|line| line.strip_prefix("0::/")).map(|path| root.join(path));
        // In a container the group is the root of what can be seen.
        Self::V2(named.filter(|folder| folder.join("memory.current").exists()).unwrap_or_else(|| root.to_owned()))
    }

    /// How much it may use, if that is bounded.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn limit(&self) -> io::Result<Option<u64>> {
        let text = match self {
            Self::V1(folder) => std::fs::read_to_string(folder.join("memory.limit_in_bytes"))?,
            Self::V2(folder) => std::fs::read_to_string(folder.join("memory.max"))?,
        };
        // The first version writes the largest number of pages for "no limit".
        Ok(text.trim().parse().ok().filter(|limit| *limit < u64::MAX / 4))
    }

    fn used(&self) -> io::Result<u64> {
        let (folder, total, idle) = match self {
            Self::V1(folder) => (folder, "memory.usage_in_bytes", "total_inactive_file "),
            Self::V2(folder) => (folder, "memory.current", "inactive_file "),
        };
        let total = number(&std::fs::read_to_string(folder.join(total))?)?;
        let stat = std::fs::read_to_string(folder.join("memory.stat"))?;
        let idle = stat.lines().find_map(|line| line.strip_prefix(idle)).map_or(Ok(0), number)?;
        Ok(total.saturating_sub(idle))
    }

    /// Whether nobody else is in it.
    pub(super) fn is_ours(&self) -> bool {
        let (Self::V1(folder) | Self::V2(folder)) = self;
        let own = std::process::id().to_string();
        let members = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        members.lines().eq([own.as_str()])
    }
}

/// What the process holds in memory that is no file's.
fn own() -> io::Result<u64> {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let mut fields = text.split_ascii_whitespace().skip(1).map(number);
    let mut next = || fields.next().unwrap_or_else(|| Err(io::Error::other("too short")));
    let (resident, of_files) = (next()?, next()?);
    Ok(resident.saturating_sub(of_files) * PAGE)
}

fn number(text: &str) -> io::Result<u64> {
    text.trim().parse().map_err(|_| io::Error::other(format!("`{}` is no number", text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_of_both_versions_are_read() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("it can be written");
        let (v1, v2) = (Group::V1(folder.path().to_owned()), Group::V2(folder.path().to_owned()));
        write("memory.max", "1000\n");
        write("memory.current", "900\n");
        write("memory.stat", "anon 500\ninactive_file 400\n");
        let pressure = |group: &Group, told| Monitor::Group(group.clone(), told).pressure().expect("it is there");
        assert!((pressure(&v2, None) - 0.5).abs() < 1e-9);
        assert!((pressure(&v2, Some(500)) - 1.0).abs() < 1e-9, "the smaller bound holds");
        assert!((pressure(&v2, Some(5000)) - 0.5).abs() < 1e-9);
        write("memory.max", "max\n");
        assert_eq!(v2.limit().expect("it is there"), None);
        assert!(pressure(&v2, None) < 1e-9 && (pressure(&v2, Some(1000)) - 0.5).abs() < 1e-9);
        write("memory.limit_in_bytes", "9223372036854771712\n");
        write("memory.usage_in_bytes", "900\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 800\n");
        assert_eq!(v1.limit().expect("it is there"), None);
        assert!((pressure(&v1, Some(1000)) - 0.1).abs() < 1e-9);
        write("memory.usage_in_bytes", "many\n");
        assert!(v1.used().is_err());
        write("cgroup.procs", &format!("{}\n", std::process::id()));
        assert!(v2.is_ours());
        write("cgroup.procs", &format!("1\n{}\n", std::process::id()));
        assert!(!v2.is_ours());
    }

    #[test]
    fn what_the_process_holds_is_seen() {
        let before = own().expect("it can be read");
        let held = vec![1u8; 64 << 20];
        let after = own().expect("it can be read");
        assert!(after >= before + (60 << 20), "{before} {after} {}", held.len());
    }
}
