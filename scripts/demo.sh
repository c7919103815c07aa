#!/bin/sh
# The demo: translates held-out English lines to Italian with the committed bundle and shows the outputs.
#
# Called by `make demo`, which has built the binary, given as argument, and imported the large model.
set -eu
cd "$(dirname "$0")/.."

baton=$1
corpus=data/demo.jsonl
output=out/demo

[ -s "$corpus" ] || python3 scripts/corpus.py demo --out "$corpus" --count 240

# The demo shows a whole job; without this, a second run would find its work done.
rm -rf "$output"
echo "Translating $corpus, descriptions of Debian packages that the bundle models/en-it has never seen:"
"$baton" run --bundle models/en-it --input "$corpus" --output "$output" --records-per-shard 64

echo
echo "A few of them:"
python3 - "$corpus" "$output" <<'PY'
import glob, json, sys

def rows(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]

sources = {row["id"]: row["text"] for row in rows(sys.argv[1])}
outputs = [row for part in sorted(glob.glob(sys.argv[2] + "/part-*.jsonl")) for row in rows(part)]
for row in outputs[:: len(outputs) // 8][:8]:
    print(f"  en  {sources[row['id']]}\n  it  {row['output']}\n")
print(f"All {len(outputs)}: {sys.argv[2]}/part-*.jsonl; the manifest: {sys.argv[2]}/_SUCCESS")
PY
