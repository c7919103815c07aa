#!/usr/bin/env python3
"""A Firefox Translations student in NumPy, f32 and greedy: what model/tests/bergamot.rs compares with.

    bergamot_reference.py DIRECTORY [--lines FILE] [--out FILE]
    bergamot_reference.py --fixture

DIRECTORY has one student: model.*.bin and vocab.*.spm. FILE has a text a line (default: the committed
sentences of tests/fixtures/bergamot). Writes JSON lines: the text, its ids, the ids of the greedy
translation, the translation, and by how much the chosen token led where that was closest. `--fixture` writes
tests/fixtures/families/bergamot: a student of random weights, and what model/tests/families expects of it.
Needs `pip install numpy sentencepiece==0.2.3`.

Written from the file and the papers alone, not from Baton's code: Kim et al., "From Research to Production
and Back" (ACL Anthology D19-5632), for the SSRU decoder; Vaswani et al., arXiv 1706.03762, for the rest.
"""

import argparse
import json
import struct
import sys
from pathlib import Path

import numpy
import sentencepiece

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "bergamot"
FAMILIES = FIXTURES.parent / "families"
FLOAT, INT8 = 0x404, 0x4101
END = 0  # `</s>`


def read_model(path):
    """Tensors by name, int8 ones dequantized, and the settings as text."""
    data = path.read_bytes()
    version, count = struct.unpack_from("<QQ", data)
    assert version == 1, version
    offset = 16
    headers = [struct.unpack_from("<4Q", data, offset + 32 * index) for index in range(count)]
    offset += 32 * count
    names, shapes = [], []
    for name_len, *_ in headers:
        names.append(data[offset : offset + name_len].rstrip(b"\0").decode())
        offset += name_len
    for _, _, num_dimensions, _ in headers:
        shapes.append(struct.unpack_from(f"<{num_dimensions}i", data, offset))
        offset += 4 * num_dimensions
    (padding,) = struct.unpack_from("<Q", data, offset)
    offset += 8 + padding
    tensors, settings = {}, ""
    for (_, kind, _, num_bytes), name, shape in zip(headers, names, shapes):
        if kind == FLOAT:
            stored = numpy.frombuffer(data, numpy.float32, int(numpy.prod(shape)), offset)
            tensors[name] = stored.reshape(shape)
        elif kind == INT8:
            rows, columns = shape
            stored = numpy.frombuffer(data, numpy.int8, rows * columns, offset).astype(numpy.float32)
            (multiplier,) = struct.unpack_from("<f", data, offset + rows * columns)
            matrix = stored.reshape(rows, columns) if name == "Wemb" else stored.reshape(columns, rows).T
            tensors[name] = numpy.ascontiguousarray(matrix) / numpy.float32(multiplier)
        elif name == "special:model.yml":
            settings = data[offset : offset + num_bytes].rstrip(b"\0").decode()
        offset += num_bytes
    return tensors, settings


