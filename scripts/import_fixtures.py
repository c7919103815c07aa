#!/usr/bin/env python3
"""Makes import/tests/fixtures/: the tokenizers' files of small models as their directories have them, and the
tokens that Hugging Face transformers makes of texts with them.

Needs transformers, sentencepiece and protobuf:

    python3 scripts/import_fixtures.py

SentencePiece models are those of bundle/tests/fixtures/sentencepiece, whose texts and pieces are used, and
one that is trained here on the same texts. The test puts them beside the other files: `cases.json.gz` says
which goes where.
"""

import gzip
import io
import json
import shutil
import tempfile
import unicodedata
from pathlib import Path

import sentencepiece
import transformers
from transformers import (
    M2M100Tokenizer,
    MarianTokenizer,
    MBart50Tokenizer,
    MBartTokenizer,
    NllbTokenizer,
    PegasusTokenizer,
    T5Tokenizer,
)

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "import" / "tests" / "fixtures"
MODELS = ROOT / "bundle" / "tests" / "fixtures" / "sentencepiece"
NUM_TEXTS = 60


def texts():
    """Lines of the other fixtures that have neither control characters nor special tokens in them."""
    lines = gzip.decompress((MODELS / "unigram.jsonl.gz").read_bytes()).decode().rstrip("\n").split("\n")
    known = [json.loads(line)["text"] for line in lines]
    # transformers normalizes letters of several characters otherwise than sentencepiece.
    known = [text for text in known if text == unicodedata.normalize("NFKC", text).strip()]
    plain = [text for text in known if text.isprintable() and not set("<\ufffd") & set(text)]
    return [text for text in plain[:: max(1, len(plain) // NUM_TEXTS)] if "▁" not in text]


def pieces(name):
    model = sentencepiece.SentencePieceProcessor(model_file=str(MODELS / name))
    return [model.id_to_piece(piece) for piece in range(model.vocab_size())]


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def marian(directory):
    """Two models, ids by `vocab.json`, and tokens for languages in it: a multilingual opus-mt."""
    own = {"</s>", "<unk>", "<s>"}
    both = sorted({*pieces("unigram.spm"), *pieces("bpe-plain.spm")} - own)
    vocabulary = ["</s>", "<unk>", ">>fra<<", ">>por<<", *both, "<pad>"]
    write_json(directory / "vocab.json", {piece: index for index, piece in enumerate(vocabulary)})
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "MarianTokenizer"})
    files = {"source.spm": "unigram.spm", "target.spm": "bpe-plain.spm"}
    return files, lambda path: MarianTokenizer.from_pretrained(path), (">>fra<< ", "")


def m2m_100(directory):
    """One model, ids by `vocab.json`, languages in `special_tokens_map.json`."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *pieces("bpe-plain.spm")[3:]]
    write_json(directory / "vocab.json", {piece: index for index, piece in enumerate(vocabulary)})
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "M2M100Tokenizer"})
    languages = transformers.models.m2m_100.tokenization_m2m_100.FAIRSEQ_LANGUAGE_CODES["m2m100"]
    special = {"additional_special_tokens": [f"__{language}__" for language in languages]}
    write_json(directory / "special_tokens_map.json", special)
    load = lambda path: M2M100Tokenizer.from_pretrained(path, src_lang="pt", tgt_lang="fr")
    return {"sentencepiece.bpe.model": "bpe-plain.spm"}, load, ("", "__fr__")


def mbart_50(directory):
    """One model, whose pieces' ids are one more in the embedding matrix."""
    languages = transformers.models.mbart50.tokenization_mbart50.FAIRSEQ_LANGUAGE_CODES
    config = {"tokenizer_class": "MBart50Tokenizer", "additional_special_tokens": languages}
    write_json(directory / "tokenizer_config.json", config)
    load = lambda path: MBart50Tokenizer.from_pretrained(path, src_lang="pt_XX", tgt_lang="fr_XX")
    return {"sentencepiece.bpe.model": "unigram.spm"}, load, ("", "fr_XX")


def mbart(directory):
    """The same, of the first mBART: languages stand behind texts, and begin outputs."""
    languages = transformers.models.mbart.tokenization_mbart.FAIRSEQ_LANGUAGE_CODES
    config = {"tokenizer_class": "MBartTokenizer", "additional_special_tokens": languages}
    write_json(directory / "tokenizer_config.json", config)
    load = lambda path: MBartTokenizer.from_pretrained(path, src_lang="en_XX", tgt_lang="ro_RO")
    return {"sentencepiece.bpe.model": "unigram.spm"}, load, ("", "ro_RO")


def nllb(directory):
    """A `tokenizer.json`, whose own template is for one pair of languages."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(MODELS / "bpe-plain.spm", Path(scratch) / "sentencepiece.bpe.model")
        languages = transformers.models.nllb.tokenization_nllb.FAIRSEQ_LANGUAGE_CODES
        config = {"tokenizer_class": "NllbTokenizer", "additional_special_tokens": languages}
        write_json(Path(scratch) / "tokenizer_config.json", config)
        NllbTokenizer.from_pretrained(scratch).save_pretrained(directory)
    load = lambda path: NllbTokenizer.from_pretrained(path, src_lang="por_Latn", tgt_lang="fra_Latn")
    return {}, load, ("", "fra_Latn")


def pegasus(directory):
    """One model, whose pieces' ids are 103 more in the embedding matrix."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()), model_writer=trained, vocab_size=900, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="identity", num_threads=1,
        character_coverage=0.98, hard_vocab_limit=False, minloglevel=2,
    )
    (directory / "spiece.model").write_bytes(trained.getvalue())
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PegasusTokenizer"})
    return {}, lambda path: PegasusTokenizer.from_pretrained(path), ("", "")


