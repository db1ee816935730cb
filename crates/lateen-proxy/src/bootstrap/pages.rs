//! The program's own pages that nothing needs at present go back to the kernel.
//!
//! Whatever was run or read of the program's file stays mapped into the process, with up to 64 KB around each place, though
//! reading a configuration, say, happens once, and an idle proxy does nothing. These pages are copies of a file that nobody writes: the kernel may have them
//! back at any time, and maps them again, without reading the disk as long as it still has them, where the program goes next.
//!
//! What that saves is what counts as this process's memory (its resident set, and what a limit on it is held against). The
//! file's pages in the kernel's cache are shared by all proxies of a machine, and are free to be dropped either way.
#![expect(
    unsafe_code,
    reason = "dl_iterate_phdr(3), madvise(2) and clock_gettime(2) have no safe wrapper among what is used here"
)]

use std::ffi::c_void;
use std::time::Duration;

/// Gives back the pages of all code and constants, the libraries' too. Threads that run meanwhile fetch theirs again.
pub(super) fn give_back() {
    // SAFETY: the callback has the signature that is asked for, and is given nothing of ours.
    unsafe { libc::dl_iterate_phdr(Some(give_back_object), std::ptr::null_mut()) };
}

/// What this process has used of processors.
pub(super) fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes. The clock is there on every Linux; were it not, no time would pass.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A page may be larger than that on few machines; there, what is not aligned is refused by the kernel, and stays.
const PAGE: usize = 4096;

/// Gives back the segments of one loaded file that were never writable. Those that the loader relocates are, until it has
/// done so: their pages are not the file's any more.
///
/// # Safety
/// `object` is as `dl_iterate_phdr` gives it.
unsafe extern "C" fn give_back_object(object: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> libc::c_int {
    // SAFETY: it points to a description that lives as long as this call.
    let object = unsafe { &*object };
    // SAFETY: the loader says where the file's headers are, and how many.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        let begin = (object.dlpi_addr + header.p_vaddr) as usize;
        let (first, end) = (begin.next_multiple_of(PAGE), (begin + header.p_filesz as usize) / PAGE * PAGE);
        if first < end {
            // SAFETY: a private mapping of a file without a page that differs from the file's: the next access finds the same
            // bytes again. An error changes nothing.
            unsafe { libc::madvise(first as *mut c_void, end - first, libc::MADV_DONTNEED) };
        }
    }
    0
}
