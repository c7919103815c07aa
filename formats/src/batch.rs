//! Batch requests as OpenAI has them: a line is a request to `/v1/chat/completions` or `/v1/responses`, and
//! is answered in that shape.
//!
//! The text is the user's last message. `model` is ignored, because the job's bundle answers. A limit of
//! tokens holds for its request. Every other option must agree with the job, or its line fails: no request is
//! dropped unseen. Answers have no time: `created` is 0, and ids follow from `custom_id`.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::compression::Sink;
use crate::format::FormatRow;
use crate::lines::Lines;
use crate::part::{PartCodec, RowError, RowWriter};
use crate::record::FailureCode;
use crate::row::{BrokenOff, Fault, Opener, Row, RowContent, RowReader};
use crate::{FinishReason, OutputRow, RecordFailure};

pub(crate) static FORMAT: FormatRow = FormatRow {
    name: "batch",
    suffixes: &[],
    about: "batch requests as OpenAI has them, one JSON object a line; answered in the same shape",
    is_compressible: true,
    opener: Some(Opener::Text(|input, options| {
        Ok(Box::new(Requests { lines: Lines::new(input, options.max_row_bytes()) }))
    })),
    part_codec: Some(PartCodec {
        open_writer: |output, _| Ok(Box::new(AnswerWriter { output })),
        reader: None,
        is_concatenable: false,
        has_types: false,
    }),
    lone_column_hint: "",
    keeps_blank_rows: false,
    keeps_own_fields: true,
};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";

/// Keys of a body that say nothing about the output.
const WITHOUT_EFFECT: [&str; 9] = [
    "background",
    "metadata",
    "model",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
];

/// Keys that limit the number of new tokens.
const LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// The job's generation options in the terms of requests. No request may ask for an absent one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BatchOptions {
    /// By the name in a request's body.
    pub values: BTreeMap<String, Value>,
    /// The most new tokens of every record, if the job limits them.
    pub max_new_tokens: Option<u64>,
}

struct Requests {
    lines: Lines,
}

impl RowReader for Requests {
    fn next_row(&mut self) -> Result<Option<Row<'_>>, BrokenOff> {
        while let Some(fault) = self.lines.advance()? {
            if fault.is_some() || !self.lines.is_blank() {
                return Ok(Some(self.lines.row(fault, RowContent::Request)));
            }
        }
        Ok(None)
    }
}

/// A request that can be answered.
pub(crate) struct Request {
    pub(crate) custom_id: String,
    pub(crate) text: String,
    /// Maximum of new tokens, if its own limit is below the job's.
    pub(crate) max_new_tokens: Option<u32>,
    /// The fields that its answer needs: `url` and `model`.
    pub(crate) fields: Map<String, Value>,
}

/// Reads a line; with the fault comes the request's `custom_id`, if it has one.
pub(crate) fn request(line: &[u8], options: &BatchOptions) -> Result<Request, (Option<String>, Fault)> {
    let parsed: Result<Map<String, Value>, _> = serde_json::from_slice(line);
    let mut line = parsed.map_err(|error| {
        let code = if error.is_data() { FailureCode::WrongType } else { FailureCode::InvalidJson };
        (None, Fault::new(code, format!("the line is no JSON object (column {})", error.column())))
    })?;
    let custom_id = match line.get("custom_id") {
        Some(Value::String(id)) => id.clone(),
        Some(_) => return Err((None, Fault::new(FailureCode::WrongType, "`custom_id` is no string"))),
        None => return Err((None, Fault::new(FailureCode::MissingField, "no field `custom_id`"))),
    };
    let fault = |code, message: String| (Some(custom_id.clone()), Fault::new(code, message));
    if line.get("method").is_some_and(|method| method != "POST") {
        return Err(fault(FailureCode::InvalidRow, "`method` is not POST".to_owned()));
    }
    let url = line.get("url").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(Value::Object(body)) = line.remove("body") else {
        return Err(fault(FailureCode::MissingField, "no object `body`".to_owned()));
    };
    let text_key = match url.as_str() {
        CHAT => "messages",
        RESPONSES => "input",
        _ => {
            let message = format!("`url` is neither {CHAT} nor {RESPONSES}");
            return Err(fault(FailureCode::InvalidRow, message));
        }
    };
    let max_new_tokens = check_options(&body, text_key, options);
    let max_new_tokens = max_new_tokens.map_err(|message| fault(FailureCode::InvalidRow, message))?;
    let text = body.get(text_key).and_then(last_user_text);
    let text = text.ok_or_else(|| {
        fault(FailureCode::MissingField, format!("`body.{text_key}` has no user message with a text"))
    })?;
    let model = body.get("model").cloned().unwrap_or(Value::Null);
    let fields = Map::from_iter([("url".to_owned(), url.into()), ("model".to_owned(), model)]);
    Ok(Request { custom_id, text, max_new_tokens, fields })
}

/// The text of the last message whose role is `user`, or of a plain string. Parts of a message that are texts
/// are joined; other parts have none.
fn last_user_text(messages: &Value) -> Option<String> {
    let messages = match messages {
        Value::String(text) => return Some(text.clone()),
        messages => messages.as_array()?,
    };
    let last = messages.iter().rev().find(|message| message["role"] == "user")?;
    match last.get("content")? {
        Value::String(text) => Some(text.clone()),
        content => {
            let parts: Option<Vec<&str>> =
                content.as_array()?.iter().map(|part| part["text"].as_str()).collect();
            Some(parts?.join("\n"))
        }
    }
}

