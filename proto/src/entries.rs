//! The entries of a shard: records to process, and records that have failed already.

use baton_job::{
    FailureCode, KeptFields, LanguageChoice, Record, RecordFailure, RecordSource, Shard, ShardEntry,
};
use bytes::Bytes;

use crate::{MAX_MESSAGE_NUM_BYTES, TARGET_MESSAGE_NUM_BYTES, WireError, wire};

/// A larger record does not fit into one message with its framing, and becomes a failure.
const MAX_RECORD_NUM_BYTES: u64 = (MAX_MESSAGE_NUM_BYTES - 256 * 1024) as u64;

/// Bytes of a message's framing and of a record's source and numbers, besides the strings; a generous
/// estimate.
const ENTRY_OVERHEAD_NUM_BYTES: usize = 64;

/// An entry and its position in the shard, from 0.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexedEntry {
    /// Position among the shard's entries.
    pub index: u32,
    /// A record, or the failure in its place.
    pub entry: ShardEntry,
}

/// A shard's entries as messages below the size limit, in order. A record too large for a message of its own
/// is sent as a failure; this depends on the record alone.
pub fn entry_batches(shard: &Shard) -> impl Iterator<Item = wire::EntryBatch> + '_ {
    let mut entries = (0u32..).zip(&shard.entries).peekable();
    std::iter::from_fn(move || {
        let mut batch = wire::EntryBatch::default();
        let mut batch_num_bytes = 0;
        while let Some((index, entry)) = entries.next_if(|(_, entry)| {
            batch.entries.is_empty() || batch_num_bytes + num_bytes(entry) <= TARGET_MESSAGE_NUM_BYTES
        }) {
            batch_num_bytes += num_bytes(entry);
            batch.entries.push(encode(index, entry));
        }
        (!batch.entries.is_empty()).then_some(batch)
    })
}

fn num_bytes(entry: &ShardEntry) -> usize {
    ENTRY_OVERHEAD_NUM_BYTES
        + match entry {
            ShardEntry::Prompt(record) => record.payload_num_bytes() as usize + record.source.uri.len(),
            ShardEntry::Failed(failure) => failure.message.len() + failure.source.uri.len(),
        }
}

fn encode(index: u32, entry: &ShardEntry) -> wire::Entry {
    use wire::entry::Entry;
    let entry = match entry {
        ShardEntry::Prompt(record) if record.payload_num_bytes() > MAX_RECORD_NUM_BYTES => {
            let message = format!(
                "the record has {} bytes with its id and kept fields; at most {MAX_RECORD_NUM_BYTES} are \
                 processed",
                record.payload_num_bytes()
            );
            Entry::Failure((index, record.failure(FailureCode::TextTooLong, message)).into())
        }
        ShardEntry::Prompt(record) => {
            let (extra_fields_json, kept_columns) = encode_fields(&record.fields);
            Entry::Record(wire::Record {
                index,
                source: Some(record.source.clone().into()),
                id: record.id.clone(),
                text: record.text.clone(),
                extra_fields_json,
                kept_columns,
                max_new_tokens: record.max_new_tokens,
                languages: encode_languages(&record.languages),
                terms: record.terms.clone(),
            })
        }
        ShardEntry::Failed(failure) => Entry::Failure((index, failure.clone()).into()),
    };
    wire::Entry { entry: Some(entry) }
}

impl TryFrom<wire::Entry> for IndexedEntry {
    type Error = WireError;

    fn try_from(entry: wire::Entry) -> Result<Self, WireError> {
        match entry.entry.ok_or(WireError::MissingField { field: "Entry.entry" })? {
            wire::entry::Entry::Record(record) => {
                let entry = ShardEntry::Prompt(Record {
                    index_in_shard: record.index,
                    id: record.id,
                    source: decode_source(record.source, "Record.source")?,
                    text: record.text,
                    fields: decode_fields(
                        &record.extra_fields_json,
                        record.kept_columns,
                        "Record.extra_fields_json",
                    )?,
                    max_new_tokens: record.max_new_tokens,
                    languages: decode_languages(record.languages),
                    terms: record.terms,
                });
                Ok(IndexedEntry { index: record.index, entry })
            }
            wire::entry::Entry::Failure(failure) => {
                let (index, failure) = failure.try_into()?;
                Ok(IndexedEntry { index, entry: ShardEntry::Failed(failure) })
            }
        }
    }
}

impl From<(u32, RecordFailure)> for wire::RecordFailure {
    /// A failure and its position in the shard.
    fn from((index, failure): (u32, RecordFailure)) -> Self {
        wire::RecordFailure {
            index,
            source: Some(failure.source.into()),
            id: failure.id,
            code: failure.code.as_str().to_owned(),
            message: failure.message,
        }
    }
}

impl TryFrom<wire::RecordFailure> for (u32, RecordFailure) {
    type Error = WireError;

    fn try_from(failure: wire::RecordFailure) -> Result<Self, WireError> {
        let code = failure.code.parse().map_err(|error| WireError::invalid("RecordFailure.code", &error))?;
        let source = decode_source(failure.source, "RecordFailure.source")?;
        Ok((failure.index, RecordFailure { source, id: failure.id, code, message: failure.message }))
    }
}

