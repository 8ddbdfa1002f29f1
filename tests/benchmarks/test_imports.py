"""Every benchmark and training script still finds what it is made of."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    f"{folder}.{path.stem}"
    for folder in ("benchmarks", "training")
    for path in sorted((ROOT / folder).glob("*.py"))
    if path.stem not in ("__init__", "__main__")
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_can_be_imported(name):
    importlib.import_module(name)
