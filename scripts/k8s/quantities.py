"""Resource quantities as the API server reads them: 500m, 2, 1.5Gi, 1e3."""

import re
from fractions import Fraction

_SUFFIXES = {"": 1, "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000)}
_SUFFIXES.update(
    {suffix: 1000**power for power, suffix in enumerate(["k", "M", "G", "T", "P", "E"], start=1)}
)
_SUFFIXES.update({suffix + "i": 1024**power for power, suffix in enumerate("KMGTPE", start=1)})
_QUANTITY = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:[eE]([+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")


def quantity(value):
    """`value` as an exact number, or None if it is no quantity."""
    if isinstance(value, bool) or value is None:
        return None
    found = _QUANTITY.fullmatch(str(value))
    if not found:
        return None
    number, exponent, suffix = found.groups()
    scale = Fraction(10) ** int(exponent) if exponent else _SUFFIXES[suffix or ""]
    return Fraction(number) * scale