impl From<RecordSource> for wire::RecordSource {
    fn from(source: RecordSource) -> Self {
        wire::RecordSource { uri: source.uri, line: source.line }
    }
}

pub(crate) fn decode_source(
    source: Option<wire::RecordSource>,
    field: &'static str,
) -> Result<RecordSource, WireError> {
    let source = source.ok_or(WireError::MissingField { field })?;
    Ok(RecordSource { uri: source.uri, line: source.line })
}

/// Absent if the record names no language, which is the common case.
pub(crate) fn encode_languages(languages: &LanguageChoice) -> Option<wire::Languages> {
    let LanguageChoice { source, target } = languages;
    (!languages.is_empty()).then(|| wire::Languages { source: source.clone(), target: target.clone() })
}

pub(crate) fn decode_languages(languages: Option<wire::Languages>) -> LanguageChoice {
    let wire::Languages { source, target } = languages.unwrap_or_default();
    LanguageChoice { source, target }
}

/// A JSON object in UTF-8, or a row of columns; empty without fields, which is the common case.
pub(crate) fn encode_fields(fields: &KeptFields) -> (Bytes, Bytes) {
    match fields {
        KeptFields::Columns(row) => (Bytes::new(), row.clone()),
        KeptFields::Json(object) if object.is_empty() => (Bytes::new(), Bytes::new()),
        KeptFields::Json(object) => {
            (serde_json::to_vec(object).expect("a JSON object serializes").into(), Bytes::new())
        }
    }
}

pub(crate) fn decode_fields(
    json: &[u8],
    columns: Bytes,
    field: &'static str,
) -> Result<KeptFields, WireError> {
    match (json.is_empty(), columns.is_empty()) {
        (true, true) => Ok(KeptFields::default()),
        (_, false) => Ok(KeptFields::Columns(columns)),
        (false, true) => serde_json::from_slice(json).map_err(|error| WireError::invalid(field, &error)),
    }
}

#[cfg(test)]
mod tests {
    use baton_job::ShardIndex;
    use prost::Message;
    use serde_json::{Map, Value};

    use super::*;

    fn source(line: u64) -> RecordSource {
        RecordSource { uri: "corpus.jsonl".into(), line }
    }

    fn record(index: u32, text: String) -> ShardEntry {
        let fields = match index % 2 {
            0 => KeptFields::Json(Map::from_iter([("lang".to_owned(), Value::from("en"))])),
            _ => KeptFields::Columns(Bytes::from_static(b"a row")),
        };
        let max_new_tokens = (index == 2).then_some(7);
        let terms = vec!["disk=disco".to_owned()];
        let record = Record::new(index, format!("r{index}"), source(u64::from(index) + 1), text);
        let target = (index == 4).then(|| "it".to_owned());
        let languages = LanguageChoice { target, ..LanguageChoice::default() };
        ShardEntry::Prompt(Record { fields, max_new_tokens, languages, terms, ..record })
    }

    fn decoded(batches: Vec<wire::EntryBatch>) -> Vec<IndexedEntry> {
        batches.into_iter().flat_map(|batch| batch.entries).map(|entry| entry.try_into().unwrap()).collect()
    }

    #[test]
    fn entries_survive_the_wire_in_messages_under_the_limit() {
        let failure = RecordFailure {
            source: source(2),
            id: None,
            code: FailureCode::InvalidJson,
            message: "column 4: expected a string".into(),
        };
        let mut entries = vec![record(0, "one".into()), ShardEntry::Failed(failure)];
        entries.extend((2..10).map(|index| record(index, "x".repeat(400 * 1024))));
        let shard = Shard { index: ShardIndex(3), first_entry: 0, entries };

        let batches: Vec<_> = entry_batches(&shard).collect();
        assert!(batches.len() > 3, "{}", batches.len());
        assert!(batches.iter().all(|batch| batch.encoded_len() < MAX_MESSAGE_NUM_BYTES));
        let entries: Vec<_> = decoded(batches).into_iter().map(|indexed| indexed.entry).collect();
        assert_eq!(entries, shard.entries);
    }

    #[test]
    fn a_record_larger_than_a_message_becomes_a_failure() {
        let shard = Shard {
            index: ShardIndex(0),
            first_entry: 0,
            entries: vec![record(0, "x".repeat(5 << 20)), record(1, "y".into())],
        };
        let entries = decoded(entry_batches(&shard).collect());
        let ShardEntry::Failed(failure) = &entries[0].entry else { panic!("expected a failure") };
        assert_eq!((failure.code, failure.id.as_deref()), (FailureCode::TextTooLong, Some("r0")));
        assert_eq!(entries[1].entry, shard.entries[1]);
    }

    #[test]
    fn an_entry_that_breaks_the_contract_is_refused_by_field() {
        let failure =
            wire::RecordFailure { source: Some(source(1).into()), code: "oops".into(), ..Default::default() };
        let error = <(u32, RecordFailure)>::try_from(failure).unwrap_err().to_string();
        assert!(error.contains("RecordFailure.code") && error.contains("oops"), "{error}");
        let missing = WireError::MissingField { field: "Entry.entry" };
        assert_eq!(IndexedEntry::try_from(wire::Entry { entry: None }), Err(missing));
    }
}
