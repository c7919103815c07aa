//! `baton plan`: reports the content of a job's inputs before anything is done, and what the job will take.

#![allow(clippy::print_stdout, reason = "the plan is what the command is asked for")]

mod calibration;
mod memory;

use std::process::ExitCode;

use anyhow::Context;
use baton_coordinator::flags::JobArgs;
use baton_coordinator::{BROKEN_INPUTS, CoordinatorError, InputPlan, JobPlan, MAX_SAMPLE};
use baton_job::JobSpec;
use baton_telemetry::tell;
use indicatif::{HumanBytes, HumanCount, HumanDuration};

use self::calibration::Calibration;
use crate::run::{MachineArgs, show_tiers};

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
    /// Runs the models of this machine over this many records of the inputs, and estimates time, tokens and
    /// memory of the whole job. Their outputs are discarded. Without a number: 256. Example: --calibrate
    #[arg(
        long,
        value_name = "RECORDS",
        num_args = 0..=1,
        default_missing_value = "256",
        value_parser = clap::value_parser!(u32).range(1..=MAX_SAMPLE as i64),
        help_heading = "Estimate",
    )]
    calibrate: Option<u32>,
    /// Price of such a machine, an hour, in any currency: the estimate then says what the job costs. Example:
    /// --price-per-hour 0.34
    #[arg(
        long,
        value_name = "PRICE",
        requires = "calibrate",
        value_parser = baton_coordinator::flags::price,
        help_heading = "Estimate",
    )]
    price_per_hour: Option<f64>,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Runs `baton plan`.
///
/// # Errors
/// The inputs cannot be reached.
pub(crate) fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    match plan(args) {
        Ok(((spec, digest), plan)) => {
            show(&plan);
            memory::show(&spec);
            if let Some(num_records) = args.calibrate {
                let measured =
                    Calibration::measure((&spec, &digest), &plan, num_records as usize, &args.machine)?;
                show_estimate(&plan, &measured, args.price_per_hour);
            }
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

fn plan(args: &PlanArgs) -> anyhow::Result<((JobSpec, String), JobPlan)> {
    let (spec, digest) = args.job.to_spec()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let plan = runtime.block_on(JobPlan::of(spec.clone()))?;
    Ok(((spec, digest), plan))
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

fn show_estimate(plan: &JobPlan, measured: &Calibration, price_per_hour: Option<f64>) {
    let Calibration { totals, elapsed, peak_memory_num_bytes, .. } = measured;
    let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let memory =
        peak_memory_num_bytes.map_or(String::new(), |bytes| format!(", {} of memory", HumanBytes(bytes)));
    let failed = match totals.errors {
        0 => String::new(),
        errors => format!(", {errors} of them failed"),
    };
    println!(
        "sample: {} records in {seconds:.1} s on this machine{failed}, {:.1} records/s, {:.0} output \
         tokens/s{memory}",
        totals.records,
        totals.records as f64 / seconds,
        totals.output_tokens as f64 / seconds,
    );
    show_tiers(&totals.tiers);
    let estimate = measured.estimate(plan.inputs.iter().map(|input| input.text_num_bytes).sum());
    let read_by_llm = match estimate.llm_prompt_tokens {
        0 => String::new(),
        tokens => format!(" ({} by the LLM)", HumanCount(tokens)),
    };
    let cost = price_per_hour.map_or(String::new(), |price| {
        format!(", cost {:.2}", price * estimate.duration.as_secs_f64() / 3600.0)
    });
    println!(
        "estimate: about {} on this machine, {} prompt tokens{read_by_llm}, {} output tokens{cost}",
        HumanDuration(estimate.duration),
        HumanCount(estimate.prompt_tokens),
        HumanCount(estimate.output_tokens),
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
