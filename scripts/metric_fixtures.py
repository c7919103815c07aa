#!/usr/bin/env python3
"""Writes tests/fixtures/metrics/scores.json: scores of small corpora, by the packages that baton-metrics has
to agree with.

    python3 -m venv .venv && .venv/bin/pip install sacrebleu==2.6.0 rouge-score==0.1.2 nltk==3.10.4
    .venv/bin/python scripts/metric_fixtures.py

The corpora are written for this purpose. Outputs are made from references by seeded edits, so that all orders
of n-grams match sometimes. The file has
  corpora   name, outputs, references, and scores from 0 to 100: bleu, chrf, rouge by kind without and
            with stemming
  stems     words and their stems
"""

import json
import random
from pathlib import Path

import nltk
import sacrebleu
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer

OUT = Path(__file__).resolve().parent.parent / "tests/fixtures/metrics/scores.json"
NUM_RANDOM_CORPORA = 24
ROUGE_KINDS = ["rouge1", "rouge2", "rougeL"]

SENTENCES = [
    "Il faro stava all'estremità di una stretta lingua di terra, a tre miglia dal villaggio più vicino.",
    "Questo pacchetto contiene i file di sviluppo (intestazioni e libreria statica) per la versione "
    "2.4.1-rc3.",
    "The keeper read the logbooks: 1,204 pages in all, from 1888-1902; nobody had asked why.",
    'Supporta IPv4/IPv6, TLS 1.3 e l\'autenticazione "SASL" (vedere sasl2-bin).',
    "Programs are linked against libfoo.so.6, not libfoo.so.5 -- rebuild them.",
    "Un programma per convertire immagini tra PNG, JPEG e WebP: veloce, semplice, libero!",
    "perché no? Costa €3,50 (circa $4.00) & dura 10-12 ore",
    "naïve café — “déjà vu” … ½ kg",
    "東京は日本の首都です。 Tokyo is the capital of Japan.",
    "It was the best of times, it was the worst of times, it was the age of wisdom.",
    "Relational databases generalize hopping, skipping and flying; dying skies are lying.",
    "email: someone@example.org, http://example.org/path?x=1&y=2#top",
]

CASES = {
    "identical": (SENTENCES, SENTENCES),
    "nothing in common": (["alpha beta gamma delta"], ["uno due tre quattro"]),
    "empty outputs": (["", "  ", "one two three four five"], ["a b c d e", "f g", "one two three four six"]),
    "all empty": (["", ""], ["a b", "c"]),
    "empty reference": (["a b c d e", "x"], ["", "x"]),
    "shorter than four words": (["one", "one two", "one two three"], ["one", "one three", "one two four"]),
    "unigrams alone match": (["d c b a e"], ["a b c d e"]),
    "much shorter than the reference": (
        ["the cat"],
        ["the cat sat on the mat and looked at the bird for hours"],
    ),
    "longer than the reference": (
        ["the cat sat on the mat on the mat on the mat"],
        ["the cat sat on the mat"],
    ),
    "entities and marks": (
        [
            "&quot;a&quot; &amp;lt; b &lt;c&gt; <skipped>x end-\nword two\nlines 3.",
            "x86-64, v1.2,3.4 .5 6. 7-8 a.b,c",
        ],
        ['"a" &lt; b <c> x endword two lines 3 .', "x86 - 64, v 1.2,3.4 . 5 6. 7 - 8 a.b , c"],
    ),
    "odd white space": (
        ["a\u00a0b\u2003c\td\u001fe f\u3000g", " lead and trail \t"],
        ["a b c d e f g", "lead and trail"],
    ),
    "repeated words": (["the the the the the the the"], ["the cat is on the mat the end"]),
    "case": (["The Cat SAT on the Mat today"], ["the cat sat on the mat today"]),
}


def mutated(words, rng, strength):
    result = []
    for word in words:
        draw = rng.random()
        if draw < strength / 3:
            continue
        if draw < 2 * strength / 3:
            result.append(rng.choice(SENTENCES).split()[0])
        result.append(word)
        if draw > 1 - strength / 4 and len(result) > 1:
            result[-1], result[-2] = result[-2], result[-1]
    return result


def random_case(number):
    rng = random.Random(number)
    references = [rng.choice(SENTENCES) for _ in range(rng.randint(1, 12))]
    strength = rng.choice([0.05, 0.2, 0.5, 0.9])
    return [" ".join(mutated(text.split(), rng, strength)) for text in references], references


def scores(outputs, references):
    result = {
        "bleu": sacrebleu.BLEU().corpus_score(outputs, [references]).score,
        "chrf": sacrebleu.CHRF().corpus_score(outputs, [references]).score,
    }
    for name, stem in (("rouge", False), ("rouge_stemmed", True)):
        scorer = rouge_scorer.RougeScorer(ROUGE_KINDS, use_stemmer=stem)
        pairs = [scorer.score(reference, output) for output, reference in zip(outputs, references)]
        result[name] = [100 * sum(pair[kind].fmeasure for pair in pairs) / len(pairs) for kind in ROUGE_KINDS]
    return result


def words_to_stem():
    """Real words, and invented ones that meet every rule with every length of stem."""
    stems = (
        "a y b cat hop sky try fly tax row toy fail size adopt relat trouble consign electr condit archaeo "
        "geo ox 3d x86"
    )
    suffixes = (
        "s es ies ss sses ed eed ied ing y ying ly e ee ational tional enci anci izer bli abli alli entli "
        "eli ousli ization ation ator alism iveness fulness ousness aliti iviti biliti fulli logi icate "
        "ative alize iciti ical ful ness al ance ence er ic able ible ant ement ment ent ion sion tion ou "
        "ism ate iti ous ive ize ll ally bbed lled zzing"
    )
    irregular = (
        "sky skies dying lying tying news inning innings outing outings canning cannings howe proceed "
        "exceed succeed"
    )
    words = {word.lower() for text in SENTENCES for word in text.split() if word.isascii() and word.isalnum()}
    words |= {stem + suffix for stem in stems.split() for suffix in [""] + suffixes.split()}
    return sorted(words | set(irregular.split()))


def main():
    cases = dict(CASES) | {f"random {number}": random_case(number) for number in range(NUM_RANDOM_CORPORA)}
    stemmer = PorterStemmer()
    fixture = {
        "made_by": "scripts/metric_fixtures.py",
        "versions": {"sacrebleu": sacrebleu.__version__, "rouge-score": "0.1.2", "nltk": nltk.__version__},
        "corpora": [
            {
                "name": name,
                "outputs": outputs,
                "references": references,
                "scores": scores(outputs, references),
            }
            for name, (outputs, references) in cases.items()
        ],
        "stems": {word: stemmer.stem(word) for word in words_to_stem()},
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(fixture, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {OUT}: {len(cases)} corpora, {len(fixture['stems'])} stems")


if __name__ == "__main__":
    main()
