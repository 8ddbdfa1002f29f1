"""The long table and the picture of docs/results.md, from what `claims.py` left in its folder.

python -m benchmarks.results RUNS/DIGEST PART OUT

Writes OUT/PART.csv, the figures of every picture, and OUT/PART.jpg: Kodachromes from the best to the worst.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

COLUMNS = (
    "ab_error",
    "gray_error",
    "table_error",
    "colorfulness",
    "colorfulness_truth",
    "hue_agreement",
    "ciede2000",
    "witness",
    "witness_gray",
    "hint_hue_error",
)
RANKED = "balanced-caption"
SHOWN = ("alone-empty", "alone-caption", "balanced-caption", "balanced-hinted", "truth")
TILE = (220, 165)
FREE = "photograph-fsac-"  # Kodachromes: known to be free of restrictions; others are not shown


def pooled_ratio(rows: list[dict]) -> float:
    """Summed a*b* error over that of the gray pictures."""
    return sum(row["ab_error"] for row in rows) / sum(row["ab_error"] / row["ab_ratio"] for row in rows)


def read(runs: Path) -> dict[str, dict[str, dict]]:
    """The rows of each variant, by its name and the picture's id."""
    return {
        file.stem: {row["id"]: row for row in pq.read_table(file).to_pylist()}
        for file in sorted((runs / "figures").glob("*.parquet"))
    }


def write_csv(found: dict[str, dict[str, dict]], file: Path) -> None:
    """One line per picture and variant."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["picture", "shoot", "variant", *COLUMNS])
        for name, rows in found.items():
            for one, row in sorted(rows.items()):
                figures = ["" if row.get(column) is None else f"{row[column]:.4g}" for column in COLUMNS]
                writer.writerow([one, row["group"], name, *figures])


def spread(rows: dict[str, dict]) -> list[str]:
    """Ids of three Kodachromes each of the best, the median and the worst, by their error relative to gray's."""
    ids = sorted((one for one in rows if one.startswith(FREE)), key=lambda one: rows[one]["ab_ratio"])
    middle = len(ids) // 2
    return [*ids[:3], *ids[middle - 1 : middle + 2], *ids[-3:]]


def sheet(pictures: Path, ids: list[str]) -> Image.Image:
    """A row for each photograph: the scan, then `SHOWN`."""
    whole = Image.new("RGB", ((len(SHOWN) + 1) * (TILE[0] + 4), len(ids) * (TILE[1] + 4)), "white")
    for line, one in enumerate(ids):
        row = [Image.open(pictures / name / f"{one}.png").convert("RGB") for name in SHOWN]
        for column, picture in enumerate([row[-1].convert("L").convert("RGB"), *row]):
            scale = min(TILE[0] / picture.width, TILE[1] / picture.height)
            small = picture.resize((round(picture.width * scale), round(picture.height * scale)))
            x = column * (TILE[0] + 4) + (TILE[0] - small.width) // 2
            whole.paste(small, (x, line * (TILE[1] + 4) + (TILE[1] - small.height) // 2))
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="what claims.py made: RUNS/DIGEST")
    parser.add_argument("part", choices=("validation", "test"))
    parser.add_argument("out", type=Path, help="folder that gets PART.csv and PART.jpg")
    arguments = parser.parse_args()
    found = read(arguments.runs)
    write_csv(found, arguments.out / f"{arguments.part}.csv")
    ids = spread(found[RANKED])
    sheet(arguments.runs / "pictures", ids).save(arguments.out / f"{arguments.part}.jpg", quality=85)
    ratios = [found[RANKED][one]["ab_ratio"] for one in ids]
    print("error relative to gray's, row by row:", np.round(ratios, 2).tolist())


if __name__ == "__main__":
    main()
