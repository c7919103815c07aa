//! Whether a process can take work.

use std::borrow::Cow;

/// Whether work may be sent to this process. Liveness is another question, which does not depend on peers and
/// load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Send work.
    Ready,
    /// Send none, for this reason, such as `loading models` or `draining`.
    NotReady(Cow<'static, str>),
}

impl Readiness {
    /// Not ready, for `reason`.
    #[must_use]
    pub fn not_ready(reason: &'static str) -> Self {
        Self::NotReady(Cow::Borrowed(reason))
    }

    /// Whether work may be sent.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}
