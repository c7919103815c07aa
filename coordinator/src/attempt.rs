//! One attempt at one shard, from the coordinator's view: a stream to an encoder that ends with a receipt.
//!
//! Owns the messages to the workers, and the meaning of their answers for a failed attempt.

use std::sync::Arc;

use baton_job::{Failure, FailureCode, Lease, Record, Role, Shard, ShardEntry, Work};
use baton_proto::wire::encoder_client::EncoderClient;
use baton_proto::wire::{
    EncodeShardHeader, EncodeShardRequest, ShardProgress, ShardReceipt, encode_shard_request, shard_event,
};
use baton_proto::{Connection, FailureOrigin, MAX_MESSAGE_NUM_BYTES, Refusal, ShardAttempt, entry_batches};
use baton_telemetry::TraceContext;
use tokio::sync::mpsc;
use tonic::{Code, Status};

/// The error row's message for a record that was found to break attempts. The log has the reasons; error rows
/// are the same whichever workers process the shard.
const POISONOUS: &str = "every attempt with this record failed, even with the record alone";

/// The parts of an attempt.
pub(crate) struct AttemptRequest {
    pub(crate) encoder: Connection,
    pub(crate) decoder_endpoint: String,
    pub(crate) attempt: ShardAttempt,
    /// The entries to send.
    pub(crate) shard: Arc<Shard>,
    /// Entries of the whole shard.
    pub(crate) num_records: u32,
    pub(crate) trace: TraceContext,
}

/// The failure of an attempt.
#[derive(Debug)]
pub(crate) struct AttemptFailure {
    pub(crate) failure: Failure,
    pub(crate) reason: String,
}

/// Runs an attempt to its receipt and reports its progress. The first report, all zeros, says that the
/// encoder has taken the shard on. Dropping the future cancels the attempt on all sides.
pub(crate) async fn run_attempt(
    request: AttemptRequest,
    progress: mpsc::Sender<(Lease, ShardProgress)>,
) -> Result<ShardReceipt, AttemptFailure> {
    use encode_shard_request::Message;
    let AttemptRequest { encoder, decoder_endpoint, attempt, shard, num_records, trace } = request;
    let lease = attempt.lease;
    let expected = ExpectedReceipt {
        num_entries: attempt.num_entries,
        num_records: if attempt.is_probe { attempt.num_entries } else { num_records },
        may_go_on: attempt.tier.as_ref().is_some_and(|tier| tier.threshold.is_some()) && !attempt.is_probe,
    };
    let header = EncodeShardHeader { shard: Some(attempt.into()), decoder_endpoint };
    let mut messages = vec![Message::Header(header)];
    messages.extend(entry_batches(&shard).map(Message::Entries));
    drop(shard);
    let requests = messages.into_iter().map(|message| EncodeShardRequest { message: Some(message) });

    let mut encoder = EncoderClient::new(encoder)
        .max_decoding_message_size(MAX_MESSAGE_NUM_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_NUM_BYTES);
    let response = encoder.encode_shard(trace.request(tokio_stream::iter(requests))).await;
    let mut events =
        response.map_err(|status| AttemptFailure::of(&status, AttemptStage::Opening))?.into_inner();
    let broken = |status: Status| AttemptFailure::of(&status, AttemptStage::Open);
    // If nobody listens to progress, this attempt is about to be cancelled.
    let _ = progress.send((lease, ShardProgress::default())).await;
    while let Some(event) = events.message().await.map_err(broken)? {
        match event.event {
            Some(shard_event::Event::Progress(totals)) => {
                let _ = progress.send((lease, totals)).await;
            }
            Some(shard_event::Event::Receipt(receipt)) => {
                let impossible = |status| broken(FailureOrigin::Decoder.mark(status));
                return check_receipt(&receipt, expected).map_err(impossible).map(|()| receipt);
            }
            Some(shard_event::Event::Found(_)) | None => {
                return Err(broken(Status::internal(
                    "the encoder sent an event that is not a coordinator's",
                )));
            }
        }
    }
    Err(broken(Status::unavailable("the encoder's stream ended without a receipt")))
}

/// The numbers that a receipt can have.
#[derive(Debug, Clone, Copy)]
struct ExpectedReceipt {
    /// Entries of the attempt.
    num_entries: u32,
    /// Entries of all that a commit would report.
    num_records: u32,
    /// Whether records may go on to a next tier.
    may_go_on: bool,
}

