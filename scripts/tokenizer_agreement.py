#!/usr/bin/env python3
"""Compares how two tokenizers cut the words that a target copies from its source.

    python3 -m pip install tokenizers
    scripts/tokenizer_agreement.py --llm models/en-it/llm --slm data/runs/en-it
        --train data/en-it/train.jsonl --dev data/en-it/dev.jsonl

Words are what the LLM's pre-tokenizer gives. A copied word is one of at least three characters, with a
letter, that source and target of a dev pair both have. It is rare if the targets of the training pairs have
it fewer than 5 times, uncommon below 50.
"""

import argparse
import collections
import json
from pathlib import Path

from tokenizers import Tokenizer

UNCOMMON, RARE = 50, 5
WORD_START = "\u0120"  # how byte-level tokenizers write a space


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llm", type=Path, required=True, help="directory with the LLM's tokenizer.json")
    parser.add_argument(
        "--slm", type=Path, required=True, help="directory with the small model's tokenizer.json"
    )
    parser.add_argument("--train", type=Path, required=True, help="pairs that say how frequent a word is")
    parser.add_argument("--dev", type=Path, required=True, help="pairs to look at")
    arguments = parser.parse_args()
    llm, slm = (Tokenizer.from_file(str(path / "tokenizer.json")) for path in (arguments.llm, arguments.slm))

    def words(text):
        return [word for word, _ in llm.pre_tokenizer.pre_tokenize_str(text)]

    frequency = collections.Counter(word for _, target in pairs(arguments.train) for word in words(target))
    num_words = num_tokens = 0
    copied = []
    for source, target in pairs(arguments.dev):
        num_words += len(target.split())
        num_tokens += len(slm.encode(target, add_special_tokens=False).ids)
        in_source = set(words(source))
        copied += [word for word in words(target) if word in in_source and is_name_like(word)]

    def alike(limit):
        chosen = [word for word in copied if frequency[word] < limit]
        # Bytes are written as characters by both, so a word can be cut as it stands.
        same = sum(cut(llm, word) == cut(slm, word) for word in chosen)
        return f"{100 * same / len(chosen):.1f} % of {len(chosen)}"

    print(f"tokens a target word  {num_tokens / num_words:.3f}")
    print(f"uncommon words alike  {alike(UNCOMMON)}")
    print(f"rare words alike      {alike(RARE)}")


def pairs(path):
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["source"], row["target"]


def is_name_like(word):
    return any(character.isalpha() for character in word) and len(word.lstrip(WORD_START)) >= 3


def cut(tokenizer, word):
    return [token.value for token in tokenizer.model.tokenize(word)]


if __name__ == "__main__":
    main()
