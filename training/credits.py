"""Writes `diffcolor/embedded/CREDITS.csv`: the photographs in the training whose licence asks for attribution.

python -m training.credits VARIED.parquet PACK.parquet
"""

import csv
import sys
from importlib import resources
from pathlib import Path

import pyarrow.parquet as parquet


def credits(varied: Path, pack: Path) -> list[tuple[str, str, str]]:
    """(licence, author, source) of each photograph of the training part under a CC BY licence."""
    used = set(parquet.read_table(pack, columns=["id"], filters=[("part", "=", "train")])["id"].to_pylist())
    rows = parquet.read_table(varied, columns=["id", "licence", "author", "source"]).to_pylist()
    asked = [row for row in rows if str(row["id"]) in used and row["licence"].startswith("CC-BY")]
    return sorted((row["licence"], " ".join(row["author"].split()), row["source"]) for row in asked)


if __name__ == "__main__":
    found = credits(Path(sys.argv[1]), Path(sys.argv[2]))
    out = Path(str(resources.files("diffcolor.embedded") / "CREDITS.csv"))
    with out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("licence", "author", "source"))
        writer.writerows(found)
    print(f"{len(found)} photographs")