/// Checks that a body's options agree with the job. Returns its limit of new tokens, if that is below the
/// job's.
fn check_options(
    body: &Map<String, Value>,
    text_key: &str,
    options: &BatchOptions,
) -> Result<Option<u32>, String> {
    let mut lowest: Option<u64> = None;
    for (key, value) in body {
        let is_unset =
            value.is_null() || *value == json!(false) || *value == json!([]) || *value == json!({});
        if key == text_key || WITHOUT_EFFECT.contains(&key.as_str()) || is_unset {
            continue;
        }
        if LIMITS.contains(&key.as_str()) {
            let limit = value.as_u64().filter(|&limit| limit > 0);
            let limit = limit.ok_or_else(|| format!("`body.{key}` is not a number of tokens, 1 or more"))?;
            lowest = Some(lowest.map_or(limit, |lowest| lowest.min(limit)));
            continue;
        }
        let of_job = options.values.get(key.as_str());
        if of_job.is_some_and(|of_job| same(of_job, value)) {
            continue;
        }
        let of_job = of_job
            .map_or_else(|| "the job has no such option".to_owned(), |own| format!("the job's is {own}"));
        return Err(format!("`body.{key}` is {}, but {of_job}", abridged(value)));
    }
    let of_job = options.max_new_tokens.unwrap_or(u64::MAX);
    Ok(lowest.filter(|&limit| limit < of_job).and_then(|limit| u32::try_from(limit).ok()))
}

/// Equal as JSON, numbers by value, a lone string as a list of one.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(list), Value::String(_)) => list.len() == 1 && list[0] == *other,
        (one, other) => one == other,
    }
}

/// A number or word unchanged; anything longer by its kind, because messages quote no text.
fn abridged(value: &Value) -> String {
    match value {
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        _ => "an object".to_owned(),
    }
}

/// Writes answers, including those of failed requests.
struct AnswerWriter<'w> {
    output: Sink<'w>,
}

impl AnswerWriter<'_> {
    fn write(&mut self, custom_id: &Value, response: &Value, error: &Value) -> io::Result<()> {
        let id = format!("batch_req_{}", digest(&custom_id.to_string()));
        let line = json!({ "id": id, "custom_id": custom_id, "response": response, "error": error });
        serde_json::to_writer(&mut self.output, &line)?;
        self.output.write_all(b"\n")
    }
}

impl RowWriter for AnswerWriter<'_> {
    fn write_row(&mut self, row: &OutputRow) -> Result<(), RowError> {
        let digest = digest(&row.id);
        let is_responses = row.fields.get("url").is_some_and(|url| url == RESPONSES);
        let body = if is_responses { response(row, &digest) } else { completion(row, &digest) };
        let answer = json!({ "status_code": 200, "request_id": format!("req_{digest}"), "body": body });
        Ok(self.write(&json!(row.id), &answer, &Value::Null)?)
    }

    fn write_failure(&mut self, failure: &RecordFailure) -> Result<(), RowError> {
        let error = json!({ "code": failure.code, "message": failure.message });
        Ok(self.write(&json!(failure.id), &Value::Null, &error)?)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.output.finish()
    }
}

/// The body of an answer to `/v1/chat/completions`.
fn completion(row: &OutputRow, digest: &str) -> Value {
    let own = (&row.output, row.finish_reason);
    let others = row.alternatives.iter().map(|other| (&other.output, other.finish_reason));
    let choice = |(index, (text, finish_reason)): (usize, (&String, FinishReason))| {
        json!({
            "index": index,
            "message": { "role": "assistant", "content": text, "refusal": null },
            "logprobs": null,
            "finish_reason": finish_reason,
        })
    };
    let choices: Vec<Value> = std::iter::once(own).chain(others).enumerate().map(choice).collect();
    let (read, written) = (u64::from(row.prompt_tokens), row.total_output_tokens());
    json!({
        "id": format!("chatcmpl-{digest}"),
        "object": "chat.completion",
        "created": 0,
        "model": row.fields.get("model"),
        "choices": choices,
        "usage": { "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written },
    })
}

/// The body of an answer to `/v1/responses`.
fn response(row: &OutputRow, digest: &str) -> Value {
    let is_whole = row.finish_reason == FinishReason::Stop;
    let (status, details) = match is_whole {
        true => ("completed", Value::Null),
        false => ("incomplete", json!({ "reason": "max_output_tokens" })),
    };
    let content = json!([{ "type": "output_text", "text": row.output, "annotations": [] }]);
    let message = json!({
        "type": "message", "id": format!("msg_{digest}"), "status": status, "role": "assistant",
        "content": content,
    });
    let (read, written) = (u64::from(row.prompt_tokens), row.total_output_tokens());
    json!({
        "id": format!("resp_{digest}"),
        "object": "response",
        "created_at": 0,
        "status": status,
        "error": null,
        "incomplete_details": details,
        "model": row.fields.get("model"),
        "output": [message],
        "usage": { "input_tokens": read, "output_tokens": written, "total_tokens": read + written },
    })
}

/// Sixteen hexadecimal digits that follow from an id.
fn digest(id: &str) -> String {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests;
