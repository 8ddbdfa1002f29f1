"""What the embedded models are given of a prompt, and what is said of the rest."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcolor.coarse import load_coarse
from diffcolor.judge import load_judge
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
        ("a dress, not gaudy red", "a dress"),
        ("the walls weren't red", "the walls"),
        ("a woman without a white hat", "a woman"),
        ("a barn, not red and green grass", "a barn, and green grass"),
        ("a boy without a hat on red sand", "a boy without a hat on red sand"),
        ("a fuchsia dress", "a pink dress"),
        ("a red barn ★★★ (Haus)", "a red barn"),
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


WORDS = (
    "a the woman dress car hat sky red blue white not no without neither nor or and but xqzt gaudy bright in".split()
)


@given(st.lists(st.sampled_from([*WORDS, ",", "."]), max_size=14).map(" ".join))
def test_what_is_read_is_read_alike_again(prompt):
    seen = KNOWN.read(prompt)
    assert KNOWN.read(seen) == seen
    assert not KNOWN.unknown(seen)
    assert not [text for text in KNOWN.advice(seen) if text.startswith("prompt_denial")]
    given, left = prompt.replace(",", "").split(), seen.replace(",", "").replace(".", "").split()
    rest = iter(given)
    assert all(word in rest for word in left), "words are left out, never added or moved"


@given(st.text(max_size=60))
def test_any_text_is_read_without_an_error(prompt):
    seen = KNOWN.read(prompt)
    assert KNOWN.read(seen) == seen
    assert KNOWN.advice(prompt) is not None


@pytest.mark.parametrize("prompt", ["xqzt blorp", "Ein Haus, vor dem eine Frau steht", "приём", "不知道", "★★★"])
def test_unknown_words_change_nothing(coarse, prompt):
    gray = torch.linspace(0.1, 0.9, 64 * 64).view(1, 1, 64, 64)
    assert torch.equal(coarse.colorize(gray, [prompt]), coarse.colorize(gray, [""]))


def test_a_denied_colour_is_not_painted(coarse):
    gray = torch.linspace(0.1, 0.9, 64 * 64).view(1, 1, 64, 64)
    denied, silent, named = (coarse.colorize(gray, [f"a dress{rest}"]) for rest in (", not red", "", ", red"))
    assert torch.equal(denied, silent)
    assert not torch.equal(named, silent)


def test_the_judge_reads_no_denials_either():
    judge = load_judge()
    assert torch.equal(judge.text_features(["a dress, not red"]), judge.text_features(["a dress"]))


def test_what_is_not_read_is_said_with_a_remedy():
    assert KNOWN.advice("a woman in a red dress") == []
    (denial,) = KNOWN.advice("a woman in a dress, not red")
    assert "'not red'" in denial
    assert "left out" in denial
    (language,) = KNOWN.advice("Eine Frau in einem roten Kleid")
    assert "roten" in language
    assert "English" in language
    assert KNOWN.advice("Rotes Haus"), "nothing of it is read"
    names = KNOWN.advice("Mrs. Ferdinand Smetacek of Zbraslav in front of her house with her children")
    assert names == [], "a few names are no other language"


def test_a_model_that_knows_all_words_reads_all_of_them():
    everything = Vocabulary()
    assert everything.read("Eine Frau, nicht rot") == "Eine Frau, nicht rot"
    (denial,) = everything.advice("a dress, not red")
    assert "may paint" in denial
