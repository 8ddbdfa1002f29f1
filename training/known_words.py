"""Writes `diffcolor/embedded/words.txt`: the words that the embedded models have met in training, one a line.

python -m training.known_words PACK.parquet STAMPS_FOLDER
"""

import re
import sys
from collections import Counter
from importlib import resources
from pathlib import Path

import pyarrow.parquet as parquet

from diffcolor.words import COLOR_WORDS
from training.captions import COLORABLE, NAMELESS, OPENINGS
from training.scenes import GROUNDS, MEDIA
from training.stamps import load_stamps, split_stamps
from training.tokenizer import read_words

MET = 2  # captions
COMMON = (
    "a an the of in on at and with by near under over behind before beside next to from for into background surface "
    "tones colors"
)


def known_words(pack: Path, stamps: Path) -> list[str]:
    """Words of at least two captions or titles of the training part, of the scenes' captions, and of colours."""
    met: Counter[str] = Counter()
    for row in parquet.read_table(pack, columns=["title", "caption"], filters=[("part", "=", "train")]).to_pylist():
        met.update(set(re.findall(r"[a-z]+", f"{row['title']} {row['caption']}".lower())))
    composed = [noun for stamp in split_stamps(load_stamps(stamps))[0] for noun in stamp.nouns]
    composed += [COMMON, *OPENINGS, *COLORABLE, *NAMELESS, *MEDIA, *(" ".join(words) for _, words in GROUNDS.values())]
    always = set(re.findall(r"[a-z]+", " ".join(composed).lower())) | set(read_words()) | COLOR_WORDS
    return sorted(always | {word for word, count in met.items() if count >= MET})


if __name__ == "__main__":
    found = known_words(Path(sys.argv[1]), Path(sys.argv[2]))
    Path(str(resources.files("diffcolor.embedded") / "words.txt")).write_text("\n".join(found) + "\n", encoding="utf-8")
    print(f"{len(found)} words")
