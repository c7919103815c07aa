//! The memory available to this process: the machine's free memory, or the rest of its container's limit.

use std::fs;

/// The place of a container's numbers, for one kind of control groups.
struct ControlGroup {
    limit: &'static str,
    usage: &'static str,
    /// Its lines have a name and a number each.
    statistics: &'static str,
    /// The line with the bytes of files that the kernel can drop.
    cached: &'static str,
}

const CONTROL_GROUPS: [ControlGroup; 2] = [
    ControlGroup {
        limit: "/sys/fs/cgroup/memory.max",
        usage: "/sys/fs/cgroup/memory.current",
        statistics: "/sys/fs/cgroup/memory.stat",
        cached: "inactive_file",
    },
    ControlGroup {
        limit: "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        usage: "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        statistics: "/sys/fs/cgroup/memory/memory.stat",
        cached: "total_inactive_file",
    },
];

/// Bytes that this process may still take without taking from others; `None` if the system does not tell.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_in(&text));
    let container = CONTROL_GROUPS.iter().find_map(ControlGroup::available);
    machine.into_iter().chain(container).min()
}

impl ControlGroup {
    /// Bytes below the limit. A file that was read, such as a bundle's weights, takes none: the kernel drops
    /// it when memory is short.
    fn available(&self) -> Option<u64> {
        let number = |path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok(); // "max" is no number
        let statistics = fs::read_to_string(self.statistics).unwrap_or_default();
        let cached = named_number(&statistics, self.cached).unwrap_or(0);
        let taken = number(self.usage)?.saturating_sub(cached);
        Some(number(self.limit)?.saturating_sub(taken))
    }
}

/// The number in the line that begins with `name` and a space.
fn named_number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
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
    fn files_in_memory_are_found_in_a_containers_statistics() {
        let text = "anon 4096\ninactive_file_other 1\ninactive_file 8192\nactive_file 3\n";
        assert_eq!(named_number(text, "inactive_file"), Some(8192));
        assert_eq!(named_number(text, "total_inactive_file"), None);
    }

    #[test]
    fn the_kernel_reports_the_available_memory() {
        let text = "MemTotal:       24601440 kB\nMemFree:  1 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(available_in(text), Some(2 << 20));
        assert_eq!(available_in("MemTotal: 1 kB\n"), None);
        assert!(available_memory().is_none_or(|bytes| bytes > 1 << 20));
    }
}