/// Refuses a receipt that is impossible.
fn check_receipt(receipt: &ShardReceipt, expected: ExpectedReceipt) -> Result<(), Status> {
    let ShardReceipt { records, failed_records, escalation, .. } = receipt;
    let num_expected = match escalation {
        Some(_) if !expected.may_go_on => {
            return Err(Status::internal(
                "the receipt says that records go on to a next tier, and there is none; the decoder is \
                 broken, or of another version",
            ));
        }
        Some(_) => expected.num_entries,
        None => expected.num_records,
    };
    if *records != num_expected || failed_records > records {
        return Err(Status::internal(format!(
            "the receipt of a shard of {num_expected} entries counts {failed_records} failures among \
             {records} records; the decoder is broken, or of another version"
        )));
    }
    match receipt.drafts {
        Some(drafts) if drafts.accepted_tokens > drafts.drafted_tokens => Err(Status::internal(format!(
            "the receipt counts {} accepted drafts of {}; the decoder is broken, or of another version",
            drafts.accepted_tokens, drafts.drafted_tokens
        ))),
        _ => Ok(()),
    }
}

/// The entries to send in an attempt.
pub(crate) fn entries_for(work: &Work, shard: &Arc<Shard>) -> Arc<Shard> {
    match work {
        Work::Commit { accused } if accused.is_empty() => Arc::clone(shard),
        Work::Commit { accused } => {
            let mut prompt = 0u32..;
            let entry = |entry: &ShardEntry| match entry {
                ShardEntry::Prompt(record) if accused.contains(&prompt.next().expect("it is endless")) => {
                    ShardEntry::Failed(record.failure(FailureCode::Poisonous, POISONOUS))
                }
                entry => entry.clone(),
            };
            Arc::new(Shard { entries: shard.entries.iter().map(entry).collect(), ..**shard })
        }
        Work::Probe { prompts } => {
            let (start, len) = (prompts.start as usize, prompts.len());
            let probed = (0u32..).zip(shard.prompts().skip(start).take(len));
            let entry = |(index_in_shard, record): (u32, &Record)| {
                ShardEntry::Prompt(Record { index_in_shard, ..record.clone() })
            };
            Arc::new(Shard { entries: probed.map(entry).collect(), ..**shard })
        }
    }
}

/// The stage in which an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptStage {
    /// The encoder had not accepted the shard.
    Opening,
    /// The encoder had accepted it.
    Open,
}

impl AttemptFailure {
    fn of(status: &Status, stage: AttemptStage) -> Self {
        let reason = format!("{} ({:?})", status.message(), status.code());
        AttemptFailure { failure: classify(status, stage), reason }
    }
}

/// The process that failed, and whether the failure concerns the shard.
fn classify(status: &Status, stage: AttemptStage) -> Failure {
    let (role, stage) = match FailureOrigin::of(status) {
        None => (Role::Encoder, stage),
        Some(FailureOrigin::EncoderOpening) => (Role::Encoder, AttemptStage::Opening),
        Some(FailureOrigin::DecoderOpening) => (Role::Decoder, AttemptStage::Opening),
        Some(FailureOrigin::Decoder) => (Role::Decoder, AttemptStage::Open),
        Some(FailureOrigin::Store) => return Failure::Store,
    };
    match (Refusal::of(status), status.code(), stage) {
        (Some(Refusal::Draining), _, _) => Failure::Unreached(role),
        (Some(Refusal::Busy), _, _) | (None, Code::ResourceExhausted, _) => Failure::Busy(role),
        (
            None,
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::PermissionDenied
            | Code::Unauthenticated,
            AttemptStage::Opening,
        ) => Failure::Refused(role),
        (
            None,
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted,
            AttemptStage::Opening,
        ) => Failure::Unreached(role),
        (None, Code::InvalidArgument | Code::OutOfRange, AttemptStage::Open) => Failure::Rejected,
        (
            None,
            Code::FailedPrecondition | Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated,
            AttemptStage::Open,
        ) => Failure::Hopeless,
        _ => Failure::Broke(role),
    }
}

#[cfg(test)]
mod tests {
    use baton_proto::wire::{Drafts, Escalation};

    use super::*;

