//! Rows are written, and read back if the format holds all their content.

use serde_json::{Map, Value};

use super::*;
use crate::{FailureCode, FinishReason, KeptFields, RecordSource};

fn row(id: &str, output: &str) -> OutputRow {
    OutputRow {
        id: id.into(),
        output: output.into(),
        score: -0.5,
        prompt_tokens: 3,
        llm_prompt_tokens: 0,
        output_tokens: 2,
        finish_reason: FinishReason::Stop,
        warnings: Vec::new(),
        quality: None,
        signals: None,
        tier: None,
        alternatives: Vec::new(),
        origin: None,
        fields: KeptFields::default(),
    }
}

fn failure(id: &str) -> RecordFailure {
    RecordFailure {
        source: RecordSource { uri: "a.csv".into(), line: 3 },
        id: Some(id.into()),
        code: FailureCode::EmptyText,
        message: "the text is empty".into(),
    }
}

fn written(
    name: &str,
    options: &WriteOptions,
    rows: &[Result<OutputRow, RecordFailure>],
) -> Result<String, RowError> {
    let mut bytes = Vec::new();
    let mut writer = PartFormat::of_file(name, None).unwrap().writer(Box::new(&mut bytes), options)?;
    for row in rows {
        match row {
            Ok(row) => writer.write_row(row)?,
            Err(failure) => writer.write_failure(failure)?,
        }
    }
    writer.finish()?;
    Ok(String::from_utf8(bytes).unwrap())
}

#[test]
fn every_part_format_gives_back_its_rows_and_the_same_bytes_each_time() {
    let fields = Map::from_iter([("lang".to_owned(), Value::from("en")), ("n".to_owned(), Value::from(7))]);
    let origin = Some(RecordSource { uri: "in/a.jsonl".into(), line: 7 });
    let first = OutputRow { origin: origin.clone(), ..row("a", "uno \"due\"\n") };
    let rows = [first, OutputRow { fields: fields.into(), origin, ..row("b", "tre") }];
    for format in PartFormat::all() {
        let options = WriteOptions { has_origin: true, keep: KeepFields::AsJson, ..WriteOptions::default() };
        let part = format.part(&rows, &options).unwrap();
        assert_eq!(part, format.part(&rows, &options).unwrap(), "{format}");
        let read = format.reader(Box::new(io::Cursor::new(part))).unwrap();
        assert_eq!(read.collect::<io::Result<Vec<_>>>().unwrap(), rows, "{format}");
        assert_eq!(format.to_string().parse(), Ok(format));
    }
}

#[test]
fn an_empty_part_of_lines_has_no_bytes_and_no_rows() {
    for format in PartFormat::all().filter(|format| format.is_concatenable()) {
        let part = format.part(&[], &WriteOptions::default()).unwrap();
        assert_eq!(part, b"", "{format}");
        assert_eq!(format.reader(Box::new(io::Cursor::new(part))).unwrap().count(), 0, "{format}");
    }
}

#[test]
fn concatenated_parts_are_a_file_of_all_rows() {
    for format in PartFormat::all().filter(|format| format.is_concatenable()) {
        let parts = [row("a", "uno"), row("b", "due")]
            .map(|row| format.part([&row], &WriteOptions::default()).unwrap());
        let read = format.reader(Box::new(io::Cursor::new(parts.concat()))).unwrap();
        let ids: Vec<String> = read.map(|row| row.unwrap().id).collect();
        assert_eq!(ids, ["a", "b"], "{format}");
    }
}

#[test]
fn tables_have_a_column_for_each_kept_field_and_rows_of_errors_where_they_belong() {
    let fields = Map::from_iter([("output".to_owned(), Value::from("x")), ("n".to_owned(), Value::Null)]);
    let options = WriteOptions {
        has_errors: true,
        kept_fields: vec!["output".into(), "n".into()],
        ..WriteOptions::default()
    };
    let rows = [Ok(OutputRow { fields: fields.into(), ..row("a", "uno, \"due\"") }), Err(failure("b"))];
    assert_eq!(
        written("x.csv", &options, &rows).unwrap(),
        "id,output,score,prompt_tokens,llm_prompt_tokens,output_tokens,finish_reason,error,message,fields.output,n\n\
         a,\"uno, \"\"due\"\"\",-0.5,3,,2,stop,,,x,\nb,,,,,,,empty_text,the text is empty,,\n"
    );
}

#[test]
fn text_that_a_format_cannot_hold_is_refused_with_its_record() {
    let error = written("x.tsv", &WriteOptions::default(), &[Ok(row("a", "uno\tdue"))]).unwrap_err();
    assert!(error.to_string().starts_with("record a cannot be written in this format"), "{error}");
    assert!(written("x.txt", &WriteOptions::default(), &[Ok(row("a", "uno\ndue"))]).is_err());
    let text = written("x.txt", &WriteOptions::default(), &[Ok(row("a", "uno")), Err(failure("b"))]);
    assert_eq!(text.unwrap(), "uno\n\n");
}

#[test]
fn a_format_that_is_no_part_is_refused_with_those_that_are() {
    let error = "csv".parse::<PartFormat>().unwrap_err().to_string();
    assert!(error.contains("they have one of: jsonl, jsonl.gz, jsonl.zst"), "{error}");
}
