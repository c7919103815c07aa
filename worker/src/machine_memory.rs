//! The memory available to this process: the machine's free memory, or the rest of its container's limit.

use std::fs;

/// Files with a container's limit and usage, for the two kinds of control groups.
const LIMIT_FILES: [(&str, &str); 2] = [
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
];

/// Bytes that this process may still take without taking from others; `None` if the system does not tell.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_in(&text));
    let number = |path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok(); // "max" is no number
    let container =
        LIMIT_FILES.iter().find_map(|(limit, taken)| Some(number(limit)?.saturating_sub(number(taken)?)));
    machine.into_iter().chain(container).min()
}

/// The bytes available by the text of `/proc/meminfo`.
fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_reports_the_available_memory() {
        let text = "MemTotal:       24601440 kB\nMemFree:  1 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(available_in(text), Some(2 << 20));
        assert_eq!(available_in("MemTotal: 1 kB\n"), None);
        assert!(available_memory().is_none_or(|bytes| bytes > 1 << 20));
    }
}
