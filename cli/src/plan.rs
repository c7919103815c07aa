//! `baton plan`: reports the content of a job's inputs before anything is done.

#![allow(clippy::print_stdout, reason = "the plan is what the command is asked for")]

use std::process::ExitCode;

use anyhow::Context;
use baton_coordinator::flags::JobArgs;
use baton_coordinator::{BROKEN_INPUTS, CoordinatorError, InputPlan, JobPlan};
use baton_telemetry::tell;
use indicatif::{HumanBytes, HumanCount};

/// Inputs shown if all are sound; inputs with problems are always shown.
const MAX_INPUTS_SHOWN: usize = 20;

const EXIT_CODES: &str = "\
Exit codes:
  0  every record can be read
  1  an input cannot be reached
  2  the flags or the job file are wrong, or do not fit the bundle or the input
  3  some records would fail while they are read
  4  an input is damaged, or changed while it was read";

/// Arguments of `baton plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    job: JobArgs,
}

/// Runs `baton plan`.
///
/// # Errors
/// The inputs cannot be reached.
pub(crate) fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    match plan(args) {
        Ok(plan) => {
            show(&plan);
            let (_, failed) = plan.records();
            Ok(match failed {
                _ if plan.is_broken() => ExitCode::from(BROKEN_INPUTS),
                0 => ExitCode::SUCCESS,
                _ => ExitCode::from(3),
            })
        }
        Err(error) => match error.downcast_ref().map(CoordinatorError::exit_code) {
            Some(code) => {
                tell!("error: {error:#}");
                Ok(ExitCode::from(code))
            }
            None => Err(error),
        },
    }
}

fn plan(args: &PlanArgs) -> anyhow::Result<JobPlan> {
    let (spec, _) = args.job.to_spec()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    Ok(runtime.block_on(JobPlan::of(spec))?)
}

fn show(plan: &JobPlan) {
    let has_problem =
        |input: &InputPlan| input.broken.is_some() || !input.failures.is_empty() || !input.remarks.is_empty();
    for input in plan
        .inputs
        .iter()
        .enumerate()
        .filter(|(place, input)| *place < MAX_INPUTS_SHOWN || has_problem(input))
    {
        show_input(input.1);
    }
    if plan.inputs.len() > MAX_INPUTS_SHOWN {
        println!("... of {} inputs, those not shown have no problems", plan.inputs.len());
    }
    let (records, failed) = plan.records();
    let sum = |bytes: fn(&InputPlan) -> u64| HumanBytes(plan.inputs.iter().map(bytes).sum());
    println!(
        "{} records in {} inputs ({} stored, {} of text), {} shards; {} of the records would fail",
        HumanCount(records),
        plan.inputs.len(),
        sum(|input| input.num_bytes),
        sum(|input| input.text_num_bytes),
        HumanCount(plan.num_shards.into()),
        HumanCount(failed),
    );
}

fn show_input(input: &InputPlan) {
    let InputPlan { uri, num_bytes, records, text_num_bytes, failures, broken, remarks } = input;
    println!(
        "{uri}: {} records, {} stored, {} of text",
        HumanCount(*records),
        HumanBytes(*num_bytes),
        HumanBytes(*text_num_bytes)
    );
    if let Some(reason) = broken {
        println!("  BROKEN: {reason}");
    }
    for (code, failed) in failures {
        let (line, message) = (failed.first_line, &failed.first_message);
        println!("  {} x {code}, first on line {line}: {message}", HumanCount(failed.count));
    }
    for remark in remarks {
        println!("  {remark}");
    }
}
