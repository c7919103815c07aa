//! The environment of the numeric libraries, which a process must set before it does anything else.

use std::os::unix::process::CommandExt;

/// Variables that libraries read when they are loaded, before `main`, and the values that Baton needs.
/// Variables that are set already stay unchanged.
const VARIABLES: [(&str, &str); 7] = [
    // By default OpenMP threads spin while they wait. If other threads want the cores, a spinning pool can
    // slow a small operation a thousandfold.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    // oneDNN and libtorch each keep up to 1024 compiled kernels, one for each number of rows that they have
    // seen. Packed batches have a new number nearly every time, so memory would grow for hours. This many
    // serve all layers of two models within one pass.
    ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32"),
    ("LRU_CACHE_CAPACITY", "32"),
    // glibc gives each thread its own heap. Tensors that another thread frees would fill all of them.
    ("MALLOC_ARENA_MAX", "1"),
    // glibc returns a large tensor's memory to the system when the tensor is freed. The next tensor of that
    // size pays for every page again, a sixth of the encoder's time. Tensors up to 256 MiB therefore come
    // from the heap, which keeps up to 1 GiB.
    ("MALLOC_MMAP_THRESHOLD_", "268435456"),
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
    ("MALLOC_TOP_PAD_", "67108864"),
];

/// Sets the variables that the numeric libraries read when they are loaded: the process replaces itself with
/// one that has them. Call it first in `main`.
pub fn settle_libraries() {
    let missing: Vec<_> =
        VARIABLES.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let Ok(executable) = std::env::current_exe() else { return };
    let error = std::process::Command::new(executable).args(std::env::args_os().skip(1)).envs(missing).exec();
    // `exec` returns only when it has failed. Without the variables the work is slower and needs more memory,
    // but is correct.
    baton_telemetry::tell!("warning: cannot set the environment of the numeric libraries ({error})");
}
