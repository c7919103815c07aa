//! The modes of a job: which models read, and which write.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::JobError;

/// The modes: which models take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The large model reads, the small model writes.
    #[default]
    Hybrid,
    /// The small model alone.
    Slm,
    /// The large model alone.
    Llm,
    /// The large model writes. As in `Hybrid`, the small model drafts, and the large one checks several
    /// tokens at a time.
    Verified,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 4] = [Mode::Hybrid, Mode::Slm, Mode::Llm, Mode::Verified];

    /// Whether the large model writes; otherwise the small one does.
    pub fn llm_writes(self) -> bool {
        matches!(self, Mode::Llm | Mode::Verified)
    }

    /// Whether the small model takes part, which reads prompt states.
    pub fn uses_slm(self) -> bool {
        self != Mode::Llm
    }

    /// Whether the large model reads prompts for the small one.
    pub fn reads_llm(self) -> bool {
        matches!(self, Mode::Hybrid | Mode::Verified)
    }

    /// The modes of jobs that a process for this mode serves, because it has loaded everything that they
    /// need. This mode is the first.
    pub fn served(self) -> &'static [Mode] {
        match self {
            Mode::Hybrid => &[Mode::Hybrid, Mode::Slm],
            Mode::Slm => &[Mode::Slm],
            Mode::Llm => &[Mode::Llm],
            Mode::Verified => &[Mode::Verified],
        }
    }

    /// The modes of processes that together serve jobs of all `modes`, in the order of [`Mode::ALL`].
    pub fn of_processes(modes: &[Mode]) -> Vec<Mode> {
        let is_served_by_another =
            |mode: Mode| modes.iter().any(|&other| other != mode && other.served().contains(&mode));
        let needed = |mode: &Mode| modes.contains(mode) && !is_served_by_another(*mode);
        Mode::ALL.into_iter().filter(needed).collect()
    }

    /// The name in job files and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Hybrid => "hybrid",
            Mode::Slm => "slm",
            Mode::Llm => "llm",
            Mode::Verified => "verified",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = JobError;

    fn from_str(name: &str) -> Result<Mode, JobError> {
        Mode::ALL.into_iter().find(|mode| mode.as_str() == name).ok_or_else(|| JobError::SpecValue {
            field: "mode",
            value: format!("{name:?}"),
            allowed: Mode::ALL.map(Mode::as_str).join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_for_hybrid_serves_the_small_model_too() {
        assert_eq!(Mode::of_processes(&[Mode::Slm, Mode::Hybrid, Mode::Llm]), [Mode::Hybrid, Mode::Llm]);
        assert_eq!(Mode::of_processes(&[Mode::Slm, Mode::Llm]), [Mode::Slm, Mode::Llm]);
        assert_eq!(Mode::of_processes(&[Mode::Hybrid, Mode::Hybrid]), [Mode::Hybrid]);
    }
}
