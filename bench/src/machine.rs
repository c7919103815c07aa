//! The machine that a measurement ran on.

use serde::Serialize;

/// The facts about hardware and build that a reader needs to compare a number.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The CPU's name, as the kernel gives it.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Operating system and architecture.
    pub platform: String,
    /// Baton's version.
    pub baton_version: &'static str,
    /// Seconds since 1970.
    pub unix_time: u64,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn this() -> Self {
        let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu_info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            cpu: cpu.trim_start_matches(['\t', ' ', ':']).to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            baton_version: env!("CARGO_PKG_VERSION"),
            unix_time: now.map_or(0, |since| since.as_secs()),
        }
    }
}

/// This process's peak resident memory so far, bytes; `None` if the kernel does not tell.
#[must_use]
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
