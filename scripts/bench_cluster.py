#!/usr/bin/env python3
"""Measures a Baton cluster of separate processes on this machine: what it adds to the models' own time, and
how fast it recovers.

    python3 scripts/bench_cluster.py --bundle models/en-it --input data/en-it/test.jsonl --text-field source

Starts one encoder and two decoders on loopback from --binaries and then

- runs `baton bench job` against them, with one decoder, beside the bare loop of the models in one process;
- runs jobs with two decoders, and kills or stops one of them in the middle. The coordinator's log tells when
  each of its shards was leased elsewhere, and how many leases were used in all.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Service:
    """One encoder or decoder."""

    def __init__(self, args, role, engines):
        self.port, self.http = free_port(), free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        command = [
            args.binaries / f"baton-{role}",
            "--bundle",
            args.bundle,
            "--listen",
            f"127.0.0.1:{self.port}",
        ]
        command += ["--http-listen", f"127.0.0.1:{self.http}", "--engines", str(engines), "--log", "warn"]
        self.process = subprocess.Popen([str(part) for part in command])

    def wait_until_ready(self):
        import urllib.error
        import urllib.request

        for _ in range(600):
            if self.process.poll() is not None:
                sys.exit(f"{self.process.args[0]} ended with {self.process.returncode}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=5)
                return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        sys.exit(f"{self.process.args[0]} is not ready after a minute")

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


def pipeline(args):
    """The job's share of the bare loop."""
    encoder, decoder = Service(args, "encoder", args.engines), Service(args, "decoder", args.engines)
    try:
        for service in (encoder, decoder):
            service.wait_until_ready()
        command = [args.binaries / "baton", "bench", "job", "--bundle", args.bundle, "--input", args.input]
        command += ["--text-field", args.text_field, "--engines", args.engines, "--rounds", args.rounds]
        command += ["--encoders", encoder.endpoint, "--decoders", decoder.endpoint]
        command += ["--records", args.records] if args.records else []
        subprocess.run([str(part) for part in command], check=True)
    finally:
        encoder.end()
        decoder.end()


def seconds(entry):
    return datetime.fromisoformat(entry["timestamp"].replace("Z", "+00:00")).timestamp()


def recovery(args, fault, lease_ttl_s):
    """Disturbs one of two decoders in the middle of a job."""
    services = [Service(args, "encoder", args.engines)] + [
        Service(args, "decoder", args.engines) for _ in range(2)
    ]
    try:
        for service in services:
            service.wait_until_ready()
        encoder, healthy, victim = services
        with tempfile.TemporaryDirectory() as directory:
            output, log = Path(directory, "out"), Path(directory, "log")
            command = [args.binaries / "baton-coordinator", "--bundle", args.bundle, "--input", args.input]
            command += ["--text-field", args.text_field, "--output", output, "--encoders", encoder.endpoint]
            command += ["--decoders", f"{healthy.endpoint},{victim.endpoint}", "--lease-ttl-s", lease_ttl_s]
            command += [
                "--records-per-shard",
                64,
                "--http-listen",
                "none",
                "--log",
                "debug",
                "--log-format",
                "json",
            ]
            with log.open("w") as sink:
                job = subprocess.Popen([str(part) for part in command], stdout=sink, stderr=sink)
                while not output.exists() or len(list(output.glob("part-*"))) < args.parts_before:
                    if job.poll() is not None:
                        sys.exit("the job was done before the fault: give it more records")
                    time.sleep(0.005)
                disturbed_at = time.time()
                victim.process.send_signal(fault)
                code = job.wait()
            if code not in (0, 3):
                sys.exit(f"the job ended with {code}: {log.read_text()[-2000:]}")
            entries = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        leases, open_leases, lost = [], {}, {}
        for entry in entries:
            fields = entry.get("fields", entry)
            shard = (entry.get("span") or fields).get("shard", fields.get("shard"))
            if fields.get("message") == "leased":
                leases.append(shard)
                at = seconds(entry)
                if shard in lost and lost[shard] is None and at > disturbed_at:
                    lost[shard] = at - disturbed_at
                if fields["decoder"] == victim.endpoint and at <= disturbed_at:
                    open_leases[shard] = at
            elif fields.get("message") == "committed" and seconds(entry) <= disturbed_at:
                open_leases.pop(shard, None)
            if seconds(entry) > disturbed_at and open_leases:
                lost.update({shard: None for shard in open_leases})
                open_leases = {}
        delays = sorted(delay for delay in lost.values() if delay is not None)
        name = signal.Signals(fault).name
        print(
            f"{name} of a decoder with {len(lost)} shards, lease {lease_ttl_s} s: "
            f"{len(delays)} leased elsewhere after {delays[0]:.3f} to {delays[-1]:.3f} s; "
            f"{len(leases)} leases for {len(set(leases))} shards, so {len(leases) - len(set(leases))} were "
            "wasted"
            if delays
            else f"{name} of a decoder: it held no shard"
        )
    finally:
        for service in services:
            service.end()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--text-field", default="text")
    parser.add_argument("--binaries", type=Path, default=Path("target/release"))
    parser.add_argument("--engines", type=int, default=os.cpu_count())
    parser.add_argument("--records", type=int, help="only the first so many, of the pipeline's measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--parts-before", type=int, default=10, help="parts that are committed before the fault"
    )
    parser.add_argument("--lease-ttl-s", type=int, default=10)
    args = parser.parse_args()
    pipeline(args)
    print()
    recovery(args, signal.SIGKILL, args.lease_ttl_s)
    recovery(args, signal.SIGSTOP, args.lease_ttl_s)


if __name__ == "__main__":
    main()
