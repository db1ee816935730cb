//! Starting a program in new namespaces: what `fork` and `exec` do, with the steps between that namespaces need.
//!
//! The standard library's `Command` cannot make the child the first process of a pid namespace. Here the child is made
//! by `clone` and runs nothing but system calls until it becomes the program.

#![expect(unsafe_code, reason = "clone, and what may run between it and exec")]

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::sched::CloneFlags;
use nix::unistd::Pid;

/// Descriptors prepared for a child are kept at and above this number, so that putting one in place overwrites none.
const STAGING: RawFd = 256;

/// A program to start.
#[derive(Debug)]
pub struct Spawn<'a> {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    namespaces: CloneFlags,
    network: Option<BorrowedFd<'a>>,
    descriptors: Vec<(BorrowedFd<'a>, RawFd)>,
    dies_with_parent: bool,
    own_session: bool,
    controlling_terminal: bool,
}

/// Which step of starting failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Making the process and its namespaces.
    Clone,
    /// Becoming root in the new user namespace.
    MapUser,
    /// Entering a network namespace.
    EnterNetwork,
    /// Putting descriptors in place.
    Descriptors,
    /// Taking over the terminal.
    Terminal,
    /// Becoming the program.
    Exec,
}

impl Step {
    const ALL: [Self; 6] =
        [Self::Clone, Self::MapUser, Self::EnterNetwork, Self::Descriptors, Self::Terminal, Self::Exec];
}

impl std::fmt::Display for Step {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Clone => "make the process and its namespaces",
            Self::MapUser => "become root in the new user namespace",
            Self::EnterNetwork => "enter the network namespace",
            Self::Descriptors => "hand over open files",
            Self::Terminal => "take over the terminal",
            Self::Exec => "run the program",
        })
    }
}

/// A program could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub struct Error {
    pub step: Step,
    #[source]
    pub source: io::Error,
}

impl<'a> Spawn<'a> {
    /// A program by its path. Strings must not contain NUL bytes.
    pub fn new(program: &Path, arguments: &[OsString], environment: &[(OsString, OsString)]) -> io::Result<Self> {
        let whole = std::iter::once(program.as_os_str()).chain(arguments.iter().map(OsString::as_os_str));
        let arguments = whole.map(c_string).collect::<io::Result<_>>()?;
        let pair = |(name, value): &(OsString, OsString)| {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            c_string(&pair)
        };
        Ok(Self {
            program: c_string(program.as_os_str())?,
            arguments,
            environment: environment.iter().map(pair).collect::<io::Result<_>>()?,
            namespaces: CloneFlags::empty(),
            network: None,
            descriptors: Vec::new(),
            dies_with_parent: false,
            own_session: false,
            controlling_terminal: false,
        })
    }

    /// Makes these namespaces for the child. In a new user namespace it is root, and outside of it who the caller is.
    #[must_use]
    pub fn namespaces(mut self, flags: CloneFlags) -> Self {
        self.namespaces = flags;
        self
    }

    /// Starts the child in this network namespace.
    #[must_use]
    pub fn in_network(mut self, namespace: BorrowedFd<'a>) -> Self {
        self.network = Some(namespace);
        self
    }

    /// Gives the child an open file under a number below 256. Nothing else is inherited but what is not close-on-exec.
    #[must_use]
    pub fn descriptor(mut self, open: BorrowedFd<'a>, number: RawFd) -> Self {
        self.descriptors.push((open, number));
        self
    }

    /// Kills the child when the thread that starts it ends.
    #[must_use]
    pub fn dies_with_parent(mut self) -> Self {
        self.dies_with_parent = true;
        self
    }

    /// Makes the child the leader of a session, away from the caller's terminal.
    #[must_use]
    pub fn own_session(mut self) -> Self {
        self.own_session = true;
        self
    }

    /// Gives the program another name for itself than its path (`argv[0]`).
    pub fn called(mut self, name: &OsStr) -> io::Result<Self> {
        self.arguments[0] = c_string(name)?;
        Ok(self)
    }

    /// Makes the child's standard input, a terminal, the one that controls its session; with `own_session`.
    #[must_use]
    pub fn controlling_terminal(mut self) -> Self {
        self.controlling_terminal = true;
        self
    }

