//! The live status of a job over HTTP: `/`, a page for people, and `/status.json`, which it shows.

use baton_job::{Role, WorkerState};
use baton_telemetry::axum::Router;
use baton_telemetry::axum::extract::State;
use baton_telemetry::axum::http::header;
use baton_telemetry::axum::response::{Html, IntoResponse};
use baton_telemetry::axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{JobStatus, PreparedJob, WorkerStatus, pages};

/// The page's title, in any state of the job.
#[derive(Debug, Clone)]
pub struct JobTitle {
    output: String,
    partition: String,
    bundle_digest: String,
}

impl JobTitle {
    /// The title of `job`.
    #[must_use]
    pub fn of(job: &PreparedJob) -> Self {
        JobTitle {
            output: job.spec.output.clone(),
            partition: job.partition.to_string(),
            bundle_digest: job.record.bundle_digest.clone(),
        }
    }
}

/// The pages of a job. Until it is prepared there is no title, and `/status.json` says so.
pub fn routes(title: watch::Receiver<Option<JobTitle>>, status: watch::Receiver<JobStatus>) -> Router {
    Router::new()
        .route("/", get(|| async { Html(pages::status()) }))
        .route("/status.json", get(show_status).with_state((title, status)))
}

type Shown = (watch::Receiver<Option<JobTitle>>, watch::Receiver<JobStatus>);

async fn show_status(State((title, status)): State<Shown>) -> impl IntoResponse {
    let json = to_json(title.borrow().as_ref(), &status.borrow());
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], json.to_string())
}

fn to_json(title: Option<&JobTitle>, status: &JobStatus) -> Value {
    let JobStatus { progress, shards, .. } = status;
    let Some(title) = title else { return json!({ "state": "preparing" }) };
    json!({
        "state": if status.is_draining { "draining" } else { "running" },
        "output": title.output,
        "partition": title.partition,
        "bundle_digest": title.bundle_digest,
        "obstacle": status.obstacle,
        "elapsed_seconds": status.elapsed.as_secs_f64(),
        "seconds_left": status.time_left().map(|left| left.as_secs_f64()),
        "records": {
            "done": progress.done_records(),
            "expected": progress.expected_records(),
            "expected_is_exact": progress.input_is_read,
            "succeeded": progress.committed.outputs,
            "failed": progress.committed.errors,
            "resumed": progress.resumed.records,
            "per_second": status.records_per_second,
        },
        "warnings": progress.committed.warnings,
        "tiers": progress.committed.tiers,
        "history": status.history.samples(),
        "reuse": status.reuse,
        "output_tokens": {
            "done": progress.done_output_tokens(),
            "per_second": status.output_tokens_per_second,
        },
        "shards": {
            "committed": progress.committed.shards,
            "in_flight": shards.in_flight,
            "waiting": shards.waiting,
            "searched": shards.searched,
        },
        "workers": status.workers.iter().map(worker_json).collect::<Vec<_>>(),
    })
}

fn worker_json(worker: &WorkerStatus) -> Value {
    let view = &worker.view;
    let role = match view.id.role {
        Role::Encoder => "encoder",
        Role::Decoder => "decoder",
    };
    let state = match view.state {
        WorkerState::Ready => "ready",
        WorkerState::OnTrial => "on trial",
        WorkerState::Busy => "busy",
        WorkerState::Resting => "resting",
        WorkerState::Refusing => "refusing",
        WorkerState::Left => "left",
    };
    json!({
        "role": role,
        "endpoint": view.endpoint,
        "state": state,
        "shards": view.num_shards,
        "outstanding_bytes": view.outstanding_num_bytes,
        "failures": view.failures,
        "last_failure": worker.last_failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_has_all_fields_of_the_page() {
        assert_eq!(to_json(None, &JobStatus::default())["state"], "preparing");
        let title = JobTitle { output: "out".into(), partition: "0/1".into(), bundle_digest: "d".into() };
        let json = to_json(Some(&title), &JobStatus::default());
        assert_eq!((&json["state"], &json["shards"]["waiting"]), (&json!("running"), &json!(0)));
        assert_eq!(json["seconds_left"], Value::Null, "nothing is known yet");
    }
}