def t5(directory):
    """One model, whose ids are those of the embedding matrix: Pegasus' here."""
    shutil.copy(FIXTURES / "pegasus" / "spiece.model", directory)
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    return {}, lambda path: T5Tokenizer.from_pretrained(path), ("", "")


CASES = {
    "marian": ("marian", marian, "en", "fra"),
    "m2m_100": ("m2m_100", m2m_100, "pt", "fr"),
    "mbart-50": ("mbart", mbart_50, "pt", "fr"),
    "mbart": ("mbart", mbart, "en_XX", "ro_RO"),
    "nllb": ("m2m_100", nllb, "por_Latn", "fra_Latn"),
    "pegasus": ("pegasus", pegasus, "en", "en"),
    "t5": ("t5", t5, "en", "en"),
}


def main():
    transformers.utils.logging.set_verbosity_error()
    shutil.rmtree(FIXTURES, ignore_errors=True)
    cases = []
    for name, (model_type, make, source, target) in CASES.items():
        directory = FIXTURES / name
        directory.mkdir(parents=True)
        models, load, (before, first) = make(directory)
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copytree(directory, scratch, dirs_exist_ok=True)
            for file, model in models.items():
                shutil.copy(MODELS / model, Path(scratch) / file)
            tokenizer = load(scratch)
            written = lambda text: tokenizer(text_target=text).input_ids
            cases.append({
                "name": name,
                "model_type": model_type,
                "models": models,
                "languages": [source, target],
                "pad": tokenizer.pad_token_id,
                "end": tokenizer.eos_token_id,
                "vocab_size": len(tokenizer),
                "first": tokenizer.convert_tokens_to_ids(first) if first else None,
                "texts": [
                    {
                        "text": text,
                        "ids": tokenizer(before + text).input_ids,
                        "written": written(text),
                        "decoded": tokenizer.decode(written(text), skip_special_tokens=True),
                    }
                    for text in texts()
                ],
            })
            print(name, cases[-1]["vocab_size"], cases[-1]["first"], cases[-1]["texts"][3])
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    packed = gzip.compress(f"[\n{lines}\n]\n".encode(), mtime=0)
    (FIXTURES / "cases.json.gz").write_bytes(packed)


if __name__ == "__main__":
    main()
