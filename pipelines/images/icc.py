"""ICC profiles: the tone curve of a gray scan, kept in an RGB profile that its colour picture can carry.

Gray v under the source's profile looks as (v, v, v) does under `rgb_profile(...)`: the same curve, on the sRGB
primaries. A profile is read as data, never by its name.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffcolor.srgb import linear_to_srgb, srgb_to_linear

# Colorants of sRGB, adapted to D50 (ICC.1:2022, annex; IEC 61966-2-1).
_COLORANTS = {
    b"rXYZ": (0.43607, 0.22249, 0.01392),
    b"gXYZ": (0.38515, 0.71687, 0.09708),
    b"bXYZ": (0.14307, 0.06061, 0.71410),
}
_D50 = (0.9642, 1.0, 0.8249)
_GRID = np.linspace(0, 1, 4096)


class BadProfileError(ValueError):
    """A broken profile, or one that a gray scan cannot have."""


@dataclass(frozen=True)
class Profile:
    """What colours mean in a scan and in its outputs.

    Attributes:
        linear: (4096,) light of code values 0 .. full scale, rising from 0 to 1.
        output: bytes of the RGB profile that outputs embed.
        name: the source profile's own description.
        assumed: the source has no usable profile, so sRGB's curve is assumed.
        foreign: the source is a gray file with an RGB profile.
    """

    linear: NDArray[np.float64]
    output: bytes
    name: str
    assumed: bool = False
    foreign: bool = False

    def to_srgb(self, codes: NDArray) -> NDArray[np.float64]:
        """Code values in [0, 1] of the scan as sRGB code values."""
        return linear_to_srgb(np.interp(codes, _GRID, self.linear))

    def from_srgb(self, codes: NDArray) -> NDArray[np.float64]:
        """The inverse of `to_srgb`; (channels of) sRGB code values in [0, 1] as code values of the output's profile."""
        return np.interp(srgb_to_linear(np.asarray(codes, np.float64)), self.linear, _GRID)


def read_profile(content: bytes | None, channels: int) -> Profile:
    """The profile of a scan of 1 (gray) or 3 (equal) channels; without `content`, sRGB's curve is assumed.

    An RGB profile in a gray file violates the standard, but is common: gray v is taken as (v, v, v) under it, provided
    that its channels share one curve.

    Raises:
        BadProfileError: the profile is broken, or for another kind of picture.
    """
    if content is None:
        return Profile(srgb_to_linear(_GRID), _srgb_profile(), "sRGB (assumed)", assumed=True)
    try:
        return _read(content, channels)
    except (struct.error, ValueError, IndexError, ZeroDivisionError, OverflowError, FloatingPointError) as error:
        if isinstance(error, BadProfileError):
            raise
        raise BadProfileError(f"a broken ICC profile ({error})") from error


def gamma_profile(exponent: float) -> Profile:
    """The profile of code values that are light to the power of `exponent`, as PNG's gAMA has it."""
    power = 1 / exponent
    curve = b"para" + struct.pack(">IHHi", 0, 0, 0, round(power * 65536))
    return Profile(linear=_GRID**power, output=rgb_profile(curve, f"gamma {power:.2f}"), name=f"gAMA {exponent:g}")


def _read(content: bytes, channels: int) -> Profile:
    tags, space, connection = _tags(content)
    if space not in ((b"GRAY", b"RGB ") if channels == 1 else (b"RGB ",)):
        raise BadProfileError(f"an ICC profile of colour space {space.decode('latin-1').strip()}")
    name = _name(tags)
    if space == b"RGB ":
        red, green, blue = (tags.get(channel) for channel in (b"rTRC", b"gTRC", b"bTRC"))
        shared = None  # the tone curve of all three channels
        if red is not None and green is not None and blue is not None:
            shared = red if len({_curve(curve).tobytes() for curve in (red, green, blue)}) == 1 else None
        if channels == 1 and shared is None:
            raise BadProfileError("an RGB ICC profile in a gray file, without one tone curve for all channels")
        # A profile made of tables alone has no curve; sRGB's is good enough for what the model sees.
        linear = _light(_curve(green)) if green is not None else srgb_to_linear(_GRID)
        # On other primaries than sRGB's, the model's colours would come out as other colours; grays are the same.
        output = rgb_profile(shared, name) if shared is not None and not _on_srgb_primaries(tags) else content
        return Profile(_rising(linear), output, name, foreign=channels == 1)
    if b"kTRC" not in tags:
        raise BadProfileError("a gray ICC profile without a tone curve (kTRC)")
    curve = tags[b"kTRC"]
    light = _curve(curve)
    if connection == b"Lab ":  # there the curve leads to L*, not to Y
        light = _luminance_of_lightness(light)
        curve = _table(light)
    return Profile(_rising(_light(light)), rgb_profile(curve, name), name)


def _on_srgb_primaries(tags: dict[bytes, bytes]) -> bool:
    try:
        colorants = [struct.unpack_from(">3i", tags[name], 8) for name in _COLORANTS]
    except (KeyError, struct.error):
        return False
    expected = np.array(list(_COLORANTS.values()))
    return bool(np.abs(np.array(colorants) / 65536 - expected).max() < 0.005)


def _light(curve: NDArray) -> NDArray[np.float64]:
    if not np.isfinite(curve).all() or curve[-1] <= curve[0]:
        raise BadProfileError("an ICC profile whose tone curve does not rise")
    return np.clip((curve - curve[0]) / (curve[-1] - curve[0]), 0, 1)


def _rising(linear: NDArray) -> NDArray[np.float64]:
    """The curve made strictly rising, so that it has an inverse; flat ends stay almost flat."""
    return np.maximum.accumulate(linear) + np.linspace(0, 1e-9, len(linear))


