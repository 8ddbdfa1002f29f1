"""Which scans are accepted. Plain data, quick to import: the command line and the job's description use it, too."""

from dataclasses import dataclass, field
from enum import StrEnum

from manifests.locations import Reach

MAX_PIXELS = 400_000_000
MIN_SIDE = 64


class Toned(StrEnum):
    """What to do with scans that have a tone or colour: reject them, or take their luminance whatever they are."""

    reject = "reject"
    desaturate = "desaturate"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which scans are accepted.

    Attributes:
        max_pixels: larger scans are refused before they are decoded.
        assume_srgb: use sRGB's tone curve if a scan's own profile is broken or not for a gray scan.
        negative: the picture is the inverse of the scan.
        reach: what rows may reach.
    """

    max_pixels: int = MAX_PIXELS
    toned: Toned = Toned.reject
    assume_srgb: bool = False
    negative: bool = False
    reach: Reach = field(default_factory=Reach)
