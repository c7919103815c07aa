"""A corpus from a seed, and what a local run of the same job makes of it."""

import json
import random
import subprocess
from pathlib import Path

from kubectl import StepFailed
from storage import digest_of

PEOPLE = (
    "The teacher,My neighbour,A young doctor,The mayor,Our guide,The old sailor,Her brother,A student"
).split(",")
VERBS = "found,repaired,described,sold,painted,forgot,borrowed,carried,photographed,returned".split(",")
THINGS = (
    "the wooden boat,a letter,two bicycles,the key of the library,an old map,the blue suitcase,"
    "a basket of apples,the broken radio,three tickets,the history of the village"
).split(",")
ENDINGS = (
    "near the station,in the garden,before the concert,on the way home,during the winter,when the bell rang,"
    "although nobody had asked,so that the children could learn,at the edge of the forest,because it rained"
).split(",")


def corpus(seed, num_records, max_text_bytes):
    """Lines of JSON with texts of different lengths, none longer than `max_text_bytes`."""
    pick = random.Random(seed).choice
    lines = []
    for index in range(num_records):
        text = f"{pick(PEOPLE)} {pick(VERBS)} {pick(THINGS)}"
        for ending in {pick(ENDINGS): None, pick(ENDINGS): None}:
            if len(text) + len(ending) + 2 <= max_text_bytes:
                text = f"{text} {ending}"
        lines.append(json.dumps({"id": f"{seed}-{index}", "text": f"{text}."}))
    return ("\n".join(lines) + "\n").encode()


def job_file(inputs, output, records_per_shard):
    """The text of a job file for the small model alone."""
    return (
        'bundle = "/bundle"\n'
        f"inputs = {json.dumps(inputs)}\n"
        f"output = {json.dumps(output)}\n"
        'mode = "slm"\n\n'
        "[shard]\n"
        f"records_per_shard = {records_per_shard}\n"
    )


class Reference:
    """Runs jobs with the local `baton`, and keeps their sums."""

    def __init__(self, baton, bundle, scratch):
        self.baton, self.bundle, self.scratch = baton, bundle, Path(scratch)
        self.number = 0

    def digests(self, data, records_per_shard):
        """{part: sha256} of the job over `data`, bytes of lines of JSON."""
        self.number += 1
        directory = self.scratch / f"reference-{self.number}"
        directory.mkdir()
        source = directory / "corpus.jsonl"
        source.write_bytes(data)
        job = directory / "job.toml"
        text = job_file([str(source)], str(directory / "out"), records_per_shard)
        job.write_text(text.replace('"/bundle"', json.dumps(str(self.bundle))), encoding="utf-8")
        done = subprocess.run([self.baton, "run", job], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise StepFailed(f"the local run failed: {done.stdout.decode(errors='replace')}")
        parts = sorted((directory / "out").glob("part-*"))
        return {part.name: digest_of(part.read_bytes()) for part in parts}
