//! Names and identifiers that should pass unchanged from source to output.
//!
//! A word counts as a name if source and reference spell it alike. It must have a letter and, beyond its
//! first character, a capital, a digit or a sign such as a hyphen. The reference decides: "Client" at the
//! start of an English sentence is no name, because no Italian reference has it.

use std::{collections::HashMap, ops::AddAssign};

use crate::text::python_words;

/// The number of names to copy, and of names copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct CopiedNames {
    /// Occurrences in source and reference.
    pub expected: u64,
    /// Those that the output has.
    pub copied: u64,
}

impl CopiedNames {
    /// The share that was copied, 0 to 1; 1 if there was nothing to copy.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.expected == 0 { 1.0 } else { self.copied as f64 / self.expected as f64 }
    }
}

impl AddAssign for CopiedNames {
    fn add_assign(&mut self, other: Self) {
        self.expected += other.expected;
        self.copied += other.copied;
    }
}

/// Counts the names of one record.
#[must_use]
pub fn copied_names(source: &str, output: &str, reference: &str) -> CopiedNames {
    let (source, output, reference) = (names(source), names(output), names(reference));
    let mut counts = CopiedNames::default();
    for (name, &in_source) in &source {
        let expected = in_source.min(reference.get(name).copied().unwrap_or(0));
        counts.expected += expected;
        counts.copied += expected.min(output.get(name).copied().unwrap_or(0));
    }
    counts
}

fn names(text: &str) -> HashMap<&str, u64> {
    let mut counts = HashMap::new();
    for word in python_words(text) {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        let has = |test: fn(char) -> bool| word.chars().any(test);
        let is_unusual = has(char::is_uppercase) || has(char::is_numeric) || has(is_inner_sign);
        if has(char::is_alphabetic) && is_unusual {
            *counts.entry(word).or_default() += 1;
        }
    }
    counts
}

/// Signs that join the parts of package names, paths, addresses and versions. Not the apostrophe, which joins
/// words in Italian.
fn is_inner_sign(c: char) -> bool {
    "-_./+:@#".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_reference_keeps_are_counted_and_others_are_not() {
        let counts = copied_names(
            "The plugin xfce4-panel uses Python, GTK+ and the gst-launch tool.",
            "Il plugin xfce4-panel usa Python e lo strumento gst-launin.",
            "Il plugin xfce4-panel usa Python, GTK+ e lo strumento gst-launch.",
        );
        assert_eq!(counts, CopiedNames { expected: 4, copied: 2 });
    }

    #[test]
    fn a_name_counts_as_often_as_it_should_be_there() {
        let counts = copied_names("GNU and GNU", "GNU GNU GNU", "GNU");
        assert_eq!(counts, CopiedNames { expected: 1, copied: 1 });
    }

    #[test]
    fn nothing_is_missing_without_names_to_copy() {
        assert_eq!(copied_names("small tool", "", "piccolo strumento").share(), 1.0);
    }
}
