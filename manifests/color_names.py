"""Colours by name: `colors.csv`, 727 names of CSS and of the colour cards of uniforms, cloths and paints.

Its column `source` says whose name it is:

- CSS: CSS Color Module Level 4.
- ISCC-NBS: the centroids of the ISCC-NBS system ("dark reddish brown"), K. L. Kelly and D. B. Judd, Color: Universal
  Language and Dictionary of Names, National Bureau of Standards Special Publication 440, 1976.
- TT-C-595: Colors for Ready-Mixed Paints, the U.S. Federal Specification ("olive drab"), as that book has them.
- TCCA: the Standard Color Card of America and the U.S. Army Color Card, as that book has them.
- other: widely known names of uniforms and cars, their values as commonly given.

The book's names stand for categories of colours; where it gives several for one name, the value is their mean. A name
that several sources have is the first one's.
"""

import csv
import difflib
import re
from functools import cache
from pathlib import Path

NEUTRAL = ("neutral", "none", "colourless", "colorless")
_HEX = re.compile(r"#([0-9a-fA-F]{6})")


@cache
def named_colors() -> dict[str, str]:
    """#rrggbb by name, lower case, words parted by one space."""
    with Path(__file__).with_name("colors.csv").open(encoding="utf-8", newline="") as stream:
        return {row["name"]: row["color"] for row in csv.DictReader(stream)}


def parse_color(text: str) -> tuple[int, int, int] | None:
    """A colour as its author wrote it: `#rrggbb`, a name of the table, or one of `NEUTRAL`.

    Returns:
        Red, green and blue, 0 to 255; None for no colour at all.

    Raises:
        ValueError: it is none of these; the message offers the nearest names.
    """
    name = " ".join(text.lower().replace("-", " ").split())
    if name in NEUTRAL:
        return None
    found = _HEX.fullmatch(text.strip())
    known = named_colors().get(name) or named_colors().get(name.replace("grey", "gray"), "")
    code = found[1] if found else known.removeprefix("#")
    if not code:
        near = difflib.get_close_matches(name, named_colors(), n=3, cutoff=0.6)
        offer = f"; do you mean {' or '.join(repr(one) for one in near)}?" if near else ""
        raise ValueError(f"colour {text!r} is neither #rrggbb nor a known name nor 'neutral'{offer}")
    return int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)
