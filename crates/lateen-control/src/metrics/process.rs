//! What the process uses, under the names that Prometheus' own libraries have for it.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// The kernel's unit of times in `/proc` (`USER_HZ`, proc(5)).
const TICKS: f64 = 100.0;

/// What cannot be read is left out.
pub(super) fn append(page: &mut String, started: SystemTime) {
    let mut write = |name: &str, kind: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a String does not fail.
            let _ = writeln!(page, "# TYPE {name} {kind}\n{name} {value}");
        }
    };
    write("process_cpu_seconds_total", "counter", cpu());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    write("process_resident_memory_bytes", "gauge", bytes(&status, "VmRSS:"));
    write("process_virtual_memory_bytes", "gauge", bytes(&status, "VmSize:"));
    let files = std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    write("process_open_fds", "gauge", files.and_then(|files| Some(u32::try_from(files).ok()?.into())));
    let since = started.duration_since(UNIX_EPOCH).ok();
    write("process_start_time_seconds", "gauge", since.map(|since| since.as_secs_f64()));
}

/// Of all threads, for the program and in the kernel.
fn cpu() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name is in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut ticks = rest.split(' ').skip(11).map_while(|text| text.parse::<f64>().ok());
    Some((ticks.next()? + ticks.next()?) / TICKS)
}

/// `VmRSS:      1234 kB`.
fn bytes(status: &str, name: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(rest.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_what_it_uses() {
        let mut page = String::new();
        append(&mut page, SystemTime::now());
        let value = |name: &str| -> f64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {page}"))
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
