"""The guide to captions says of its examples what the program says of them."""

import re
from pathlib import Path

import pytest

from diffcolor.models import load_models
from diffcolor.prompts import prompt_advice

GUIDE = Path(__file__).parents[2] / "docs" / "captions.md"
EXAMPLES = re.findall(r"^\| (good|misread) \| `([^`]+)`", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def mini():
    return load_models()


@pytest.mark.parametrize(("verdict", "caption"), EXAMPLES)
def test_good_ones_are_read_whole_and_misread_ones_are_warned_of(mini, verdict, caption):
    advice = prompt_advice(mini.vocabulary, mini.tokenizer, caption, [caption])
    assert bool(advice) == (verdict == "misread"), advice
    if verdict == "good":
        words = re.findall(r"\w+", caption)
        assert re.findall(r"\w+", mini.vocabulary.read(caption)) == words


def test_there_are_examples():
    assert {verdict for verdict, _ in EXAMPLES} == {"good", "misread"}


def test_what_is_too_long_is_as_long_as_it_says(mini):
    limit = int(re.search(r"more than (\d+) words", GUIDE.read_text(encoding="utf-8"))[1])
    for count, fits in ((limit, True), (limit + 1, False)):
        advice = prompt_advice(mini.vocabulary, mini.tokenizer, "", ["red " * count], is_fitted=False)
        assert fits == (not advice), advice
