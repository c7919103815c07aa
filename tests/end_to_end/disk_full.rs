//! A full disk fails the job with one line; with more room the same command completes it.

use std::process::Command;

use crate::command::{Ended, Job};

/// Runs the job on its own file system, which is too small, then makes room and runs it again. The mount
/// belongs to the shell's namespace and disappears with it.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=48k tmpfs "$OUT" || exit 77
"$@"; first=$?
parts=$(ls "$OUT" | grep -c ^part-)
mount -o remount,size=64m "$OUT" || exit 78
"$@"; second=$?
echo "first=$first parts=$parts second=$second total=$(ls "$OUT" | grep -c ^part-)" >&2
"#;

#[test]
fn a_full_disk_is_one_error_line_and_nothing_committed_is_lost() {
    let job = Job::of_records(80);
    std::fs::create_dir_all(job.output()).unwrap();
    let run = job.command();
    let mut shell = Command::new("unshare");
    shell
        .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"])
        .arg(run.get_program())
        .args(run.get_args());
    let Ok(output) = shell.env("OUT", job.output()).output() else {
        eprintln!("skipped: `unshare` is not installed");
        return;
    };
    let ended = Ended::from(output);
    if ended.stderr.starts_with("unshare:") || ended.code == Some(77) {
        eprintln!("skipped: this user may not mount a file system: {}", ended.stderr);
        return;
    }
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{}", ended.stderr);
    assert!(errors[0].contains("no space left") && errors[0].contains("start again"), "{}", errors[0]);
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.starts_with("first=1 ") && last.ends_with("second=0 total=10"), "{last}");
}
