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
    "cat": ("skimage.data", "chelsea.png", "a cat", ["an orange cat"]),
    "astronaut": (
        "skimage.data",
        "astronaut.png",
        "a portrait of a woman in a suit",
        ["a woman in an orange suit"],
    ),
    "rocket": (
        "skimage.data",
        "rocket.jpg",
        "a rocket on its launch pad under the sky",
        ["a rocket on its launch pad, under a blue sky"],
    ),
    "flower": (
        "sklearn.datasets.images",
        "flower.jpg",
        "a flower with leaves",
        ["a pink flower", "a blue flower", "a yellow flower"],
    ),
    "temple": (
        "sklearn.datasets.images",
        "china.jpg",
        "a temple with trees under the sky",
        ["a temple, green trees, under a blue sky"],
    ),
    "admiral": (
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "a portrait of a woman in a uniform",
        ["a portrait of a woman in a uniform, brown and beige tones"],
    ),
    "photographer": (
        "skimage.data",
        "camera.png",
        "a man in a coat with a camera on a tripod in a field of grass",
        ["a man with a camera, green grass, under a blue sky"],
    ),
}


def main() -> None:
    """Writes images/*.png and demo.parquet beside this file."""
    rows = []
    for picture_id, (package, file, caption, targets) in PICTURES.items():
        with Image.open(str(files(package) / file)) as original:
            gray = original.convert("L")
        gray.info.pop("icc_profile", None)  # it was the colours', and the grays are of their code values
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
