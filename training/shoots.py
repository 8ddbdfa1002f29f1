"""Packs the photographs for training: small JPEGs with every caption, split by shoot.

Photographs with titles alike or pictures alike are of one shoot, and a shoot is wholly in one part: `train`,
`validation` (for every choice) or `test` (for claims; looked at when a model is released).
"""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from PIL import Image

from training.photographs import balance, clean_title, crop_mount, is_usable

SHORT_SIDE = 144
LONGEST = 224
SAME_TITLE = 0.5  # Jaccard index of the words
SAME_PICTURE = 8  # bits of 64 that two difference hashes may differ in
PHOTOGRAPHS = ("kodachrome", "various", "small")  # the sets that figures are of: whole scenes, not single things
SHARES = {"test": 0.08, "validation": 0.08}


def pack(kodachromes: Path, captions: Path, varied: Path, out: Path) -> None:
    """Reads the three files and writes one, with columns id, set, title, caption, image, shoot, part."""
    described = {row["id"]: row["caption"] for row in parquet.read_table(captions).to_pylist()}
    rows = []
    for row in parquet.read_table(kodachromes).to_pylist():
        picture = np.asarray(_decode(row["image"]), dtype=np.float32) / 255
        inner = np.round(crop_mount(picture) * 255).astype(np.uint8)
        if min(inner.shape[:2]) < 64:
            continue
        rows.append(_row(row["id"], "kodachrome", clean_title(row["title"]), described.get(row["id"], ""), inner))
    for row in parquet.read_table(varied).to_pylist():
        label = re.sub(r" in a grocery shop$", "", row["label"] or "")
        rows.append(_row(row["id"], row["set"], label, row["caption"] or "", np.asarray(_decode(row["image"]))))
    for row, shoot in zip(rows, shoots(rows), strict=True):
        row["shoot"], row["part"] = shoot, part_of(shoot)
    parquet.write_table(pa.Table.from_pylist(rows), out, compression="none")


def _decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _row(identifier: object, collection: str, title: str, caption: str, pixels: NDArray[np.uint8]) -> dict:
    picture = Image.fromarray(pixels)
    scale = min(1.0, SHORT_SIDE / min(picture.size), LONGEST / max(picture.size))
    if scale < 1:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=80)
    return {"id": str(identifier), "set": collection, "title": title, "caption": caption, "image": packed.getvalue()}


def part_of(shoot: str) -> str:
    """The part of a shoot."""
    draw = int.from_bytes(hashlib.sha256(f"shoot {shoot}".encode()).digest()[:4]) / 2**32
    return "test" if draw < SHARES["test"] else "validation" if draw < sum(SHARES.values()) else "train"


def shoots(rows: Sequence[dict]) -> list[str]:
    """The shoot of each row, named by the least of its ids."""
    parents = list(range(len(rows)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    hashes = np.unpackbits(np.stack([difference_hash(row["image"]) for row in rows]), axis=1).astype(np.int16)
    for i in range(len(rows)):
        for j in np.flatnonzero(np.abs(hashes[i + 1 :] - hashes[i]).sum(1) <= SAME_PICTURE):
            parents[root(i)] = root(i + 1 + int(j))
    # Labels of the other sets name a kind of thing ("a T-shirt"), not a shoot.
    titled = [(i, words(row["title"])) for i, row in enumerate(rows) if row["set"] == "kodachrome"]
    for number, (i, first) in enumerate(titled):
        for j, second in titled[number + 1 :]:
            if first and second and len(first & second) >= SAME_TITLE * len(first | second):
                parents[root(i)] = root(j)
    least: dict[int, str] = {}
    for i, row in enumerate(rows):
        least[root(i)] = min(least.get(root(i), row["id"]), row["id"])
    return [least[root(i)] for i in range(len(rows))]


def difference_hash(jpeg: bytes) -> NDArray[np.uint8]:
    """64 bits, as 8 bytes: whether each of 8 x 9 coarse cells is lighter than its left neighbour."""
    cells = np.asarray(_decode(jpeg).convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return np.packbits((cells[:, 1:] > cells[:, :-1]).ravel())


def words(title: str) -> frozenset[str]:
    """The words of three letters or more."""
    return frozenset(re.findall(r"[a-z]{3,}", title.lower()))


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """One photograph: (H, W, 3) uint8, and what is said of it; photographs of one shoot are alike."""

    id: str
    shoot: str
    pixels: NDArray[np.uint8]
    title: str
    caption: str


def read_pack(path: Path, part: str) -> dict[str, list[Captioned]]:
    """The photographs of one part of a pack (`pack`), by set."""
    found: dict[str, list[Captioned]] = {}
    for row in parquet.read_table(path, filters=[("part", "=", part)]).to_pylist():
        pixels = np.asarray(_decode(row["image"]))
        if part == "train" and row["set"] == "kodachrome" and not is_usable(balance(pixels.astype(np.float32) / 255)):
            continue
        found.setdefault(row["set"], []).append(
            Captioned(id=row["id"], shoot=row["shoot"], pixels=pixels, title=row["title"], caption=row["caption"])
        )
    return found
