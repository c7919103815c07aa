//! Cascades: every record is written by the first tier that is sure of it, whatever the machine, the shards
//! and the faults.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::bundle::write_aligned_bundle;
use crate::command::{Ended, Job, baton, corpus, imported_small_model};
use crate::quality::fit;

const NUM_RECORDS: usize = 60;

/// Rows by id, without the name of their tier.
fn rows(job: &Job) -> Vec<(Value, Option<String>)> {
    let row = |mut row: Value| {
        let tier = row.as_object_mut().unwrap().shift_remove("tier");
        (row, tier.map(|tier| tier.as_str().unwrap().to_owned()))
    };
    job.outputs().into_iter().map(row).collect()
}

/// `None`: no model wrote it.
fn mean_logprob(row: &Value) -> Option<f64> {
    row["signals"]["mean_logprob"].as_f64()
}

fn middle(rows: &[(Value, Option<String>)]) -> f64 {
    let mut all: Vec<f64> = rows.iter().filter_map(|(row, _)| mean_logprob(row)).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Error rows without their inputs, which lie in another directory for each job.
fn errors(job: &Job) -> Vec<Value> {
    let row = |mut row: Value| {
        row.as_object_mut().unwrap().shift_remove("input");
        row
    };
    job.errors().into_iter().map(row).collect()
}

/// Good records, with some that fail while they are read and some that are too long for any tier.
fn mixed_corpus() -> String {
    let bad = format!("no JSON\n{{\"id\":\"long\",\"text\":\"{}\"}}\n", "x".repeat(200));
    let copied = "{\"id\":\"copied\",\"text\":\"-----\"}\n";
    format!("{}{bad}{copied}{}", corpus(NUM_RECORDS / 2), corpus(NUM_RECORDS / 2))
}

fn job(flags: &[&str]) -> Job {
    job_in_shards("8", flags)
}

fn job_in_shards(num_records: &str, flags: &[&str]) -> Job {
    let job = Job::new().with_input("corpus.jsonl", mixed_corpus());
    job.with_flags(&["--records-per-shard", num_records, "--quality", "signals"]).with_flags(flags)
}

/// Runs to the exit code of a job of which some records failed.
fn run(job: Job) -> Job {
    job.run_expecting(3);
    job
}

#[test]
fn a_record_is_written_by_the_first_tier_that_is_sure_of_it() {
    let plain = ["hybrid", "hybrid --beams 3", "llm"].map(|flags| {
        let flags: Vec<&str> = ["--mode"].into_iter().chain(flags.split(' ')).collect();
        rows(&run(job(&flags)))
    });
    let limits = [middle(&plain[0]), middle(&plain[1])];
    let escalate = format!("--escalate={},{}", limits[0], limits[1]);
    let cascade = run(job(&["--cascade", "hybrid,hybrid:beams=3,llm", &escalate]));
    let written = rows(&cascade);
    let names = ["hybrid", "hybrid:beams=3", "llm"];
    let mut counts = [0; 3];
    for (place, (row, tier)) in written.iter().enumerate() {
        let goes_on =
            |tier: usize| mean_logprob(&plain[tier][place].0).is_some_and(|mean| mean < limits[tier]);
        let expected = (0..2).find(|&tier| !goes_on(tier)).unwrap_or(2);
        assert_eq!(tier.as_deref(), Some(names[expected]), "{row}");
        assert_eq!(*row, plain[expected][place].0, "as in a job of that tier alone");
        counts[expected] += 1;
    }
    assert!(counts.iter().all(|&count| count > 3), "each tier has some: {counts:?}");

    let report = fs::read(cascade.output().join("_REPORT.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let records = |tier: usize| report["tiers"][tier]["records"].as_u64().unwrap();
    assert_eq!(records(0), NUM_RECORDS as u64 + 3, "all, failed ones included");
    assert_eq!(records(2), report["tiers"][1]["escalated"].as_u64().unwrap());
    let time: f64 = (0..3).map(|tier| report["tiers"][tier]["time_share"].as_f64().unwrap()).sum();
    assert!((time - 1.0).abs() < 1e-9);
    let checked = baton().args(["job", "check"]).arg(cascade.output()).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn machine_settings_and_shards_change_no_row_of_a_cascade() {
    let escalate = format!("--escalate={}", middle(&rows(&run(job(&[])))));
    let flags = ["--cascade", "hybrid,llm", &escalate];
    let reference = run(job(&flags));
    let parts = |job: &Job| -> Vec<(String, Vec<u8>)> {
        job.contents().into_iter().filter(|(name, _)| name.starts_with("part-")).collect()
    };
    for machine in [
        &["--encode-batch-tokens", "1", "--decode-slots", "1", "--shards-in-flight", "1"][..],
        &["--encode-batch-tokens", "4096", "--decode-slots", "256", "--shards-in-flight", "16"],
    ] {
        let found = run(job(&flags).with_flags(machine));
        assert!(parts(&found) == parts(&reference), "bytes differ with {machine:?}");
        assert_eq!(errors(&found), errors(&reference));
    }
    let other_shards = run(job_in_shards("13", &flags));
    assert_eq!(other_shards.outputs(), reference.outputs());
}

#[test]
fn samples_are_those_of_the_last_mode_wherever_a_record_stands() {
    let sampled = ["--temperature", "1", "--seed", "7"];
    let plain = rows(&run(job(&sampled)));
    let escalate = format!("--escalate={}", middle(&plain));
    let cascade =
        run(job(&sampled).with_flags(&["--cascade", "hybrid,hybrid:repetition_penalty=1", &escalate]));
    for (row, plain) in rows(&cascade).iter().zip(&plain) {
        assert_eq!(row.0, plain.0, "both tiers draw the same");
    }
}

#[test]
fn if_all_records_go_on_the_rows_are_those_of_the_last_mode_and_if_none_of_the_first() {
    for (share, mode) in [("100%", "llm"), ("0%", "hybrid")] {
        let plain = run(job(&["--mode", mode]));
        let cascade = run(job(&["--cascade", "hybrid,llm", "--escalate", share]));
        let only_rows = |job: &Job| rows(job).into_iter().map(|(row, _)| row).collect::<Vec<_>>();
        assert_eq!(only_rows(&cascade), only_rows(&plain), "{share}");
        assert_eq!(errors(&cascade), errors(&plain), "{share}");
        let of_tier =
            |tier: &str| rows(&cascade).iter().filter(|(_, name)| name.as_deref() == Some(tier)).count();
        assert_eq!(of_tier(mode), NUM_RECORDS + usize::from(share == "0%"), "a copied text stays");
    }
}

#[test]
fn a_cascade_killed_at_any_point_ends_with_the_same_bytes_and_uses_what_is_there() {
    let escalate = format!("--escalate={}", middle(&rows(&run(job(&[])))));
    let job = Job::new().with_input("corpus.jsonl", corpus(240)).with_flags(&["--records-per-shard", "8"]);
    let job = job.with_flags(&["--cascade", "hybrid,llm", &escalate]);
    job.run_expecting(0);
    let undisturbed = job.contents();
    fs::remove_dir_all(job.output()).unwrap();
    for parts_before_kill in [1, 5, 15] {
        let mut child = job.start();
        job.wait_for_parts(parts_before_kill, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    job.run_expecting(0);
    assert!(job.contents() == undisturbed, "objects differ");

    // Of one shard, the first tier's result is left: it is read, and not made again.
    for object in
        ["_SUCCESS", "_REPORT.json", "_REPORT.html", "part-000003.jsonl", "_baton/shards/000003.json"]
    {
        fs::remove_file(job.output().join(object)).unwrap();
    }
    let result = job.output().join("_baton/tiers/0/000003.jsonl.zst");
    let made_at = fs::metadata(&result).unwrap().modified().unwrap();
    job.run_expecting(0);
    assert_eq!(fs::metadata(&result).unwrap().modified().unwrap(), made_at);
    assert!(job.contents() == undisturbed, "objects differ");

    fs::write(&result, b"").unwrap();
    let checked = Ended::from(baton().args(["job", "check"]).arg(job.output()).output().unwrap());
    assert_ne!(checked.code, Some(0));
}

#[test]
fn a_share_needs_an_estimate_and_becomes_a_threshold_before_the_start() {
    let refused = Job::of_records(3).with_flags(&["--cascade", "hybrid,llm", "--escalate", "20%"]).run();
    assert_eq!(refused.code, Some(2));
    refused.assert_error(&["no estimate of quality for mode hybrid", "--fit-quality", "--escalate -0.9"]);

    let directory = tempfile::tempdir().unwrap();
    let bundle = imported_small_model(directory.path());
    assert_eq!(fit(directory.path(), &bundle).code, Some(0));
    let test_set = fs::read(directory.path().join("test.jsonl")).unwrap();
    let job =
        |flags: &[&str]| Job::new().with_input("a.jsonl", &test_set).with_bundle(&bundle).with_flags(flags);
    let cascade = job(&["--cascade", "slm,slm:beams=3", "--escalate", "20%", "--review", "5"]);
    let ended = cascade.run_expecting(0);
    assert!(ended.stderr.contains("cascade: slm, below 0."), "{}", ended.stderr);
    let written = rows(&cascade);
    let num_escalated = written.iter().filter(|(_, tier)| tier.as_deref() == Some("slm:beams=3")).count();
    assert!((20..80).contains(&num_escalated), "about a fifth of 240: {num_escalated}");
    let report: Value =
        serde_json::from_slice(&fs::read(cascade.output().join("_REPORT.json")).unwrap()).unwrap();
    let last = &report["tiers"][1];
    assert_eq!(last["records"].as_u64(), Some(num_escalated as u64));
    let [before, after, gain] =
        ["estimate_before", "estimate", "gain"].map(|name| last[name].as_f64().unwrap());
    assert!((after - before - gain).abs() < 1e-9);
    assert_eq!(fs::read_to_string(cascade.output().join("review.jsonl")).unwrap().lines().count(), 5);

    let in_columns =
        job(&["--cascade", "slm,slm:beams=3", "--escalate", "20%", "--output-format", "parquet"]);
    in_columns.run_expecting(0);
    let collected = directory.path().join("all.csv");
    let collect = baton().arg("collect").arg(in_columns.output()).arg(&collected).output().unwrap();
    assert!(collect.status.success(), "{collect:?}");
    let table = fs::read_to_string(&collected).unwrap();
    assert!(table.lines().next().unwrap().contains(",tier"), "{table}");
    assert_eq!(table.matches("slm:beams=3").count(), num_escalated);
}

#[test]
fn another_cascade_does_not_continue_a_job_and_a_plan_shows_its_tiers() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("bundle");
    write_aligned_bundle(&bundle, 5, false);
    let flags = ["--cascade", "slm,hybrid", "--escalate", "-4"];
    let job = Job::of_records(16).with_bundle(&bundle).with_flags(&flags);
    job.run_expecting(0);
    let again = |flags: &[&str]| {
        let again = baton_run(&bundle, &job, flags);
        (again.code, again.stderr)
    };
    let (code, said) = again(&["--cascade", "slm,hybrid", "--escalate", "-3"]);
    assert_ne!(code, Some(0));
    assert!(said.contains("`tiers.0.threshold` was \"-4\", now \"-3\""), "{said}");
    let (code, said) = again(&["--mode", "hybrid"]);
    assert!(code != Some(0) && said.contains("`tiers` was "), "{said}");
    let (code, said) = again(&flags);
    assert!(code == Some(0) && said.contains("was complete before"), "{said}");

    let mut plan = baton();
    plan.arg("plan")
        .arg("--bundle")
        .arg(&bundle)
        .arg("--input")
        .arg(job.inputs())
        .arg("--output")
        .arg("nowhere");
    let planned = Ended::from(plan.args(flags).arg("--calibrate").output().unwrap());
    assert_eq!(planned.code, Some(0), "{}", planned.stderr);
    assert!(planned.stderr.contains("tier        slm: 16 records (100.0 %)"), "{}", planned.stderr);
}

fn baton_run(bundle: &Path, job: &Job, flags: &[&str]) -> Ended {
    let mut run = baton();
    run.arg("run").arg("--bundle").arg(bundle).arg("--input").arg(job.inputs());
    run.arg("--output").arg(job.output()).args(["--records-per-shard", "8"]).args(flags);
    Ended::from(run.output().unwrap())
}
