"""Flan-T5-small as the Python package traceforge-title-model has it, as a Hugging Face directory.

The package has the int8 export of an encoder and a decoder to ONNX. Its norms and relative biases have names;
products with weights are numbered in the order of the layers. Owns that mapping. The result holds the same
numbers in f32: `config.json`, `model.safetensors`, `tokenizer.json`.
"""

import json
import re
import struct

from . import onnx_file
from .parts import SetupError

LAYERS = 8
CONFIG = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": LAYERS,
    "num_decoder_layers": LAYERS,
    "num_heads": 6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "dropout_rate": 0.1,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": True,
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}
ATTENTION = ("q", "k", "v", "o")
FEED_FORWARD = ("wi_0", "wi_1", "wo")


def convert(source, result):
    """Writes the Hugging Face directory `result` from the directory `source` with the package's files."""
    encoder = onnx_file.read_initializers(source / "encoder.onnx")
    decoder = onnx_file.read_initializers(source / "decoder.onnx")
    tensors = {}
    for weights, prefix, ours, products in (
        (encoder, "enc.", "encoder.", encoder_products()),
        (decoder, "m.decoder.", "decoder.", decoder_products()),
    ):
        for name in weights:
            if name.startswith(prefix) and name.endswith("layer_norm.weight"):
                tensors[ours + name[len(prefix) :]] = floats(weights[name])
            elif name.startswith(prefix) and name.endswith("relative_attention_bias.weight_quantized"):
                plain = name[: -len("_quantized")]
                tensors[ours + plain[len(prefix) :]] = dequantized(weights, plain)
        for name, product in zip(products, numbered(weights, len(products))):
            tensors[name] = dequantized(weights, product, is_transposed=True)
    tensors["shared.weight"] = dequantized(decoder, "m.shared.weight")

    result.mkdir()
    write_safetensors(result / "model.safetensors", tensors)
    (result / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None  # the package's, for its titles
    text = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (result / "tokenizer.json").write_text(text, encoding="utf-8")


def encoder_products():
    """Names of the matrices of the encoder in the order of their numbers."""
    names = []
    for layer in range(LAYERS):
        block = f"encoder.block.{layer}.layer."
        names += [f"{block}0.SelfAttention.{part}.weight" for part in ATTENTION]
        names += [f"{block}1.DenseReluDense.{part}.weight" for part in FEED_FORWARD]
    return names


def decoder_products():
    """The same of the decoder, and the head."""
    names = []
    for layer in range(LAYERS):
        block = f"decoder.block.{layer}.layer."
        names += [f"{block}0.SelfAttention.{part}.weight" for part in ATTENTION]
        names += [f"{block}1.EncDecAttention.{part}.weight" for part in ATTENTION]
        names += [f"{block}2.DenseReluDense.{part}.weight" for part in FEED_FORWARD]
    return names + ["lm_head.weight"]


def numbered(weights, expected):
    """Names of the products' matrices, without what the quantization added to them, by their numbers."""
    found = (re.fullmatch(r"(onnx::MatMul_(\d+))_quantized", name) for name in weights)
    names = [match.group(1) for match in sorted(filter(None, found), key=lambda match: int(match.group(2)))]
    if len(names) != expected:
        raise SetupError(f"the ONNX file has {len(names)} products with weights, {expected} were expected")
    return names


def floats(tensor):
    return tensor.shape, bytes(tensor.raw)


def dequantized(weights, name, is_transposed=False):
    """(shape, f32 bytes) of `(q - zero) * scale`."""
    tensor = weights[name + "_quantized"]
    zero = weights[name + "_zero_point"].raw[0]
    (scale,) = struct.unpack("<f", weights[name + "_scale"].raw)
    is_signed = tensor.data_type == onnx_file.INT8
    value = (lambda byte: byte - 256 if byte > 127 else byte) if is_signed else (lambda byte: byte)
    table = [struct.pack("<f", (value(byte) - value(zero)) * scale) for byte in range(256)]
    rows, columns = tensor.shape
    raw = tensor.raw
    if is_transposed:
        raw = b"".join(raw[column::columns] for column in range(columns))
        rows, columns = columns, rows
    values = bytearray(4 * len(raw))
    for place in range(4):  # a table for each byte of a float
        values[place::4] = raw.translate(bytes(entry[place] for entry in table))
    return [rows, columns], values


def write_safetensors(path, tensors):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, values) in sorted(tensors.items()):
        start, end = end, end + len(values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, (_, values) in sorted(tensors.items()):
            file.write(values)
