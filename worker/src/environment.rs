//! The environment of the numeric libraries, which a process must settle before it does anything.

use std::os::unix::process::CommandExt;

/// Variables that libraries read when they are loaded, before `main`, and the values Baton needs. One that is
/// set stays as it is.
const VARIABLES: [(&str, &str); 7] = [
    // OpenMP threads spin while they wait, by default; where other threads want the cores, a spinning pool
    // can slow a small operation a thousandfold.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    // oneDNN and libtorch each keep up to 1024 compiled kernels, one for each number of rows they have seen;
    // packed batches have a new one nearly every time, so memory would grow for hours. These many serve all
    // layers of two models within one pass.
    ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32"),
    ("LRU_CACHE_CAPACITY", "32"),
    // glibc gives each thread a heap of its own; tensors freed by another thread than the one that made them
    // fill all of them.
    ("MALLOC_ARENA_MAX", "1"),
    // glibc gives what a large tensor had back to the system when it is freed, and the next one of the same
    // size pays for every page again, a sixth of the encoder's time. So tensors up to 256 MiB come from the
    // heap, of which up to 1 GiB is kept.
    ("MALLOC_MMAP_THRESHOLD_", "268435456"),
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
    ("MALLOC_TOP_PAD_", "67108864"),
];

/// Sets the variables that the numeric libraries read when they are loaded: the process replaces itself by
/// one that has them. To be called first in `main`.
pub fn settle_libraries() {
    let missing: Vec<_> =
        VARIABLES.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let Ok(executable) = std::env::current_exe() else { return };
    let error = std::process::Command::new(executable).args(std::env::args_os().skip(1)).envs(missing).exec();
    // `exec` returns only when it failed; without the variables the work is slower and larger, not wrong.
    baton_telemetry::tell!("warning: cannot set the environment of the numeric libraries ({error})");
}
