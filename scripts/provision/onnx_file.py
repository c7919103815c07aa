"""The weights in an ONNX file, read without any package: the few fields of its protobuf that hold them.

Owns the format (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); which model it is, callers know.
"""

from .parts import SetupError

# Numbers of fields: ModelProto.graph, GraphProto.initializer, then those of TensorProto.
GRAPH, INITIALIZER = 7, 5
DIMS, DATA_TYPE, FLOAT_DATA, INT32_DATA, NAME, RAW_DATA = 1, 2, 4, 5, 8, 9
# Wire types of protobuf.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


# Numbers of element types, TensorProto.DataType.
FLOAT, UINT8, INT8 = 1, 2, 3


class Tensor:
    """One initializer: sizes, type of its elements, and their bytes, little-endian."""

    def __init__(self, shape, data_type, raw):
        self.shape = shape
        self.data_type = data_type
        self.raw = raw


def read_initializers(path):
    """All weights of an ONNX file by name."""
    tensors = {}
    try:
        data = memoryview(path.read_bytes())
        for graph in of_field(data, GRAPH):
            for initializer in of_field(graph, INITIALIZER):
                name, tensor = read_tensor(initializer)
                tensors[name] = tensor
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise SetupError(f"{path} is not a whole ONNX file ({error}): remove it and run this again")
    return tensors


def read_tensor(message):
    shape, data_type, name, raw = [], None, "", b""
    for number, wire_type, value in fields(message):
        if number == DIMS:
            shape += [value] if wire_type == VARINT else packed(value)
        elif number == DATA_TYPE:
            data_type = value
        elif number == NAME:
            name = bytes(value).decode()
        elif number in (RAW_DATA, FLOAT_DATA):
            raw = value
        elif number == INT32_DATA:  # integers of any width; here they are of 8 bits
            raw = bytes(item & 0xFF for item in ([value] if wire_type == VARINT else packed(value)))
    return name, Tensor(shape, data_type, bytes(raw))


def of_field(message, wanted):
    return (value for number, wire_type, value in fields(message) if (number, wire_type) == (wanted, BYTES))


def fields(message):
    """(number, wire type, value) of each field of a protobuf message."""
    place = 0
    while place < len(message):
        key, place = varint(message, place)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, place = varint(message, place)
        else:
            length = {FIXED64: 8, FIXED32: 4}.get(wire_type)
            if wire_type == BYTES:
                length, place = varint(message, place)
            if length is None or place + length > len(message):
                raise ValueError(f"field {number} at byte {place}")
            value, place = message[place : place + length], place + length
        yield number, wire_type, value


def packed(message):
    place, values = 0, []
    while place < len(message):
        value, place = varint(message, place)
        values.append(value)
    return values


def varint(message, place):
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
