//! The same input, spec and bundle give the same bytes, whatever the machine settings.

use crate::command::{Job, corpus};

const NUM_RECORDS: usize = 60;

#[test]
fn every_record_has_one_output_row_in_input_order() {
    let job = Job::of_records(NUM_RECORDS);
    job.run_expecting(0);
    let outputs = job.outputs();
    let ids: Vec<&str> = outputs.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, (0..NUM_RECORDS).map(|index| format!("r{index}")).collect::<Vec<_>>());
    assert!(outputs.iter().all(|row| row.get("fields").is_none()));
    assert_eq!(job.num_parts(), NUM_RECORDS.div_ceil(8));
    assert!(job.errors().is_empty() && job.is_finished());

    let distinct: std::collections::BTreeSet<&str> =
        outputs.iter().map(|row| row["output"].as_str().unwrap()).collect();
    assert!(distinct.len() > NUM_RECORDS / 2, "the models tell prompts apart: {distinct:?}");
}

#[test]
fn machine_settings_change_no_byte() {
    let reference = Job::of_records(NUM_RECORDS);
    reference.run_expecting(0);
    let settings: [&[&str]; 3] = [
        &["--encode-batch-tokens", "1", "--decode-slots", "1", "--shards-in-flight", "1"],
        &["--encode-batch-tokens", "100", "--decode-slots", "3", "--shards-in-flight", "2"],
        &["--encode-batch-tokens", "4096", "--decode-slots", "256", "--shards-in-flight", "16"],
    ];
    for flags in settings {
        let job = Job::of_records(NUM_RECORDS).with_flags(flags);
        job.run_expecting(0);
        for (name, bytes) in reference.contents() {
            // Inputs lie in another directory, which job.json records.
            if name != "_baton/job.json" {
                assert!(job.contents().get(&name) == Some(&bytes), "{name} differs with {flags:?}");
            }
        }
    }
}

#[test]
fn other_shard_sizes_give_the_same_rows_in_other_parts() {
    let reference = Job::of_records(NUM_RECORDS);
    reference.run_expecting(0);
    let job =
        Job::new().with_input("corpus.jsonl", corpus(NUM_RECORDS)).with_flags(&["--records-per-shard", "13"]);
    job.run_expecting(0);
    assert_eq!(job.num_parts(), NUM_RECORDS.div_ceil(13));
    assert_eq!(job.outputs(), reference.outputs());
}

#[test]
fn other_fields_are_kept_if_asked_for_and_limits_hold() {
    let job =
        Job::of_records(8).with_flags(&["--keep-fields", "--max-new-tokens", "5", "--min-new-tokens", "2"]);
    job.run_expecting(0);
    for row in job.outputs() {
        assert_eq!(row["fields"]["lang"], "en");
        let output_tokens = row["output_tokens"].as_u64().unwrap();
        assert!((2..=5).contains(&output_tokens), "{row}");
    }
}

#[test]
fn a_complete_job_is_not_run_again() {
    let job = Job::of_records(8);
    job.run_expecting(0);
    let contents = job.contents();
    let again = job.run_expecting(0);
    assert!(again.stderr.starts_with("the job was complete before"), "{}", again.stderr);
    assert_eq!(job.contents(), contents);
}
