"""What the embedded models are given of a prompt, and what is said of the rest."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcolor.coarse import load_coarse
from diffcolor.words import Vocabulary, embedded_vocabulary

KNOWN = embedded_vocabulary()


@pytest.fixture(scope="module")
def coarse():
    return load_coarse()


@pytest.mark.parametrize(
    ("prompt", "seen"),
    [
        ("a woman in a red dress, blue sky", "a woman in a red dress, blue sky"),
        ("a woman in a dress, not red", "a woman in a dress"),
        ("a car that is not blue or green, blue sky", "a car that is, blue sky"),
        ("two flags without any red", "two flags"),
        ("a boy without a hat", "a boy without a hat"),
        ("Eine Frau in einem roten Kleid vor dem Haus", ""),
        ("xqzt blorp", ""),
        ("a woman in a xqzt dress", "a woman in a dress"),
        ("the farmer's wife", "the farmer's wife"),
        ("", ""),
    ],
)
def test_known_words_are_read_and_denied_colours_are_not(prompt, seen):
    assert KNOWN.read(prompt) == seen


@given(st.text(max_size=60))
def test_whatever_is_written_is_read_once(prompt):
    seen = KNOWN.read(prompt)
    assert KNOWN.read(seen) == seen
    assert len(seen) <= len(prompt)


@pytest.mark.parametrize("prompt", ["xqzt blorp", "Ein Haus, vor dem eine Frau steht", "приём", "不知道"])
def test_unknown_words_change_nothing(coarse, prompt):
    gray = torch.linspace(0.1, 0.9, 64 * 64).view(1, 1, 64, 64)
    assert torch.equal(coarse.colorize(gray, [prompt]), coarse.colorize(gray, [""]))


def test_a_denied_colour_is_not_painted(coarse):
    gray = torch.linspace(0.1, 0.9, 64 * 64).view(1, 1, 64, 64)
    denied, silent, named = (coarse.colorize(gray, [f"a dress{rest}"]) for rest in (", not red", "", ", red"))
    assert torch.equal(denied, silent)
    assert not torch.equal(named, silent)


def test_what_is_not_read_is_said_with_a_remedy():
    assert KNOWN.advice("a woman in a red dress") == []
    (denial,) = KNOWN.advice("a woman in a dress, not red")
    assert "'not red'" in denial
    assert "left out" in denial
    (language,) = KNOWN.advice("Eine Frau in einem roten Kleid")
    assert "roten" in language
    assert "English" in language
    names = KNOWN.advice("Mrs. Ferdinand Smetacek of Zbraslav in front of her house with her children")
    assert names == [], "a few names are no other language"


def test_a_model_that_knows_all_words_reads_all_of_them():
    everything = Vocabulary()
    assert everything.read("Eine Frau, nicht rot") == "Eine Frau, nicht rot"
    (denial,) = everything.advice("a dress, not red")
    assert "may paint" in denial
