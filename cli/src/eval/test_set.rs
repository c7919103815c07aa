//! The test set: texts and their references.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, bail};
use baton_formats::RowFile;
use baton_metrics::EvaluatedRecord;
use serde_json::Value;

/// One record of a test set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestRecord {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) reference: String,
}

/// All records of a test set, in the order of the file.
#[derive(Debug)]
pub(crate) struct TestSet {
    pub(crate) records: Vec<TestRecord>,
}

impl TestSet {
    /// Its records with the results of `output_of`.
    pub(crate) fn evaluated<'a>(
        &'a self,
        output_of: impl Fn(&'a TestRecord) -> Option<&'a str>,
    ) -> Vec<EvaluatedRecord<'a>> {
        let evaluated = |record: &'a TestRecord| EvaluatedRecord {
            source: &record.source,
            reference: &record.reference,
            output: output_of(record),
        };
        self.records.iter().map(evaluated).collect()
    }

    /// Reads a file of any format whose rows have fields; a file whose name tells no format is JSONL.
    ///
    /// # Errors
    /// The file cannot be read, has no records, or a line is broken, lacks a field or repeats an id.
    pub(crate) fn read(
        path: &Path,
        id_field: &str,
        source_field: &str,
        target_field: &str,
    ) -> anyhow::Result<TestSet> {
        let mut ids = HashSet::new();
        let mut records = Vec::new();
        for_each_row(path, |row| {
            let record = TestRecord {
                id: text_of(row, id_field)?,
                source: text_of(row, source_field)?,
                reference: text_of(row, target_field)?,
            };
            if !ids.insert(record.id.clone()) {
                bail!("{id_field} {:?} appears twice", record.id);
            }
            records.push(record);
            Ok(())
        })?;
        if records.is_empty() {
            bail!("{} has no records", path.display());
        }
        Ok(TestSet { records })
    }
}

/// Calls `visit` with each row as JSON; its errors, and those of reading, name file and line.
pub(crate) fn for_each_row(
    path: &Path,
    mut visit: impl FnMut(&Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for row in RowFile::open(path)? {
        let (line, fields) = row?;
        visit(&Value::Object(fields)).with_context(|| format!("{}:{line}", path.display()))?;
    }
    Ok(())
}

/// A field's text; numbers serve as ids too.
pub(crate) fn text_of(row: &Value, field: &str) -> anyhow::Result<String> {
    match row.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => bail!("field `{field}` is not a text"),
        None => {
            bail!("there is no field `{field}`; name it with --id-field, --source-field or --target-field")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<TestSet> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        TestSet::read(file.path(), "id", "source", "target")
    }

    #[test]
    fn records_are_read_in_order_and_numbers_are_ids() {
        let set = read("{\"id\":7,\"source\":\"a\",\"target\":\"b\"}\n\n{\"id\":\"x\",\"source\":\"\",\"target\":\"c\"}\n").unwrap();
        let ids: Vec<&str> = set.records.iter().map(|record| record.id.as_str()).collect();
        assert_eq!(ids, ["7", "x"]);
    }

    #[test]
    fn a_broken_line_is_named() {
        for (text, piece) in [
            (
                "{\"id\":\"a\",\"source\":\"s\",\"target\":\"t\"}\n{\"id\":\"b\",\"source\":\"s\"}\n",
                ":2: there is no field `target`",
            ),
            ("{\n", ":1: "),
            ("{\"id\":\"a\",\"source\":[],\"target\":\"t\"}", "field `source` is not a text"),
            (
                "{\"id\":\"a\",\"source\":\"s\",\"target\":\"t\"}\n{\"id\":\"a\",\"source\":\"s\",\"target\":\"t\"}",
                "appears twice",
            ),
            ("", "has no records"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(piece), "{error}");
        }
    }
}
