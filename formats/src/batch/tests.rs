//! Requests as they come, and their answers.

use super::*;
use crate::{Alternative, PartFormat, RecordSource, WriteOptions};

fn job() -> BatchOptions {
    let values = [("temperature", json!(0.0)), ("n", json!(1)), ("stop", json!(["END"]))];
    let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    BatchOptions { values, max_new_tokens: Some(64) }
}

fn chat(body: &Value) -> Vec<u8> {
    let line = json!({ "custom_id": "a", "method": "POST", "url": CHAT, "body": body });
    line.to_string().into_bytes()
}

fn message_of(line: &[u8]) -> (Option<String>, String) {
    let (id, fault) = request(line, &job()).err().unwrap();
    (id, fault.message)
}

#[test]
fn the_text_is_the_last_message_of_the_user_in_either_shape() {
    let messages = json!([
        { "role": "system", "content": "Translate." },
        { "role": "user", "content": "first" },
        { "role": "user", "content": [{ "type": "text", "text": "one" }, { "type": "text", "text": "two" }] },
        { "role": "assistant", "content": "x" },
    ]);
    let found = request(&chat(&json!({ "model": "gpt-4o", "messages": messages })), &job()).ok().unwrap();
    assert_eq!((found.custom_id.as_str(), found.text.as_str()), ("a", "one\ntwo"));
    assert_eq!(found.fields["model"], "gpt-4o");
    for input in
        [json!("text"), json!([{ "role": "user", "content": [{ "type": "input_text", "text": "text" }] }])]
    {
        let line =
            json!({ "custom_id": "b", "method": "POST", "url": RESPONSES, "body": { "input": input } });
        assert_eq!(request(line.to_string().as_bytes(), &job()).ok().unwrap().text, "text");
    }
}

#[test]
fn an_option_that_is_the_jobs_own_or_says_nothing_is_taken_and_any_other_is_named() {
    let with = |key: &str, value: Value| {
        chat(&json!({ "messages": [{ "role": "user", "content": "x" }], key: value }))
    };
    for (key, value) in [
        ("temperature", json!(0)),
        ("n", json!(1)),
        ("stop", json!("END")),
        ("stream", json!(false)),
        ("tools", json!([])),
        ("user", json!("someone")),
        ("max_tokens", json!(64)),
        ("max_completion_tokens", json!(1000)),
    ] {
        assert!(request(&with(key, value), &job()).is_ok(), "{key}");
    }
    for (key, value, message) in [
        ("temperature", json!(0.7), "`body.temperature` is 0.7, but the job's is 0.0"),
        ("n", json!(2), "`body.n` is 2, but the job's is 1"),
        ("stop", json!("secret"), "`body.stop` is a string, but the job's is [\"END\"]"),
        ("stream", json!(true), "`body.stream` is true, but the job has no such option"),
        ("tools", json!([{ "type": "function" }]), "`body.tools` is a list, but the job has no such option"),
        ("max_tokens", json!(0), "`body.max_tokens` is not a number of tokens, 1 or more"),
        ("max_output_tokens", json!("5"), "`body.max_output_tokens` is not a number of tokens, 1 or more"),
    ] {
        let (id, found) = message_of(&with(key, value));
        assert!(id.as_deref() == Some("a") && found.starts_with(message), "{found}");
    }
}

#[test]
fn the_lowest_limit_of_tokens_holds_for_its_request_if_it_is_below_the_jobs() {
    let limit = |body: Value, options: &BatchOptions| {
        let mut body = body;
        body["messages"] = json!([{ "role": "user", "content": "x" }]);
        request(&chat(&body), options).ok().unwrap().max_new_tokens
    };
    let unlimited = BatchOptions { max_new_tokens: None, ..job() };
    for (body, of_job, of_unlimited) in [
        (json!({}), None, None),
        (json!({ "max_tokens": 5 }), Some(5), Some(5)),
        (json!({ "max_tokens": 9, "max_completion_tokens": 7 }), Some(7), Some(7)),
        (json!({ "max_output_tokens": 64 }), None, Some(64)),
        (json!({ "max_tokens": null }), None, None),
        (json!({ "max_tokens": u64::MAX }), None, None),
    ] {
        assert_eq!(
            (limit(body.clone(), &job()), limit(body.clone(), &unlimited)),
            (of_job, of_unlimited),
            "{body}"
        );
    }
}

#[test]
fn a_line_that_is_no_request_says_why() {
    for (line, message) in [
        ("{", "the line is no JSON object"),
        ("[]", "the line is no JSON object"),
        ("{}", "no field `custom_id`"),
        (r#"{"custom_id":7}"#, "`custom_id` is no string"),
        (r#"{"custom_id":"a","method":"GET"}"#, "`method` is not POST"),
        (r#"{"custom_id":"a"}"#, "no object `body`"),
        (r#"{"custom_id":"a","url":"/v1/embeddings","body":{}}"#, "`url` is neither"),
        (r#"{"custom_id":"a","url":"/v1/responses","body":{}}"#, "`body.input` has no user message"),
    ] {
        let (_, found) = message_of(line.as_bytes());
        assert!(found.starts_with(message), "{line}: {found}");
    }
}

#[test]
fn answers_have_the_shape_of_their_request_and_count_tokens() {
    let row = |url: &str, finish_reason| OutputRow {
        id: "a".into(),
        output: "uno".into(),
        score: -0.5,
        prompt_tokens: 7,
        llm_prompt_tokens: 0,
        output_tokens: 2,
        finish_reason,
        warnings: Vec::new(),
        quality: None,
        signals: None,
        tier: None,
        alternatives: vec![Alternative {
            output: "due".into(),
            score: -1.0,
            output_tokens: 3,
            finish_reason,
        }],
        origin: None,
        fields: Map::from_iter([("url".to_owned(), json!(url)), ("model".to_owned(), json!("m"))]).into(),
    };
    let failure = RecordFailure {
        source: RecordSource { uri: "a".into(), line: 1 },
        id: Some("b".into()),
        code: FailureCode::InvalidRow,
        message: "why".into(),
    };
    let mut bytes = Vec::new();
    let format = PartFormat::of_file("-", crate::Format::named("batch").ok()).unwrap();
    let mut writer = format.writer(Box::new(&mut bytes), &WriteOptions::default()).unwrap();
    writer.write_row(&row(CHAT, FinishReason::Stop)).unwrap();
    writer.write_row(&row(RESPONSES, FinishReason::Length)).unwrap();
    writer.write_failure(&failure).unwrap();
    writer.finish().unwrap();
    let lines: Vec<Value> = std::str::from_utf8(&bytes)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [chat, responses, failed] = &lines[..] else { panic!("{lines:?}") };

    assert_eq!((&chat["custom_id"], &chat["response"]["status_code"]), (&json!("a"), &json!(200)));
    let body = &chat["response"]["body"];
    assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("m")));
    assert_eq!(body["choices"][0]["message"]["content"], "uno");
    assert_eq!(
        (&body["choices"][1]["index"], &body["choices"][1]["finish_reason"]),
        (&json!(1), &json!("stop"))
    );
    assert_eq!(body["usage"], json!({ "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12 }));

    let body = &responses["response"]["body"];
    assert_eq!((&body["object"], &body["status"]), (&json!("response"), &json!("incomplete")));
    assert_eq!(body["output"][0]["content"][0]["text"], "uno");
    assert_eq!(body["usage"]["output_tokens"], 5);

    assert_eq!((&failed["custom_id"], &failed["response"]), (&json!("b"), &Value::Null));
    assert_eq!(failed["error"], json!({ "code": "invalid_row", "message": "why" }));
}
