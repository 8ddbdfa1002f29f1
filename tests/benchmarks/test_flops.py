"""The counted floors of docs/performance.md hold."""

import re
from pathlib import Path

import pytest

from benchmarks.flops import contrast_share, figures
from diffcolor.config import FitConfig, SampleConfig

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


@pytest.fixture(scope="module")
def counted():
    return figures("sd15")


def test_the_paper_preset_costs_what_it_may(counted):
    assert counted["paper"]["pflop"] <= 9.0
    assert counted["paper"]["pflop_tiny"] <= 6.7
    assert counted["paper"]["roofline_s"] <= 30
    assert counted["paper"]["roofline_s_tiny"] <= 18


def test_kernels_and_memory_of_a_step(counted):
    assert counted["unet_kernels"] <= 1200
    assert counted["stage1_peak_gib_k4"] <= 18
    assert counted["stage1_peak_gib_k4_tiny"] <= 8


def agrees_with_the_page(counted: dict, prefix: str) -> None:
    rows = re.findall(
        rf"^\| {prefix}`(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text(), re.MULTILINE
    )
    assert {name for name, *_ in rows} == {"paper", "balanced", "draft"}
    for name, *written in rows:
        found = counted[name]
        now = [found["pflop"], found["pflop_tiny"], found["roofline_s"], found["roofline_s_tiny"]]
        assert [float(one) for one in written] == pytest.approx(now, rel=0.02)


def test_the_page_says_what_is_counted(counted):
    agrees_with_the_page(counted, "")


@pytest.mark.slow
def test_the_page_says_what_is_counted_of_xl():
    agrees_with_the_page(figures("sdxl"), "XL, ")


def test_a_drawn_contrast_is_computed_as_often_as_alpha_bar_says():
    assert contrast_share(FitConfig(), [0.9, 0.1]) == 1
    assert contrast_share(FitConfig(contrastive_at="drawn"), [0.9, 0.1]) == pytest.approx(0.5)
    short = FitConfig(contrastive_at="drawn", timesteps="sampling", primary=SampleConfig(strength=0.5))
    assert contrast_share(short, [0.9, 0.1]) == pytest.approx(0.9)