class Student:
    def __init__(self, tensors, settings):
        self.tensors = tensors
        setting = dict(line.split(": ", 1) for line in settings.splitlines() if ": " in line)
        self.width = int(setting["dim-emb"])
        self.heads = int(setting["transformer-heads"])
        self.encoder_depth, self.decoder_depth = int(setting["enc-depth"]), int(setting["dec-depth"])
        self.head_weight = numpy.ascontiguousarray(self.tensors["Wemb"].T)

    def linear(self, x, weight, bias=None):
        y = x @ self.tensors[weight]
        return y if bias is None else y + self.tensors[bias]

    def norm(self, x, name):
        mean = x.mean(-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(-1, keepdims=True)
        normed = (x - mean) / numpy.sqrt(variance + numpy.float32(1e-6))
        return normed * self.tensors[name + "_ln_scale"] + self.tensors[name + "_ln_bias"]

    def positions(self, places):
        half = self.width // 2
        frequencies = numpy.exp(-numpy.log(10000.0) * numpy.arange(half) / (half - 1))
        angles = numpy.asarray(places, numpy.float64)[:, None] * frequencies
        return numpy.concatenate([numpy.sin(angles), numpy.cos(angles)], 1).astype(numpy.float32)

    def embed(self, ids):
        return self.tensors["Wemb"][ids] * numpy.float32(numpy.sqrt(self.width))

    def attend(self, q, k, v):
        """One sequence: q [rows, width], k and v [keys, width]."""
        split = lambda x: x.reshape(len(x), self.heads, -1).transpose(1, 0, 2)
        q, k, v = split(q), split(k), split(v)
        scores = q @ k.transpose(0, 2, 1) / numpy.float32(numpy.sqrt(q.shape[-1]))
        weights = numpy.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ v).transpose(1, 0, 2).reshape(q.shape[1], -1)

    def feed_forward(self, x, name):
        inner = numpy.maximum(self.linear(x, name + "_W1", name + "_b1"), 0)
        return self.norm(x + self.linear(inner, name + "_W2", name + "_b2"), name + "_ffn")

    def attention_part(self, name, part, x):
        return self.linear(x, f"{name}_W{part}", f"{name}_b{part}")

    def encode(self, ids):
        x = self.embed(ids) + self.positions(range(len(ids)))
        for layer in range(1, self.encoder_depth + 1):
            name = f"encoder_l{layer}_self"
            q, k, v = (self.attention_part(name, part, x) for part in "qkv")
            x = self.norm(x + self.attention_part(name, "o", self.attend(q, k, v)), name + "_Wo")
            x = self.feed_forward(x, f"encoder_l{layer}_ffn")
        return x

    def start(self, ids):
        """The start of decoding: each block's keys and values of the prompt, and its state."""
        states = self.encode(ids)
        contexts = [f"decoder_l{layer}_context" for layer in range(1, self.decoder_depth + 1)]
        prompts = [tuple(self.attention_part(name, part, states) for part in "kv") for name in contexts]
        return prompts, [numpy.zeros((1, self.width), self.head_weight.dtype) for _ in contexts]

    def step(self, prompts, cells, token, place):
        """Logits behind a token, none for the first place, and the new states."""
        embedded = numpy.zeros((1, self.width), numpy.float32) if token is None else self.embed([token])
        x, cells = embedded + self.positions([place]), list(cells)
        for index, prompt in enumerate(prompts):
            name, context = f"decoder_l{index + 1}_rnn", f"decoder_l{index + 1}_context"
            forget = 1 / (1 + numpy.exp(-self.linear(x, name + "_Wf", name + "_bf")))
            cells[index] = forget * cells[index] + (1 - forget) * self.linear(x, name + "_W")
            x = self.norm(x + numpy.maximum(cells[index], 0), name + "_ffn")
            q = self.attention_part(context, "q", x)
            x = self.norm(x + self.attention_part(context, "o", self.attend(q, *prompt)), context + "_Wo")
            x = self.feed_forward(x, f"decoder_l{index + 1}_ffn")
        return (x @ self.head_weight + self.tensors["decoder_ff_logit_out_b"])[0], cells

    def translate(self, ids, max_new_tokens=256):
        """Greedy ids without `</s>`, and the smallest lead of a chosen token over the second."""
        prompts, cells = self.start(ids)
        written, closest, token = [], numpy.inf, None  # there is no begin token
        for place in range(max_new_tokens):
            logits, cells = self.step(prompts, cells, token, place)
            token = int(logits.argmax())
            closest = min(closest, float(logits[token] - numpy.partition(logits, -2)[-2]))
            if token == END:
                break
            written.append(token)
        return written, closest

    def beams(self, ids, max_new_tokens, num_beams):
        """The best sequences where none ends, best first, and the smallest lead of one that was kept."""
        prompts, cells = self.start(ids)
        live, closest = [(0.0, [], cells)], numpy.inf
        for place in range(max_new_tokens):
            candidates = []
            for score, written, cells in live:
                logits, new_cells = self.step(prompts, cells, written[-1] if written else None, place)
                shifted = logits - logits.max()
                logs = shifted - numpy.log(numpy.exp(shifted).sum())
                best = logs.argsort()[::-1][: num_beams + 1]
                for token in best:
                    candidates.append((score + float(logs[token]), written + [int(token)], new_cells))
            candidates.sort(key=lambda candidate: -candidate[0])
            scores = [score for score, *_ in candidates[: num_beams + 1]]
            closest = min(closest, float(-numpy.diff(scores).max()))
            live = candidates[:num_beams]
        return [written for _, written, _ in live], closest


