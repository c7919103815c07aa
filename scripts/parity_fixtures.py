#!/usr/bin/env python3
"""Makes tests/fixtures/parity/smollm2.json: what Hugging Face transformers computes for 50 prompts.

The fixtures are the independent reference of Baton's tokenizer and Llama. They were made, in f32 on one CPU
thread, with the versions that the file itself records, by

    baton bundle import-llm --from SmolLM2-135M-Instruct.Q4_1.gguf --out LLM
    python3 scripts/parity_fixtures.py --llm LLM --gguf SmolLM2-135M-Instruct.Q4_1.gguf

(packages torch, transformers, accelerate, gguf). With --gguf the script first proves the import itself:
transformers' own reader of that GGUF file must give bit-identical weights and logits.

For each prompt the file has
  template, text       the prompt is the template with {text} replaced; the template's special tokens are
                       special
  prompt_ids           token ids of the whole
  greedy_ids           64 new tokens, argmax each, going on past the end-of-text token
  smallest_margin      over those 64 steps, the least gap between the two largest logits: with a smaller
                       numeric error than this, an implementation must produce the same tokens
  top_logits           the 8 largest logits [id, value] that follow the prompt
  hidden_states        after block 20, before any final norm, at some positions: the first 8 values, the
                       L2 norm
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

NUM_NEW_TOKENS = 64
NUM_TOP_LOGITS = 8
HIDDEN_STATES_LAYER = 20
NUM_HIDDEN_VALUES = 8

PLAIN = "{text}"
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
)
TURN = "<|im_start|>{text}<|im_end|>"
TRANSLATE = "<|im_start|>user\nTranslate to Italian: {text}<|im_end|>\n<|im_start|>assistant\n"

LONG = (
    "The lighthouse stood at the end of a narrow spit of land, three miles from the nearest village. Its "
    "keeper, a retired teacher of mathematics, climbed the two hundred and twelve steps each evening to "
    "trim the lamp, and each morning to put it out. In between he read. He read the novels that summer "
    "visitors had left behind, the almanacs that the harbour office sent him every January, and, when the "
    "nights were very long, the logbooks of the keepers before him. From these he learned that in the "
    "winter of 1888 the sea had frozen as far as the outer buoy; that a keeper called Aldous Finch had kept "
    "bees in the lamp room; and that nobody, in a hundred and forty years, had ever written down why the "
    "lighthouse had been built where no ship had reason to pass. He began to suspect that the answer was in "
    "the walls."
)
MANUAL = (
    "SYNOPSIS\n    archive [-v] [-c LEVEL] SOURCE... TARGET\n\nDESCRIPTION\n    Packs every SOURCE into "
    "TARGET. Directories are walked in byte order of their names, so that two archives of equal trees are "
    "equal byte for byte. Symbolic links are stored, not followed. Sockets and devices are skipped with a "
    "warning.\n\nOPTIONS\n    -v          print each name as it is packed\n    -c LEVEL    compression "
    "level from 0 (none) to 19 (slow), default 3\n\nEXIT STATUS\n    0   all sources packed\n    1   some "
    "sources skipped\n    2   nothing written\n\nEXAMPLES\n    archive -c 9 photos/ photos.arc\n    archive "
    "-v /etc /var/spool/cron backup.arc\n\nFILES\n    ~/.archiverc    defaults, one option a line; options "
    "on the command line win\n\nBUGS\n    Sparse files are packed whole. Extended attributes are not kept. "
    "A TARGET inside a SOURCE is packed into itself until the disk is full.\n\nSEE ALSO\n    tar(1), "
    "cpio(1), zstd(1)\n"
)

PROMPTS = [
    # Plain English, to be continued.
    (PLAIN, "The capital of France is"),
    (PLAIN, "Once upon a time, in a village at the foot of a mountain,"),
    (PLAIN, "Water boils at a lower temperature at high altitude because"),
    (PLAIN, "The three most important things to know about sailing are"),
    (PLAIN, "In 1969, the first humans"),
    (PLAIN, "Dear Sir or Madam,\n\nI am writing to complain about"),
    (PLAIN, "Photosynthesis is the process by which"),
    (PLAIN, "He opened the door, and to his surprise"),
    (PLAIN, "Graph databases differ from relational databases in that"),
    # One or a few tokens.
    (PLAIN, "The"),
    (PLAIN, "\n"),
    (PLAIN, "7"),
    (PLAIN, "é"),
    # Instructions, in the chat template that the model was trained with.
    (CHAT, "What is the capital of Italy?"),
    (CHAT, "Write a haiku about the sea."),
    (CHAT, "Explain in two sentences what a compiler does."),
    (CHAT, "List five fruits that are red."),
    (
        CHAT,
        "Summarize: The cat sat on the mat. The dog barked at the cat. The cat ran up a tree and stayed "
        "there.",
    ),
    (CHAT, "Is 91 a prime number? Answer yes or no, then explain."),
    (CHAT, "Correct the grammar: she don't has no time for to go."),
    (CHAT, "Give me a recipe for tomato soup."),
    (CHAT, "Who wrote 'The Divine Comedy', and in which century?"),
    (CHAT, "Rewrite politely: Send me the report now!"),
    # Translation prompts as bundles use them.
    (TRANSLATE, "The package contains the documentation."),
    (TRANSLATE, "small and fast web browser for the terminal"),
    (TURN, "shared library for reading and writing PNG images (development files)"),
    (TURN, "This package provides the command line tools."),
    # Code and markup.
    (PLAIN, "def fibonacci(n):\n    "),
    (PLAIN, "fn main() {\n    let numbers = vec![1, 2, 3];\n    for number in &numbers {\n"),
    (PLAIN, "#include <stdio.h>\n\nint main(void)\n{\n\tprintf("),
    (PLAIN, "SELECT name, COUNT(*) FROM packages\nWHERE section = 'libs'\nGROUP BY"),
    (PLAIN, '{"name": "baton", "version": "0.1.0", "dependencies": {'),
    (PLAIN, "<html>\n  <head>\n    <title>Hello</title>\n  </head>\n  <body>\n"),
    (CHAT, "Write a Python function that reverses a string."),
    # Numbers and white space.
    (PLAIN, "1, 2, 3, 5, 8, 13, 21,"),
    (PLAIN, "3.14159265358979 * 2 ="),
    (PLAIN, "Invoice 2024-00317: 12 items at 19.99 EUR each, total"),
    (PLAIN, "On 03/07/2021 at 14:05:59   the   counter   read   000123456."),
    (PLAIN, "a\tb\tc\n1\t2\t3\n4\t5\t"),
    # Italian and other languages, other scripts, symbols.
    (PLAIN, "Nel mezzo del cammin di nostra vita"),
    (CHAT, "Come si dice 'good morning' in italiano?"),
    (PLAIN, "La libreria è compatibile con le versioni precedenti perché"),
    (PLAIN, "Straßenbahnen fahren über die Brücke, während"),
    (PLAIN, "Привет, как дела?"),
    (PLAIN, "東京は日本の首都です。"),
    (PLAIN, "Emoji test: 🙂🚀👩‍💻 and math: ∑ x² ≤ ∞ → done"),
    (CHAT, "What does the phrase “déjà vu” mean?"),
    # A few hundred tokens.
    (PLAIN, LONG),
    (PLAIN, MANUAL),
    (CHAT, "Summarize this text in one sentence.\n\n" + LONG),
]


def load(directory, **options):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **options).eval()


def check_import(model, tokenizer, gguf):
    """Exits with a message unless transformers reads the same weights and logits from the GGUF file
    itself."""
    reference = load(gguf.parent, gguf_file=gguf.name)
    ours, theirs = model.state_dict(), reference.state_dict()
    if ours.keys() != theirs.keys():
        sys.exit(f"tensor names differ: {sorted(ours.keys() ^ theirs.keys())}")
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    if different:
        sys.exit(f"{len(different)} tensors differ, the first is {different[0]}")
    for template, text in PROMPTS[::7]:
        ids = torch.tensor([tokenizer.encode(template.replace("{text}", text), add_special_tokens=False)])
        if not torch.equal(model(ids).logits, reference(ids).logits):
            sys.exit(f"logits differ for {text[:40]!r}")
    print(
        f"import checked: {len(ours)} tensors and the logits of {len(PROMPTS[::7])} prompts are bit-identical"
    )


def rounded(values):
    return [float(f"{value:.7g}") for value in values]


def fixture(model, tokenizer, template, text):
    prompt_ids = tokenizer.encode(template.replace("{text}", text), add_special_tokens=False)
    output = model(torch.tensor([prompt_ids]), output_hidden_states=True, use_cache=True)
    hidden = output.hidden_states[HIDDEN_STATES_LAYER][0]  # [prompt_len, d_model]
    first_logits = output.logits[0, -1]
    top = torch.topk(first_logits, NUM_TOP_LOGITS)

    greedy_ids, smallest_margin, cache, logits = [], float("inf"), output.past_key_values, first_logits
    while True:
        best = torch.topk(logits, 2)
        smallest_margin = min(smallest_margin, float(best.values[0] - best.values[1]))
        greedy_ids.append(int(best.indices[0]))
        if len(greedy_ids) == NUM_NEW_TOKENS:
            break
        output = model(torch.tensor([greedy_ids[-1:]]), past_key_values=cache, use_cache=True)
        cache, logits = output.past_key_values, output.logits[0, -1]

    positions = sorted({0, len(prompt_ids) // 2, len(prompt_ids) - 1})
    return {
        "template": template,
        "text": text,
        "prompt_ids": prompt_ids,
        "greedy_ids": greedy_ids,
        "smallest_margin": float(f"{smallest_margin:.3g}"),
        "top_logits": [[int(i), v] for i, v in zip(top.indices, rounded(top.values.tolist()))],
        "hidden_states": [
            {
                "position": position,
                "values": rounded(hidden[position, :NUM_HIDDEN_VALUES].tolist()),
                "norm": rounded([hidden[position].norm().item()])[0],
            }
            for position in positions
        ],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--llm", type=Path, required=True, help="directory that `baton bundle import-llm` wrote"
    )
    parser.add_argument("--gguf", type=Path, help="the GGUF file it was imported from, to check the import")
    parser.add_argument("--out", type=Path, default=Path("tests/fixtures/parity/smollm2.json"))
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    tokenizer = AutoTokenizer.from_pretrained(arguments.llm)
    model = load(arguments.llm)
    if arguments.gguf:
        check_import(model, tokenizer, arguments.gguf)

    prompts = []
    for number, (template, text) in enumerate(PROMPTS, 1):
        prompts.append(fixture(model, tokenizer, template, text))
        made = prompts[-1]
        print(
            f"{number}/{len(PROMPTS)}: {len(made['prompt_ids'])} tokens, smallest margin "
            f"{made['smallest_margin']}: {tokenizer.decode(made['greedy_ids'])[:60]!r}",
            flush=True,
        )

    header = {
        "made_by": "scripts/parity_fixtures.py",
        "model": "SmolLM2-135M-Instruct, GGUF Q4_1, dequantized to f32",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "hidden_states_layer": HIDDEN_STATES_LAYER,
    }
    fields = json.dumps(header, ensure_ascii=False)[1:-1]
    lines = ",\n".join(json.dumps(prompt, ensure_ascii=False) for prompt in prompts)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(f"{{{fields}, \"prompts\": [\n{lines}\n]}}\n", encoding="utf-8")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
