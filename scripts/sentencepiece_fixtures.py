#!/usr/bin/env python3
"""Makes what bundle/tests/sentencepiece.rs compares with: SentencePiece models, lines in many scripts, and
the ids, spans and decoded texts that the sentencepiece package gives for them.

    sentencepiece_fixtures.py [--lines-per-script 8] [--model FILE.spm ...] [OUT]

needs `pip install sentencepiece==0.2.3 protobuf Babel==2.19.0`. Words are Unicode CLDR's names of languages,
regions and currencies (Unicode-3.0 licence); seeded noise puts in what text has beside words. Without
arguments it writes the committed fixtures; `--lines-per-script 420 --model FILE.spm OUT`, then the test with
BATON_SENTENCEPIECE_CASES=OUT, compare 10,000 lines for a real model as well.
"""

import argparse
import gzip
import io
import json
import random
import shutil
from pathlib import Path

import sentencepiece
from babel import Locale

FIXTURES = Path(__file__).resolve().parent.parent / "bundle" / "tests" / "fixtures" / "sentencepiece"
# One language for each of 24 scripts.
LOCALES = (
    "en pt_BR vi ru el ar he fa hi bn ta te kn ml th lo km my ka hy am zh ja ko".split()
)
NOISE = [
    "  ", "   ", "\t", "\u00a0", "\u3000", "\u2009", "\n", "\u200b", "\u200d", "\ufeff", "\u00ad",
    "...", "…", "½", "ﬁ", "①", "㍿", "Ａｂｃ１２",
    "ｶﾞ", "e\u0301", "A\u030a", "Å", "ǆ", "İ", "ß", "Σς",
    "😀", "👩‍👩‍👧", "🇵🇹", "\u0301",
    "<sep>", "<user>", "<s>", "</s>", "<unk>", "<0x41>", "▁", "▁▁",
    "don’t", "“q”", "3.14", "10,000", "a-b_c",
    "http://x.y/z?q=1", "\x00", "\x7f", "\u0085", "\U00020000",
    "\ufffd", "ก็", "ක්‍ෂ", "ẛ̣", "㌔", "한", "한",
]


def words(locale):
    data = Locale.parse(locale)
    lists = (data.territories, data.languages, data.currencies)
    return [str(name) for names in lists for name in names.values()]


def lines(lines_per_script, seed):
    random_numbers = random.Random(seed)
    for locale in LOCALES:
        names = words(locale)
        for _ in range(lines_per_script):
            parts = random_numbers.choices(names, k=random_numbers.randint(1, 6))
            for _ in range(random_numbers.choice((0, 0, 1, 1, 2, 4))):
                parts.insert(random_numbers.randint(0, len(parts)), random_numbers.choice(NOISE))
            yield random_numbers.choice((" ", " ", " ", "", ", ", "  ")).join(parts)
    yield from ("", " ", "   ", "\u3000", "a", " a", "a ", "\u200b", "<sep>", " <sep> ", "<sep>a<sep>")
    yield "\t\n"


def train(path, corpus, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=model,
        minloglevel=2,
        character_coverage=0.98,
        num_threads=1,
        hard_vocab_limit=False,
        **options,
    )
    path.write_bytes(model.getvalue())


def spans(processor, proto):
    """Bytes of the original text; a token that is a part of a character covers the whole character."""
    places = [(piece.begin, piece.end) for piece in proto.pieces]
    following = None
    for index in range(len(places) - 1, -1, -1):
        if not processor.is_byte(proto.pieces[index].id):
            following = None
            continue
        begin, end = places[index]
        if begin != end or following is None:
            following = places[index]
        places[index] = following
    return places


def main():
    raw = argparse.RawDescriptionHelpFormatter
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    arguments.add_argument("--lines-per-script", type=int, default=8)
    arguments.add_argument("--model", type=Path, action="append", default=[])
    arguments.add_argument("out", type=Path, nargs="?", default=FIXTURES)
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    corpus = [line for line in lines(40, seed=1) if line.strip()]
    symbols = ["<sep>", "<user>", "A", "▁New"]
    unchanged = {"normalization_rule_name": "identity"}
    train(options.out / "unigram.spm", corpus, model_type="unigram", vocab_size=1500)
    train(options.out / "unigram-bytes.spm", corpus, model_type="unigram", vocab_size=1500,
          byte_fallback=True, user_defined_symbols=symbols, remove_extra_whitespaces=False, **unchanged)
    train(options.out / "bpe-bytes.spm", corpus, model_type="bpe", vocab_size=1800, byte_fallback=True,
          user_defined_symbols=symbols, **unchanged)
    train(options.out / "bpe-suffix.spm", corpus, model_type="bpe", vocab_size=1500,
          treat_whitespace_as_suffix=True, user_defined_symbols=symbols, **unchanged)
    train(options.out / "bpe-plain.spm", corpus, model_type="bpe", vocab_size=1500,
          add_dummy_prefix=False, remove_extra_whitespaces=False, **unchanged)
    for model in options.model:
        shutil.copy(model, options.out / model.name)
    test_lines = list(lines(options.lines_per_script, seed=2))
    for model in sorted(options.out.glob("*.spm")):
        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        random_numbers = random.Random(3)
        cases = model.with_suffix(".jsonl.gz")
        with gzip.GzipFile(cases, "wb", mtime=0) as file, io.TextIOWrapper(file, "utf-8") as cases:
            for line in test_lines:
                proto = processor.encode(line, return_type="proto")
                ids = [piece.id for piece in proto.pieces]
                num_others = random_numbers.randint(0, 6)
                shuffled = random_numbers.choices(range(processor.vocab_size()), k=num_others)
                case = {
                    "text": line,
                    "ids": ids,
                    "spans": spans(processor, proto),
                    "decoded": processor.decode(ids),
                    "other_ids": shuffled,
                    "other_decoded": processor.decode(shuffled),
                }
                cases.write(json.dumps(case, ensure_ascii=False) + "\n")
    print(f"{len(test_lines)} lines for each of the models in {options.out}")


if __name__ == "__main__":
    main()
