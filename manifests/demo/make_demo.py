"""Makes the demo manifest from archival photographs and from sample images of Python packages (SOURCES.md).

    pip install scikit-image scikit-learn matplotlib && python manifests/demo/make_demo.py ARCHIVAL

ARCHIVAL: a folder with the files named in ARCHIVAL_PICTURES, taken from the packages named in SOURCES.md. Colour and
toned originals are turned gray with Pillow's luma, shrunk to at most 512 pixels, and committed as gray PNGs.
"""

import hashlib
import sys
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from manifests.schema import SCHEMA

LONG_SIDE = 512
HERE = Path(__file__).parent
# id: (file, the archive's title and maker); no target prompt: the colours of the caption
ARCHIVAL_PICTURES = {
    "nagasaki": ("nagasaki-boats.jpg", "Boats in river, Nagasaki, Japan. Felice Beato, about 1865"),
    "dust-bowl": ("dust-bowl-home.jpg", "Abandoned Dust Bowl Home. Dorothea Lange, about 1935-1940"),
    "mill": ("link-in-bio-background.webp", "Two Girls, Mill Workers. Lewis W. Hine"),
    "sheep": ("march-pastoral.jpg", "A March Pastoral, Suffolk. Peter Henry Emerson, 1888"),
}
# id: (package, file, caption, target prompts)
PICTURES = {
    "coffee": (
        "skimage.data",
        "coffee.png",
        "a cup of coffee with a spoon on a wooden table",
        ["a cup of coffee with a spoon on a brown wooden table"],
    ),
    "cat": ("skimage.data", "chelsea.png", "a gray cat with brown stripes", ["a cat, brown and orange tones"]),
    "astronaut": (
        "skimage.data",
        "astronaut.png",
        "a woman in a white suit, brown and beige tones",
        ["a smiling woman, brown and orange tones"],
    ),
    "rocket": (
        "skimage.data",
        "rocket.jpg",
        "a rocket",
        ["a rocket on its launch pad, blue sky"],
    ),
    "flower": (
        "sklearn.datasets.images",
        "flower.jpg",
        "a white flower",
        ["a pink flower", "a yellow flower"],
    ),
    "temple": (
        "sklearn.datasets.images",
        "china.jpg",
        "a temple by a lake",
        ["a temple under a pale blue sky, brown earth"],
    ),
    "admiral": (
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "a woman in uniform before a flag",
        ["a portrait of a woman, brown and orange tones"],
    ),
    "photographer": (
        "skimage.data",
        "camera.png",
        "a man with a camera on a tripod",
        ["a man in a field, green grass, under a blue sky"],
    ),
}


def row(picture_id: str, source: Path, caption: str, targets: list[str] | None) -> dict:
    """Writes images/ID.png; its row of the manifest."""
    with Image.open(source) as original:
        gray = original.convert("L")
    gray.info.pop("icc_profile", None)  # it is the colour original's; the grays come from its code values
    gray.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    path = HERE / "images" / f"{picture_id}.png"
    path.parent.mkdir(exist_ok=True)
    gray.save(path, optimize=True)
    return {
        "id": picture_id,
        "image": f"images/{path.name}",
        "caption": caption,
        "target_prompts": targets,
        "image_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def main(archival: Path) -> None:
    """Writes images/*.png and demo.parquet beside this file."""
    rows = [row(name, archival / file, caption, None) for name, (file, caption) in ARCHIVAL_PICTURES.items()]
    for name, (package, file, caption, targets) in PICTURES.items():
        rows.append(row(name, Path(str(files(package) / file)), caption, targets))
    fields = [item for item in SCHEMA if item.name in rows[0]]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), HERE / "demo.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