# ------------------------------------------------------------------------- a student of random weights

WIDTH, HEADS, INNER, DEPTHS, VOCABULARY = 40, 5, 56, (3, 2), 61
NUM_NEW_TOKENS, NUM_BEAMS = 20, 4
SETTINGS = f"dim-emb: {WIDTH}\ntransformer-heads: {HEADS}\nenc-depth: {DEPTHS[0]}\ndec-depth: {DEPTHS[1]}\n"


def random_student(seed):
    """Tensors under Marian's names, and the name in config's order that each has in Baton's checkpoint."""
    random_numbers = numpy.random.default_rng(seed)
    tensors, names = {}, {}

    def add(marian, name, shape, deviation, mean=0.0):
        numbers = (random_numbers.standard_normal(shape) * deviation + mean).astype(numpy.float32)
        tensors[marian] = (numbers.view(numpy.uint32) & 0xFFFF0000).view(numpy.float32)  # bf16 numbers
        names[marian] = name

    def linear(marian, weight, bias, name, inputs, outputs):
        add(f"{marian}_{weight}", name + ".weight", (inputs, outputs), inputs**-0.5)
        if bias:
            add(f"{marian}_{bias}", name + ".bias", (1, outputs), 0.2)

    def norm(marian, name):
        add(marian + "_ln_scale", name + ".weight", (1, WIDTH), 0.2, 1.0)
        add(marian + "_ln_bias", name + ".bias", (1, WIDTH), 0.2)

    add("Wemb", "model.shared.weight", (VOCABULARY, WIDTH), WIDTH**-0.5)
    for stack, depth in zip(("encoder", "decoder"), DEPTHS):
        for layer in range(depth):
            marian, name = f"{stack}_l{layer + 1}", f"model.{stack}.layers.{layer}"
            if stack == "decoder":
                linear(marian + "_rnn", "Wf", "bf", name + ".rnn.forget", WIDTH, WIDTH)
                linear(marian + "_rnn", "W", None, name + ".rnn.input", WIDTH, WIDTH)
                norm(marian + "_rnn_ffn", name + ".rnn_layer_norm")
            part, own = ("context", "encoder_attn") if stack == "decoder" else ("self", "self_attn")
            for letter, projection in zip("qkvo", ("q_proj", "k_proj", "v_proj", "out_proj")):
                own_name = f"{name}.{own}.{projection}"
                linear(f"{marian}_{part}", "W" + letter, "b" + letter, own_name, WIDTH, WIDTH)
            norm(f"{marian}_{part}_Wo", f"{name}.{own}_layer_norm")
            linear(marian + "_ffn", "W1", "b1", name + ".fc1", WIDTH, INNER)
            linear(marian + "_ffn", "W2", "b2", name + ".fc2", INNER, WIDTH)
            norm(marian + "_ffn_ffn", name + ".final_layer_norm")
    add("decoder_ff_logit_out_b", "final_logits_bias", (1, VOCABULARY), 0.5)
    tensors["decoder_ff_logit_out_b"][0, END] = -64.0  # so that no sequence ends
    return tensors, names


