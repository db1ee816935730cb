//! Can this process make namespaces, as root or through a user namespace? And if not, what would have to change?

use std::fs;

use nix::sched::CloneFlags;

use crate::spawn::{Error, Step};

/// How namespaces can be made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// The process may do so itself.
    Root,
    /// Inside a new user namespace.
    UserNamespace,
}

impl Privilege {
    /// What the calling process has: `Root` with the capabilities to make and set up namespaces, else `UserNamespace`,
    /// which can turn out not to be allowed.
    pub fn of_this_process() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let held = status_field(&status, "CapEff:").and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
        let needed = [CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_KILL, CAP_DAC_OVERRIDE];
        if needed.iter().all(|capability| held & (1 << capability) != 0) { Self::Root } else { Self::UserNamespace }
    }

    /// Adds the user namespace to `flags` where one is needed.
    pub fn with(self, flags: CloneFlags) -> CloneFlags {
        match self {
            Self::Root => flags,
            Self::UserNamespace => flags | CloneFlags::CLONE_NEWUSER,
        }
    }
}

const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_KILL: u32 = 5;
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// What the kernel says about user namespaces here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The kernel knows user namespaces at all.
    pub supported: bool,
    /// `kernel.unprivileged_userns_clone` (Debian and derivatives)
    pub unprivileged_clone: Option<u64>,
    /// `user.max_user_namespaces`
    pub max_user_namespaces: Option<u64>,
    /// `user.max_net_namespaces`
    pub max_net_namespaces: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu 23.10 and later)
    pub apparmor_restricts: Option<u64>,
    /// A seccomp filter is in force, as in most containers.
    pub seccomp: bool,
    /// The process runs in a container.
    pub container: bool,
}

impl Facts {
    /// Reads them.
    pub fn read() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            supported: fs::exists("/proc/self/ns/user").unwrap_or(false),
            unprivileged_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            max_net_namespaces: number("/proc/sys/user/max_net_namespaces"),
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            seccomp: status_field(&status, "Seccomp:") == Some("2"),
            container: ["/.dockerenv", "/run/.containerenv"].iter().any(|path| fs::exists(path).unwrap_or(false)),
        }
    }

    /// What to enable, as commands and settings, most likely cause first. Never empty.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if !self.supported {
            advice.push("this kernel has no user namespaces (CONFIG_USER_NS): run as root".to_owned());
        }
        if self.unprivileged_clone == Some(0) {
            advice.push("sudo sysctl -w kernel.unprivileged_userns_clone=1".to_owned());
        }
        if self.max_user_namespaces == Some(0) {
            advice.push("sudo sysctl -w user.max_user_namespaces=15000".to_owned());
        }
        if self.max_net_namespaces == Some(0) {
            advice.push("sudo sysctl -w user.max_net_namespaces=15000".to_owned());
        }
        if self.apparmor_restricts == Some(1) {
            advice.push(
                "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 \
                 (or an AppArmor profile for this program that grants `userns`)"
                    .to_owned(),
            );
        }
        if self.container {
            advice.push("start the container with --privileged".to_owned());
        } else if self.seccomp {
            advice.push("a seccomp filter is in force: allow unshare, clone, setns and mount in it".to_owned());
        }
        if advice.is_empty() {
            advice.push("run as root, for example with sudo".to_owned());
        }
        advice
    }
}

/// Puts into words why namespaces could not be made, and what to enable.
pub fn explain(error: &Error) -> String {
    let mut facts = Facts::read();
    let none_allowed = facts.max_user_namespaces == Some(0) || facts.max_net_namespaces == Some(0);
    if error.step == Step::Clone && error.source.raw_os_error() == Some(libc::ENOSPC) && !none_allowed {
        // A limit is there and used up, which to the user is the same setting.
        facts.max_user_namespaces = Some(0);
        facts.max_net_namespaces = Some(0);
    }
    let mut text = format!("this user may not make namespaces: {error}: {}\nenable one of these:", error.source);
    for advice in facts.advice() {
        text.push_str("\n  - ");
        text.push_str(&advice);
    }
    text
}

fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_very_setting() {
        let none = Facts { supported: true, ..Facts::default() };
        assert_eq!(none.advice(), ["run as root, for example with sudo"]);
        let debian = Facts { unprivileged_clone: Some(0), ..none.clone() };
        assert_eq!(debian.advice(), ["sudo sysctl -w kernel.unprivileged_userns_clone=1"]);
        let ubuntu = Facts { unprivileged_clone: Some(1), apparmor_restricts: Some(1), ..none.clone() };
        assert!(ubuntu.advice()[0].contains("kernel.apparmor_restrict_unprivileged_userns=0"));
        let limited = Facts { max_user_namespaces: Some(0), ..none.clone() };
        assert!(limited.advice()[0].contains("user.max_user_namespaces"));
        let docker = Facts { container: true, seccomp: true, ..none };
        assert_eq!(docker.advice(), ["start the container with --privileged"]);
    }
}
