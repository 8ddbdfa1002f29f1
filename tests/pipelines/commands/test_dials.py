"""A preset's numbers, changed by options and by a file."""

from dataclasses import fields
from pathlib import Path

import pytest
import typer

from diffcolor.config import FitConfig, SampleConfig, digest, preset_for
from pipelines.commands.dials import Dials

BALANCED = preset_for("balanced")


def test_untouched_is_the_preset():
    assert Dials().turn(BALANCED) == BALANCED


def test_each_dial_turns_its_own():
    turned = Dials(
        steps="color_prior=300, embedding=100", learning_rate="in_context=1e-5", rank=3, strength=0.7, guidance=2.5
    ).turn(BALANCED)
    fit = turned.fit
    assert (fit.color_prior_steps, fit.embedding_steps) == (300, 100)
    assert fit.in_context_steps == BALANCED.fit.in_context_steps
    assert fit.in_context_learning_rate == 1e-5
    assert fit.color_prior_learning_rate == BALANCED.fit.color_prior_learning_rate
    assert fit.lora_rank == 3
    for sampling in (turned.sample, fit.primary):
        assert (sampling.strength, sampling.guidance_scale) == (0.7, 2.5)
    assert turned.preset == "custom"


def test_one_rate_is_every_stages():
    fit = Dials(learning_rate="5e-5").turn(BALANCED).fit
    assert {fit.learning_rate(stage) for stage in ("color_prior", "embedding", "in_context")} == {5e-5}


def test_sampling_dials_train_nothing_again():
    turned = Dials(etas=(1.1,)).turn(BALANCED)
    assert digest(turned.fit) == digest(BALANCED.fit)
    assert digest(turned) != digest(BALANCED)


def test_a_file_holds_any_setting_and_options_win(tmp_path):
    file = tmp_path / "method.toml"
    file.write_text(
        "etas = [1, 1.5]\n[fit]\ntemperature = 0.01\ncolor_prior_steps = 7\nanti_color_prompts = ['gray']\n"
        "[fit.primary]\nstart = 'gray'\n[sample]\nalign = false\n"
    )
    turned = Dials(file=file, steps="color_prior=9").turn(BALANCED)
    assert turned.etas == (1.0, 1.5)
    assert turned.fit.temperature == 0.01
    assert turned.fit.anti_color_prompts == ("gray",)
    assert turned.fit.color_prior_steps == 9
    assert turned.fit.primary.start == "gray"
    assert turned.sample.start == BALANCED.sample.start
    assert not turned.sample.align


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[fit]\ncolour_prior_steps = 3", "colour_prior_steps"),
        ("[fitt]\nlora_rank = 3", "fitt"),
        ("fit = 3", "[fit]"),
        ("[fit]\nlora_rank = 'three'", "'three'"),
        ("[fit]\nlora_rank = 0", "lora_rank is 0"),
        ("[sample]\nstart = 'red'", "'red'"),
        ("[sample]\nalign = 1", "align"),
        ("etas = 1.0", "etas"),
        ("[fit", "not TOML"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, content, named):
    file = tmp_path / "method.toml"
    file.write_text(content)
    with pytest.raises(typer.BadParameter) as caught:
        Dials(file=file).turn(BALANCED)
    assert named in str(caught.value)
    assert "method.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("dials", "named"),
    [
        (Dials(steps="300"), "color_prior=300"),
        (Dials(steps="prior=300"), "'prior'"),
        (Dials(steps="embedding=-1"), "-1"),
        (Dials(steps="embedding=some"), "'some'"),
        (Dials(steps="embedding=1.5"), "'1.5'"),
        (Dials(learning_rate="embedding=0"), "0"),
        (Dials(learning_rate="nan"), "nan"),
        (Dials(file=Path("/nowhere/method.toml")), "/nowhere/method.toml"),
    ],
)
def test_a_bad_dial_is_refused_by_name(dials, named):
    with pytest.raises(typer.BadParameter) as caught:
        dials.turn(BALANCED)
    assert named in str(caught.value)


def test_the_page_names_every_setting():
    page = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
    names = [one.name for kind in (FitConfig, SampleConfig) for one in fields(kind) if one.name != "primary"]
    assert [name for name in names if f"`{name}`" not in page] == []