    /// Starts the program. The caller has to wait for the process.
    pub fn start(&self) -> Result<Pid, Error> {
        let at = |step: Step| move |source: nix::Error| Error { step, source: source.into() };
        let (reader, writer) = error_pipe().map_err(at(Step::Descriptors))?;
        let mut staged_descriptors = Vec::with_capacity(self.descriptors.len());
        for (open, number) in &self.descriptors {
            staged_descriptors.push((staged(open).map_err(at(Step::Descriptors))?, *number));
        }
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let plan = Plan {
            program: self.program.as_ptr(),
            arguments: pointers(&self.arguments),
            environment: pointers(&self.environment),
            uid_map: format!("0 {uid} 1\n").into_bytes(),
            gid_map: format!("0 {gid} 1\n").into_bytes(),
            new_user: self.namespaces.contains(CloneFlags::CLONE_NEWUSER),
            network: self.network.map(|fd| fd.as_raw_fd()),
            descriptors: staged_descriptors.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect(),
            dies_with_parent: self.dies_with_parent,
            own_session: self.own_session,
            controlling_terminal: self.controlling_terminal,
            errors: writer.as_raw_fd(),
        };
        let flags = i64::from(self.namespaces.bits()) | i64::from(libc::SIGCHLD);
        // SAFETY: without CLONE_VM the child has its own copy of the memory. It calls nothing but `Plan::run`, which makes
        // only system calls on memory prepared above and does not return.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 {
            plan.run();
        }
        drop(writer);
        if pid < 0 {
            return Err(Error { step: Step::Clone, source: io::Error::last_os_error() });
        }
        let pid = Pid::from_raw(pid as i32);
        let mut report = Vec::new();
        let _ = std::fs::File::from(reader).read_to_end(&mut report);
        let (Some(step), Some(code)) = (report.first(), report.get(1..5)) else { return Ok(pid) };
        let _ = nix::sys::wait::waitpid(pid, None);
        let code = i32::from_ne_bytes(code.try_into().expect("four bytes were taken"));
        let step = Step::ALL.get(usize::from(*step)).copied().unwrap_or(Step::Exec);
        Err(Error { step, source: io::Error::from_raw_os_error(code) })
    }
}

/// What the child does, laid out beforehand so that it need not allocate.
struct Plan {
    program: *const libc::c_char,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    uid_map: Vec<u8>,
    gid_map: Vec<u8>,
    new_user: bool,
    network: Option<RawFd>,
    descriptors: Vec<(RawFd, RawFd)>,
    dies_with_parent: bool,
    own_session: bool,
    controlling_terminal: bool,
    errors: RawFd,
}

impl Plan {
    fn run(&self) -> ! {
        let step = self.steps();
        // SAFETY: plain system calls on memory of ours; `_exit` runs no handlers of the process that was copied.
        unsafe {
            let code = *libc::__errno_location();
            let mut report = [0; 5];
            report[0] = step as u8;
            report[1..5].copy_from_slice(&code.to_ne_bytes());
            libc::write(self.errors, report.as_ptr().cast(), report.len());
            libc::_exit(127)
        }
    }

    /// Returns only at the step that failed, with `errno` set.
    fn steps(&self) -> Step {
        // SAFETY: only system calls (async-signal-safe functions) on memory that was prepared before the clone, and
        // pointers into strings that live as long as the caller of `start`.
        unsafe {
            let mut nothing: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut nothing);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const nothing, std::ptr::null_mut());
            // What the caller ignores stays ignored across exec, and a shell cannot trap it. It refuses SIGKILL and SIGSTOP.
            for signal in 1..=libc::SIGRTMAX() {
                libc::signal(signal, libc::SIG_DFL);
            }
            if self.new_user && !self.map_user() {
                return Step::MapUser;
            }
            if self.dies_with_parent && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Step::Clone;
            }
            if self.own_session && libc::setsid() < 0 {
                return Step::Clone;
            }
            if let Some(network) = self.network
                && libc::setns(network, libc::CLONE_NEWNET) != 0
            {
                return Step::EnterNetwork;
            }
            for (open, number) in &self.descriptors {
                if libc::dup2(*open, *number) < 0 {
                    return Step::Descriptors;
                }
            }
            if self.controlling_terminal && libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) != 0 {
                return Step::Terminal;
            }
            libc::execve(self.program, self.arguments.as_ptr(), self.environment.as_ptr());
        }
        Step::Exec
    }

    /// Maps root inside to the caller outside. Giving up `setgroups` is the kernel's condition for an ordinary user.
    ///
    /// # Safety
    /// Makes only system calls; may run between `clone` and `exec`.
    unsafe fn map_user(&self) -> bool {
        let files: [(&std::ffi::CStr, &[u8]); 3] = [
            (c"/proc/self/setgroups", b"deny"),
            (c"/proc/self/uid_map", &self.uid_map),
            (c"/proc/self/gid_map", &self.gid_map),
        ];
        for (path, content) in files {
            // SAFETY: the path ends with a NUL, the content is a live slice.
            let written = unsafe {
                let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                file >= 0 && libc::write(file, content.as_ptr().cast(), content.len()) == content.len() as isize
            };
            if !written {
                return false;
            }
        }
        true
    }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} has a NUL")))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Closed by a successful exec; carries the step and `errno` of a failure.
fn error_pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((reader, staged(&writer)?))
}

fn staged(open: &impl std::os::fd::AsFd) -> nix::Result<OwnedFd> {
    let number = nix::fcntl::fcntl(open, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(STAGING))?;
    // SAFETY: `fcntl` has just made this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
