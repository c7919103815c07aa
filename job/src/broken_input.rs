//! An input that cannot be read to its end: it is damaged, or it changed while the job read it.
//!
//! Its content cannot be trusted to be complete, so such a job never has a `_SUCCESS`. The other inputs are
//! finished. Their shards begin after the records that were read from the broken input. That number is
//! recorded before anybody works on these shards, and every coordinator and every later run follows the
//! record.

use serde::{Deserialize, Serialize};

use crate::JobError;

/// Inputs that a message names; it counts the rest.
const MAX_INPUTS_NAMED: usize = 5;

/// The record of a broken input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenInput {
    /// The file's name in the listing.
    pub uri: String,
    /// The kind of break.
    pub kind: BrokenKind,
    /// Records found in it before it broke.
    pub records_read: u64,
    /// Of these, the records in shards that had ended before: they are processed.
    pub records_kept: u64,
    /// Place and reason, in one line.
    pub reason: String,
}

/// The kinds of breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokenKind {
    /// The bytes are those of the listing, and damaged: every reader finds the break in the same place.
    Damaged,
    /// The bytes are no longer those of the listing.
    Changed,
}

impl BrokenInput {
    /// The bytes of the object.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("plain data with string keys serializes");
        bytes.push(b'\n');
        bytes
    }

    /// Reads the object that has this key.
    ///
    /// # Errors
    /// [`JobError::CorruptObject`].
    pub fn from_json(key: &str, bytes: &[u8]) -> Result<BrokenInput, JobError> {
        serde_json::from_slice(bytes).map_err(|source| JobError::CorruptObject {
            key: key.to_owned(),
            what: "record of a broken input",
            source,
        })
    }

    /// Whether two readers agree on where the following input begins.
    pub fn agrees_with(&self, other: &BrokenInput) -> bool {
        (&self.uri, self.records_read) == (&other.uri, other.records_read)
    }

    /// A sentence about the break, without its end.
    fn said(&self) -> String {
        let BrokenInput { uri, kind, records_read, records_kept, reason } = self;
        let what = match kind {
            BrokenKind::Damaged => "cannot be read to its end",
            BrokenKind::Changed => "changed while it was read",
        };
        format!("{uri} {what} ({reason}; {records_read} records read, {records_kept} of them processed)")
    }
}

/// One line about the broken inputs of a job, with what to do.
pub fn broken_inputs_said(broken: &[BrokenInput]) -> String {
    let named: Vec<String> = broken.iter().take(MAX_INPUTS_NAMED).map(BrokenInput::said).collect();
    let inputs = match broken.len().saturating_sub(MAX_INPUTS_NAMED) {
        0 => named.join("; input "),
        num_more => format!("{}; and {num_more} more", named.join("; input ")),
    };
    format!(
        "input {inputs}; the other inputs are done, but the output is not complete and has no _SUCCESS: mend \
         what is broken and run the job into a new output directory"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(uri: &str) -> BrokenInput {
        BrokenInput {
            uri: uri.into(),
            kind: BrokenKind::Damaged,
            records_read: 985,
            records_kept: 768,
            reason: "line 986: the gzip stream ends early".into(),
        }
    }

    #[test]
    fn a_broken_input_survives_its_json() {
        let input = broken("a.jsonl.gz");
        assert_eq!(BrokenInput::from_json("key", &input.to_json()).unwrap(), input);
        let error = BrokenInput::from_json("_baton/broken/000000.json", b"{").unwrap_err().to_string();
        assert!(
            error.starts_with("_baton/broken/000000.json is not a valid record of a broken input"),
            "{error}"
        );
    }

    #[test]
    fn every_broken_input_is_named_with_its_place_and_what_to_do() {
        let said =
            broken_inputs_said(&[broken("a.gz"), BrokenInput { kind: BrokenKind::Changed, ..broken("b") }]);
        for piece in [
            "input a.gz cannot be read to its end (line 986: the gzip stream ends early; 985 records read, \
             768 of",
            "; input b changed while it was read (",
            "a new output directory",
        ] {
            assert!(said.contains(piece), "{said}");
        }
        let many: Vec<BrokenInput> = (0..9).map(|number| broken(&number.to_string())).collect();
        assert!(broken_inputs_said(&many).contains("; and 4 more; the other"));
    }
}