    #[test]
    fn a_status_tells_the_failed_process_and_the_kind_of_failure() {
        let open = |status| classify(&status, AttemptStage::Open);
        let opening = |status| classify(&status, AttemptStage::Opening);
        let decoder = |status| FailureOrigin::Decoder.mark(status);
        let decoder_opening = |status| FailureOrigin::DecoderOpening.mark(status);
        let chain_opening = |status| FailureOrigin::EncoderOpening.mark(status);
        assert_eq!(opening(Status::unavailable("no route")), Failure::Unreached(Role::Encoder));
        assert_eq!(opening(Status::failed_precondition("other bundle")), Failure::Refused(Role::Encoder));
        assert_eq!(opening(Status::internal("bug")), Failure::Broke(Role::Encoder));
        assert_eq!(opening(Status::resource_exhausted("full")), Failure::Busy(Role::Encoder));
        assert_eq!(open(Refusal::Draining.status("leaves")), Failure::Unreached(Role::Encoder));
        assert_eq!(open(Status::unavailable("reset")), Failure::Broke(Role::Encoder));
        assert_eq!(open(Status::invalid_argument("too large")), Failure::Rejected);
        assert_eq!(open(Status::failed_precondition("disk full")), Failure::Hopeless);
        assert_eq!(open(decoder(Status::unavailable("reset"))), Failure::Broke(Role::Decoder));
        assert_eq!(open(chain_opening(Status::unavailable("x"))), Failure::Unreached(Role::Encoder));
        assert_eq!(open(chain_opening(Status::failed_precondition("x"))), Failure::Refused(Role::Encoder));
        assert_eq!(open(decoder_opening(Status::unavailable("x"))), Failure::Unreached(Role::Decoder));
        assert_eq!(open(decoder_opening(Status::unauthenticated("x"))), Failure::Refused(Role::Decoder));
        assert_eq!(open(decoder(Refusal::Busy.status("full"))), Failure::Busy(Role::Decoder));
        assert_eq!(open(FailureOrigin::Store.mark(Status::unavailable("S3"))), Failure::Store);
    }

    #[test]
    fn a_receipt_that_cannot_be_true_is_refused() {
        let receipt =
            |records, failed_records| ShardReceipt { records, failed_records, ..Default::default() };
        let expected = ExpectedReceipt { num_entries: 4, num_records: 4, may_go_on: false };
        check_receipt(&receipt(4, 4), expected).unwrap();
        for (records, failed) in [(4, 5), (3, 0), (5, 0), (0, u32::MAX)] {
            let status = check_receipt(&receipt(records, failed), expected).unwrap_err();
            assert!(
                status.message().contains(&format!("{failed} failures among {records} records")),
                "{status}"
            );
        }
        let drafts = Some(Drafts { drafted_tokens: 3, accepted_tokens: 4, llm_passes: 1 });
        let status = check_receipt(&ShardReceipt { drafts, ..receipt(4, 0) }, expected).unwrap_err();
        assert!(status.message().contains("4 accepted drafts of 3"), "{status}");
    }

    #[test]
    fn a_tiers_receipt_counts_its_entries_and_a_commit_all_of_the_shard() {
        let escalation = Some(Escalation { positions: vec![3] });
        let receipt = |records, escalation| ShardReceipt { records, escalation, ..Default::default() };
        let second = ExpectedReceipt { num_entries: 4, num_records: 9, may_go_on: true };
        check_receipt(&receipt(4, escalation.clone()), second).unwrap();
        check_receipt(&receipt(9, None), second).unwrap();
        check_receipt(&receipt(4, None), second).unwrap_err();
        check_receipt(&receipt(9, escalation.clone()), second).unwrap_err();
        let last = ExpectedReceipt { may_go_on: false, ..second };
        let status = check_receipt(&receipt(4, escalation), last).unwrap_err();
        assert!(status.message().contains("there is none"), "{status}");
    }

    fn shard() -> Arc<Shard> {
        Arc::new(crate::tiers::tests::shard())
    }

    #[test]
    fn an_accused_record_travels_as_a_failure_in_its_place() {
        let sent = entries_for(&Work::Commit { accused: vec![1] }, &shard());
        let ShardEntry::Failed(failure) = &sent.entries[2] else { panic!("prompt 1 is entry 2") };
        assert_eq!((failure.code, failure.id.as_deref()), (FailureCode::Poisonous, Some("r2")));
        assert_eq!((&sent.entries[0], &sent.entries[3]), (&shard().entries[0], &shard().entries[3]));
        let untouched = shard();
        assert!(Arc::ptr_eq(&entries_for(&Work::Commit { accused: vec![] }, &untouched), &untouched));
    }

    #[test]
    fn a_probe_sends_some_prompts_renumbered() {
        let sent = entries_for(&Work::Probe { prompts: 1..3 }, &shard());
        let found: Vec<_> =
            sent.prompts().map(|record| (record.index_in_shard, record.id.as_str())).collect();
        assert_eq!((found, sent.entries.len()), (vec![(0, "r2"), (1, "r3")], 2));
    }
}