def _tags(content: bytes) -> tuple[dict[bytes, bytes], bytes, bytes]:
    try:
        if content[36:40] != b"acsp" or struct.unpack_from(">I", content)[0] > len(content):
            raise BadProfileError("a broken ICC profile")
        count = struct.unpack_from(">I", content, 128)[0]
        tags = {}
        for number in range(min(count, 100)):
            name, offset, size = struct.unpack_from(">4sII", content, 132 + 12 * number)
            if offset + size > len(content):
                raise BadProfileError(f"an ICC profile whose tag {name!r} points outside it")
            tags[name] = content[offset : offset + size]
    except struct.error as error:
        raise BadProfileError(f"a broken ICC profile ({error})") from error
    return tags, content[16:20], content[20:24]


def _name(tags: dict[bytes, bytes]) -> str:
    description = tags.get(b"desc", b"")
    if description[:4] == b"desc" and len(description) > 12:
        length = struct.unpack_from(">I", description, 8)[0]
        return description[12 : 12 + length].rstrip(b"\0").decode("latin-1")
    if description[:4] == b"mluc" and len(description) >= 28:
        length, offset = struct.unpack_from(">II", description, 20)
        return description[offset : offset + length].decode("utf-16-be", "replace")
    return "unnamed"


def _curve(tag: bytes) -> NDArray[np.float64]:
    """A `curv` or `para` tag (ICC.1:2022, 10.6 and 10.18) on the grid."""
    try:
        if tag[:4] == b"curv":
            count = struct.unpack_from(">I", tag, 8)[0]
            if count == 0:
                return _GRID
            if count == 1:
                return _GRID ** (struct.unpack_from(">H", tag, 12)[0] / 256)
            values = np.frombuffer(tag, ">u2", count, 12) / 65535
            return np.interp(_GRID, np.linspace(0, 1, count), values)
        if tag[:4] == b"para":
            kind = struct.unpack_from(">H", tag, 8)[0]
            numbers = [value / 65536 for value in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12)]
            return _parametric(kind, *numbers)
    except (struct.error, IndexError, ValueError) as error:
        raise BadProfileError(f"an ICC profile with a broken tone curve ({error})") from error
    raise BadProfileError(f"an ICC profile with a tone curve of type {tag[:4]!r}")


def _parametric(
    kind: int,
    g: float,
    a: float = 1.0,
    b: float = 0.0,
    c: float = 0.0,
    d: float = 0.0,
    e: float = 0.0,
    f: float = 0.0,
) -> NDArray[np.float64]:
    power = np.maximum(a * _GRID + b, 0) ** g
    if kind == 0:
        return _GRID**g
    if kind in (1, 2):
        return np.where(-b / a <= _GRID, power, 0) + (c if kind == 2 else 0)
    return np.where(d <= _GRID, power + e, c * _GRID + f)


def _luminance_of_lightness(lightness: NDArray) -> NDArray[np.float64]:
    """CIE 1976: L*/100 to Y."""
    return np.where(lightness > 0.08, ((lightness * 100 + 16) / 116) ** 3, lightness * 100 / 903.2963)


def _table(linear: NDArray) -> bytes:
    values = np.round(np.clip(linear, 0, 1) * 65535).astype(">u2")
    return b"curv" + struct.pack(">II", 0, len(values)) + values.tobytes()


def _srgb_profile() -> bytes:
    return rgb_profile(_table(srgb_to_linear(np.linspace(0, 1, 1024))), "sRGB")


def rgb_profile(curve: bytes, name: str) -> bytes:
    """A display profile with the sRGB primaries and the bytes of one tone curve for all three channels.

    Version 4 if the curve is parametric, which version 2 lacks; else version 2.
    """
    new = curve.startswith(b"para")
    text = f"{name[:200]}, on sRGB primaries"
    tags = {name: b"XYZ " + bytes(4) + _xyz(values) for name, values in _COLORANTS.items()}
    tags |= {
        b"wtpt": b"XYZ " + bytes(4) + _xyz(_D50),
        b"desc": _mluc(text) if new else _description(text),
        b"cprt": _mluc("CC0") if new else b"text" + bytes(4) + b"CC0\0",
        b"rTRC": curve,
    }
    offset = 128 + 4 + 12 * (len(tags) + 2)
    table, body = [], b""
    for tag, content in tags.items():
        table.append((tag, offset + len(body), len(content)))
        body += content + bytes(-len(content) % 4)
    place = next((at, size) for tag, at, size in table if tag == b"rTRC")
    table += [(b"gTRC", *place), (b"bTRC", *place)]
    index = struct.pack(">I", len(table)) + b"".join(struct.pack(">4sII", *entry) for entry in sorted(table))
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sI4sIQI12s4s44s",
        offset + len(body),
        b"",
        0x04400000 if new else 0x02400000,
        b"mntr",
        b"RGB ",
        b"XYZ ",
        struct.pack(">6H", 2026, 1, 1, 0, 0, 0),  # fixed date, so that outputs are byte-reproducible
        b"acsp",
        b"",
        0,
        b"",
        0,
        0,
        0,
        _xyz(_D50),
        b"",
        b"",
    )
    return header + index + body


def _xyz(values: tuple[float, float, float]) -> bytes:
    return struct.pack(">3i", *(round(value * 65536) for value in values))


def _mluc(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(encoded), 28) + encoded


def _description(text: str) -> bytes:
    encoded = text.encode("ascii", "replace") + b"\0"
    return b"desc" + struct.pack(">II", 0, len(encoded)) + encoded + bytes(4 + 4 + 2 + 1 + 67)
