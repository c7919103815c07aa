"""Tests of slurm/baton.sbatch with programs that only write down how they were called."""

import os
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent.parent / "slurm/baton.sbatch"
PROGRAMS = {
    "scontrol": 'echo "scontrol $*" >> "$LOG"; if [ "$1" = show ]; then printf "a\\nb\\n"; fi',
    "srun": 'echo "srun $*" >> "$LOG"; exec tail -f /dev/null',
    # Tells that it runs, then ends with $CODE: at once, or at SIGTERM.
    "baton-coordinator": """echo "coordinator $*" >> "$LOG"
trap 'kill "$!"; exit "$CODE"' TERM
if [ -n "$PIPE" ]; then echo started > "$PIPE"; tail -f /dev/null & wait; fi
exit "$CODE"
""",
}


class Slurm(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        (self.directory / "job.toml").write_text('bundle = "/shared/en-pt"\n')
        for name, text in PROGRAMS.items():
            (self.directory / name).write_text(f"#!/bin/bash\n{text}\n")
            (self.directory / name).chmod(0o755)
        self.environment = {
            "PATH": f"{self.directory}:{os.environ['PATH']}",
            "LOG": str(self.directory / "log"),
            "PIPE": "",
            "CODE": "0",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "[a,b]",
            "SLURM_CPUS_PER_TASK": "8",
        }

    def start(self, *arguments, **variables):
        return subprocess.Popen(
            [SCRIPT, *arguments],
            cwd=self.directory,
            env=self.environment | variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def log(self):
        return (self.directory / "log").read_text()

    def test_the_coordinator_gets_the_workers_of_all_nodes_and_further_flags(self):
        process = self.start("job.toml", "--partition", "0/2", BATON_PORT="9000")
        process.communicate()
        self.assertEqual(process.returncode, 0)
        self.assertIn("--encoders http://a:9000,http://b:9000", self.log())
        self.assertIn("--decoders http://a:9002,http://b:9002", self.log())
        self.assertIn("--partition 0/2", self.log())

    def test_the_exit_code_is_the_coordinators(self):
        process = self.start("job.toml", CODE="3")
        process.communicate()
        self.assertEqual(process.returncode, 3)
        self.assertNotIn("requeue", self.log())

    def test_an_interrupted_job_goes_back_into_the_queue(self):
        pipe = self.directory / "pipe"
        os.mkfifo(pipe)
        process = self.start("job.toml", CODE="130", PIPE=str(pipe))
        self.assertEqual(pipe.read_text(), "started\n")
        process.send_signal(signal.SIGTERM)
        process.communicate()
        self.assertEqual(process.returncode, 130)
        self.assertIn("scontrol requeue 7", self.log())

    def test_a_job_that_was_requeued_often_stays_interrupted(self):
        process = self.start("job.toml", CODE="130", SLURM_RESTART_COUNT="10")
        process.communicate()
        self.assertNotIn("requeue", self.log())

    def test_a_job_file_without_a_bundle_is_refused_before_anything_starts(self):
        (self.directory / "job.toml").write_text('output = "out"\n')
        process = self.start("job.toml")
        _, said = process.communicate()
        self.assertEqual(process.returncode, 2)
        self.assertIn("bundle", said)
        self.assertFalse((self.directory / "log").exists())


if __name__ == "__main__":
    unittest.main()