def write_checkpoint(directory, tensors, names):
    """model.safetensors in bf16, matrices that are multiplied as [out, in], and config.json."""
    header, data = {}, b""
    for marian, name in names.items():
        numbers = tensors[marian]
        if name not in ("model.shared.weight", "final_logits_bias"):
            numbers = numbers[0] if numbers.shape[0] == 1 else numbers.T
        stored = (numpy.ascontiguousarray(numbers).view(numpy.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(data), len(data) + len(stored)]
        header[name] = {"dtype": "BF16", "shape": list(numbers.shape), "data_offsets": offsets}
        data += stored
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    config = {
        "architectures": ["BergamotForConditionalGeneration"],
        "model_type": "bergamot", "vocab_size": VOCABULARY,
        "d_model": WIDTH, "encoder_ffn_dim": INNER, "encoder_layers": DEPTHS[0], "decoder_layers": DEPTHS[1],
        "encoder_attention_heads": HEADS, "max_position_embeddings": 512, "layer_norm_eps": 1e-6,
        "activation_function": "relu", "is_encoder_decoder": True, "decoder_start_token_id": END,
        "tie_word_embeddings": True, "eos_token_id": END, "dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def expected_prompt(student, random_numbers, num_tokens):
    draw = lambda count: [int(token) for token in random_numbers.integers(1, VOCABULARY, count)]
    tokens, forced = draw(num_tokens), draw(30)
    states = student.encode(tokens)[[0, num_tokens // 2, num_tokens - 1]]
    prompts, cells = student.start(tokens)
    for place, token in enumerate([None] + forced):
        logits, cells = student.step(prompts, cells, token, place)
    greedy, closest = student.translate(tokens, NUM_NEW_TOKENS)
    beams, closest_beam = student.beams(tokens, NUM_NEW_TOKENS, NUM_BEAMS)
    if min(closest, closest_beam) < 1e-4:
        raise SystemExit(f"a near tie for a prompt of {num_tokens} tokens: take another seed")
    return {
        "tokens": tokens, "hidden_states": [float(x) for x in states.flatten()], "forced": forced,
        "logits": [float(x) for x in logits], "greedy": greedy, "beams": beams,
    }


def write_fixture():
    directory = FAMILIES / "bergamot"
    directory.mkdir(exist_ok=True)
    tensors, names = random_student(seed=3)
    write_checkpoint(directory, tensors, names)
    student, random_numbers = Student(tensors, SETTINGS), numpy.random.default_rng(4)
    expected = {
        "made_by": "scripts/bergamot_reference.py", "layer": DEPTHS[0], "max_new_tokens": NUM_NEW_TOKENS,
        "num_beams": NUM_BEAMS,
        "prompts": [expected_prompt(student, random_numbers, length) for length in (2, 3, 9, 17, 30, 41)],
    }
    (directory / "expected.json").write_text(json.dumps(expected) + "\n")


def main():
    raw = argparse.RawDescriptionHelpFormatter
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    arguments.add_argument("directory", type=Path, nargs="?")
    arguments.add_argument("--fixture", action="store_true")
    arguments.add_argument("--lines", type=Path)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    if options.fixture:
        return write_fixture()
    spm = next(options.directory.glob("vocab.*.spm"))
    pair = spm.name.split(".")[1]
    lines = options.lines or FIXTURES / f"{pair[:2]}.txt"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    student = Student(*read_model(next(options.directory.glob("model.*.bin"))))
    with open(options.out or FIXTURES / f"{pair}.jsonl", "w") as out:
        for text in lines.read_text().splitlines():
            ids = processor.encode(text) + [0]
            written, closest = student.translate(ids)
            case = {"text": text, "ids": ids, "greedy": written, "decoded": processor.decode(written),
                    "closest": round(closest, 4)}
            out.write(json.dumps(case, ensure_ascii=False) + "\n")
            print(case["decoded"], file=sys.stderr)


if __name__ == "__main__":
    main()
