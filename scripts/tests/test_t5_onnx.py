"""Tests of scripts/provision/t5_onnx.py: the weights of an int8 ONNX file under the names of Hugging Face."""

import json
import struct
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from provision import onnx_file, t5_onnx  # noqa: E402
from provision.parts import SetupError  # noqa: E402


def varint(value):
    value &= (1 << 64) - 1  # negative numbers take ten bytes
    groups = []
    while True:
        groups.append(value & 0x7F)
        value >>= 7
        if not value:
            return bytes([group | 0x80 for group in groups[:-1]] + [groups[-1]])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def initializer(name, data_type, dims, values):
    return field(5, b"".join(field(1, size) for size in dims) + field(2, data_type) + values + field(8, name))


def quantized(name, data_type, dims, values, zero, scale):
    """A tensor with scale and zero point, as onnxruntime's quantization leaves it."""
    return (
        initializer(f"{name}_scale".encode(), 1, [], field(4, struct.pack("<f", scale)))
        + initializer(f"{name}_zero_point".encode(), data_type, [], field(5, zero))
        + initializer(
            f"{name}_quantized".encode(), data_type, dims, field(9, bytes(value & 0xFF for value in values))
        )
    )


def model(*initializers):
    return field(1, 8) + field(7, field(2, b"graph") + b"".join(initializers))


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = (entry["shape"], list(struct.unpack(f"<{(end - start) // 4}f", data[start:end])))
    return tensors


class T5Onnx(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.source, self.result = Path(directory.name) / "source", Path(directory.name) / "result"
        self.source.mkdir()

    def products(self, first_number, count):
        """Matrices [2, 3] with the numbers 0 to 5 plus ten times their place, and a scale of 0.5."""
        return [
            quantized(f"onnx::MatMul_{first_number + place}", 3, [2, 3], range(-place, 6 - place), 0, 0.5)
            for place in reversed(range(count))  # files need not be in order
        ]

    def test_matrices_take_their_names_by_their_numbers_and_are_transposed(self):
        norm = initializer(b"enc.final_layer_norm.weight", 1, [2], field(9, struct.pack("<2f", 1.5, 2.5)))
        bias = "m.decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        (self.source / "encoder.onnx").write_bytes(model(norm, *self.products(998, 7)))
        (self.source / "decoder.onnx").write_bytes(
            model(
                quantized("m.shared.weight", 2, [2, 2], [138, 139, 0, 255], 138, 2.0),
                quantized(bias, 2, [1, 2], [1, 3], 1, 1.0),
                *self.products(95, 12),
            )
        )
        settings = {"truncation": {"max_length": 48}, "padding": {}, "model": {"type": "Unigram"}}
        (self.source / "tokenizer.json").write_text(json.dumps(settings))
        with mock.patch.object(t5_onnx, "LAYERS", 1):
            t5_onnx.convert(self.source, self.result)

        tensors = read_safetensors(self.result / "model.safetensors")
        self.assertEqual(len(tensors), 7 + 12 + 3)
        self.assertEqual(tensors["encoder.final_layer_norm.weight"], ([2], [1.5, 2.5]))
        self.assertEqual(tensors["shared.weight"], ([2, 2], [0.0, 2.0, -276.0, 234.0]))
        self.assertEqual(tensors[bias[2:]], ([1, 2], [0.0, 2.0]))
        q = "encoder.block.0.layer.0.SelfAttention.q.weight"
        self.assertEqual(tensors[q], ([3, 2], [0.0, 1.5, 0.5, 2.0, 1.0, 2.5]))
        # 998 to 1004 are numbers, so the fourth is before the tenth.
        k = "encoder.block.0.layer.0.SelfAttention.k.weight"
        self.assertEqual(tensors[k][1][0], -0.5)
        self.assertEqual(tensors["lm_head.weight"][1][0], -5.5)
        self.assertEqual(
            json.loads((self.result / "tokenizer.json").read_text()),
            {"truncation": None, "padding": None, "model": {"type": "Unigram"}},
        )
        self.assertEqual(json.loads((self.result / "config.json").read_text())["model_type"], "t5")

    def test_another_number_of_matrices_is_refused(self):
        (self.source / "encoder.onnx").write_bytes(model(*self.products(1, 6)))
        (self.source / "decoder.onnx").write_bytes(model())
        with mock.patch.object(t5_onnx, "LAYERS", 1):
            with self.assertRaisesRegex(SetupError, "6 products with weights, 7 were expected"):
                t5_onnx.convert(self.source, self.result)

    def test_half_a_file_is_named(self):
        path = self.source / "encoder.onnx"
        path.write_bytes(model(*self.products(1, 7))[:-9])
        with self.assertRaisesRegex(SetupError, "encoder.onnx is not a whole ONNX file"):
            onnx_file.read_initializers(path)


if __name__ == "__main__":
    unittest.main()
