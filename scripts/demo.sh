# !/bin/sh The demo: translates English prose to Portuguese with the committed bundle, once in each of its
# modes, and shows the outputs side by side.
#
# `make demo` calls it with the built binary as argument, after it has imported the models.
set -eu
cd "$(dirname "$0")/.."

baton=$1
bundle=models/en-pt
corpus=data/demo.jsonl
output=out/demo

[ -s "$corpus" ] || python3 scripts/corpus.py demo --out "$corpus"

# The demo shows whole jobs; without this, a second run would find its work done.
rm -rf "$output"
echo "Translating $corpus, how a large association governs itself, with the bundle $bundle:"
modes=$(python3 -c 'import json, sys; print(*json.load(open(sys.argv[1]))["modes"])' "$bundle/bundle.json")
for mode in $modes; do
    "$baton" run --bundle "$bundle" --mode "$mode" --input "$corpus" --output "$output/$mode" \
        --records-per-shard 64
done

echo
echo "A few of them:"
python3 - "$corpus" "$output" $modes <<'PY'
import glob, json, sys

def rows(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]

corpus, output, *modes = sys.argv[1:]
sources = {row["id"]: row["text"] for row in rows(corpus)}
parts = {mode: sorted(glob.glob(f"{output}/{mode}/part-*.jsonl")) for mode in modes}
outputs = {
    mode: {row["id"]: row["output"] for part in parts[mode] for row in rows(part)} for mode in modes
}
brief = [name for name, text in sources.items() if len(text.split()) <= 30]
for name in brief[:: max(1, len(brief) // 6)][:6]:
    print(f"  en      {sources[name]}")
    for mode in modes:
        print(f"  {mode:<7} {outputs[mode].get(name, '(failed)')}")
    print()
words = sum(len(text.split()) for text in sources.values())
for mode in modes:
    with open(f"{output}/{mode}/_SUCCESS", encoding="utf-8") as file:
        seconds = json.load(file)["timings"]["last_run_seconds"]
    speed = f"{words / seconds:.0f} words/s"
    texts = f"{len(outputs[mode])} texts, {words} words"
    print(f"{mode:<7} {texts} in {seconds:.1f} s, loading included: {speed}")
print(f"All of them: {output}/MODE/part-*.jsonl; each job's manifest: {output}/MODE/_SUCCESS")
PY
