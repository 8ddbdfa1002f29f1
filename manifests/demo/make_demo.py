"""Makes the demo manifest from sample images of scikit-image, scikit-learn and matplotlib (SOURCES.md).

    pip install scikit-image scikit-learn matplotlib && python manifests/demo/make_demo.py

The colour originals are turned gray with Pillow's luma, shrunk to at most 512 pixels, and committed as gray PNGs.
"""

import hashlib
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from manifests.schema import SCHEMA

LONG_SIDE = 512
HERE = Path(__file__).parent
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


def main() -> None:
    """Writes images/*.png and demo.parquet beside this file."""
    rows = []
    for picture_id, (package, file, caption, targets) in PICTURES.items():
        with Image.open(str(files(package) / file)) as original:
            gray = original.convert("L")
        gray.info.pop("icc_profile", None)  # it is the colour original's; the grays come from its code values
        gray.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
        path = HERE / "images" / f"{picture_id}.png"
        path.parent.mkdir(exist_ok=True)
        gray.save(path, optimize=True)
        rows.append(
            {
                "id": picture_id,
                "image": f"images/{path.name}",
                "caption": caption,
                "target_prompts": targets,
                "image_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        )
    fields = [item for item in SCHEMA if item.name in rows[0]]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), HERE / "demo.parquet")


if __name__ == "__main__":
    main()
