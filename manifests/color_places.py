"""Colours that are known at a place of a picture: the columns `color_points` and `color_boxes`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests.color_names import parse_color

MAX_PLACES = 200  # of a row


@dataclass(frozen=True, kw_only=True)
class ColorPlace:
    """A point (its box is one pixel) or a box, in pixels of the stored raster, and its colour as it was written."""

    x: int
    y: int
    width: int = 1
    height: int = 1
    color: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "color", " ".join(self.color.split()))
        if self.x < 0 or self.y < 0 or self.width < 1 or self.height < 1:
            raise ValueError(f"{self}: a place begins at 0 or more and is one pixel wide and high at least")
        parse_color(self.color)

    def __str__(self) -> str:
        numbers = (self.x, self.y) if self.is_point else (self.x, self.y, self.width, self.height)
        return ",".join([*map(str, numbers), self.color])

    @property
    def is_point(self) -> bool:
        return self.width == self.height == 1

    @property
    def rgb(self) -> tuple[int, int, int] | None:
        """None: no colour."""
        return parse_color(self.color)


def parse_place(text: str, numbers: int) -> ColorPlace:
    """`x,y,color` (2 numbers) or `x,y,width,height,color` (4).

    Raises:
        ValueError: it is not; the message names the text and says why.
    """
    parts = [part.strip() for part in text.split(",", numbers)]
    form = "x,y,color" if numbers == 2 else "x,y,width,height,color"
    if len(parts) != numbers + 1 or not all(part.isdecimal() for part in parts[:numbers]) or not parts[-1]:
        raise ValueError(f"{text.strip()!r} is not {form}, such as {'40,25,' if numbers == 2 else '40,25,80,60,'}navy")
    names = ("x", "y", "width", "height")[:numbers]
    return ColorPlace(**dict(zip(names, map(int, parts[:numbers]), strict=True)), color=parts[-1])


def place_of(text: str) -> ColorPlace:
    """The inverse of `str(place)`."""
    return parse_place(text, 4 if re.match(r"(\d+\s*,\s*){4}", text) else 2)


def places_of(text: str) -> tuple[ColorPlace, ...]:
    """Points and boxes together, `x,y,color; x,y,width,height,color`; none of an empty text.

    Raises:
        ValueError: one cannot be read, or contradicts another.
    """
    return distinct([place_of(part.strip()) for part in text.split(";") if part.strip()])


def parse_places(text: str | None, numbers: int) -> list[dict[str, Any]] | None:
    """A spreadsheet's cell, `x,y,color; x,y,color` or JSON, as a manifest's column holds it; None if it is empty.

    Raises:
        ValueError: it cannot be read.
    """
    if not (text or "").strip():
        return None
    assert text is not None
    names = ("x", "y", "width", "height")[:numbers]
    if text.lstrip().startswith("["):
        try:
            given = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{text!r} is not JSON ({error})") from error
        places = _read(given, numbers)
    else:
        places = tuple(parse_place(part, numbers) for part in text.split(";") if part.strip())
    return [{**{name: getattr(place, name) for name in names}, "color": place.color} for place in places]


def read_places(points: Sequence[Mapping] | None, boxes: Sequence[Mapping] | None) -> tuple[ColorPlace, ...]:
    """A row's points and boxes, from its two columns.

    Raises:
        ValueError: one is incomplete, has an unknown colour or contradicts another, or there are too many.
    """
    return distinct([*_read(points or (), 2), *_read(boxes or (), 4)])


def distinct(places: Sequence[ColorPlace]) -> tuple[ColorPlace, ...]:
    """The places, each once.

    Raises:
        ValueError: one contradicts another, or there are too many.
    """
    if len(places) > MAX_PLACES:
        raise ValueError(f"{len(places)} places; at most {MAX_PLACES} are taken")
    known: dict[tuple[int, int, int, int], ColorPlace] = {}
    for place in places:
        other = known.setdefault((place.x, place.y, place.width, place.height), place)
        if other.rgb != place.rgb:
            raise ValueError(f"{place} contradicts {other}: one place, two colours")
    return tuple(known.values())


def _read(given: Any, numbers: int) -> tuple[ColorPlace, ...]:
    names = ("x", "y", "width", "height")[:numbers]
    places = []
    for one in given if isinstance(given, Sequence) else (given,):
        if not isinstance(one, Mapping) or set(one) != {*names, "color"} or not isinstance(one["color"], str):
            raise ValueError(f"{one!r} is not {{{', '.join(names)}, color}}")
        if not all(isinstance(one[name], int) for name in names):
            raise ValueError(f"{one!r}: {', '.join(names)} are whole numbers of pixels")
        places.append(ColorPlace(**one))
    return tuple(places)
