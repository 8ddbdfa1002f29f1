"""README's picture: every picture of a finished demo, one row each, nothing left out.

python -m benchmarks.demo_sheet demo-colorized docs/demo.jpg
"""

import sys

from PIL import Image

from pipelines.ledger.ledger import Ledger
from pipelines.store.store import Store

SIDE = 170  # pixels of a cell
GAP = 6
COLUMNS = 2  # of rows of cells


def cells(store: Store) -> list[list[Image.Image]]:
    """For each row of the demo the scan, stage 1's own colours and each prompt's colours, at most SIDE pixels high."""
    found = []
    for row in Ledger(store).current():
        keys = [row.preview, row.primary_preview, *(output.preview for output in row.outputs)]
        pictures = []
        for key in keys:
            assert key, "a finished row has previews"
            with store.read_file(key) as file:
                picture = Image.open(file).convert("RGB")
            picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            pictures.append(picture)
        found.append(pictures)
    return found


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """The rows in two columns, one below the other."""
    lines = -(-len(rows) // COLUMNS)
    columns = [rows[first : first + lines] for first in range(0, len(rows), lines)]
    widths = [max(map(len, column)) * (SIDE + GAP) for column in columns]
    page = Image.new("RGB", (sum(widths) + (COLUMNS - 1) * 4 * GAP, lines * (SIDE + GAP)), "white")
    for number, column in enumerate(columns):
        for line, row in enumerate(column):
            for place, picture in enumerate(row):
                left = sum(widths[:number]) + number * 4 * GAP + place * (SIDE + GAP) + (SIDE - picture.width) // 2
                page.paste(picture, (left, line * (SIDE + GAP) + (SIDE - picture.height) // 2))
    return page


if __name__ == "__main__":
    sheet(cells(Store(sys.argv[1]))).save(sys.argv[2], quality=88)
