"""The report in a real Chromium, from `file://`: what a curator does with mouse, keyboard and a spreadsheet."""

import csv
import io
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffcolor.config import HINTING, PRESETS
from diffcolor.hints import Hint, HintSpreader
from diffcolor.identity import ModelIdentity
from diffcolor.lab import ab_of
from manifests.errors import ManifestError
from pipelines.curation.report import report
from pipelines.curation.report.report import refresh_report, write_report
from pipelines.curation.review import Decision, apply, decisions, read_decisions
from pipelines.curation.verify import verify
from pipelines.driver.run import run_job
from pipelines.errors import RecolorError
from pipelines.job import JobRequest, JobSpec
from pipelines.ledger.job_file import JobFile
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import FAILED, OK, Output, ResultRow
from pipelines.store.store import Store
from tests.conftest import TINY, write_manifest, write_picture
from tests.pipelines.jobs import request

HOSTILE = "</script><img src=x onerror=document.title='pwned'>{{js}}"


UNNAMED = """[...document.querySelectorAll('button, input, select, textarea, a')].filter(one => !(
  one.textContent.trim() || one.getAttribute('aria-label') || one.closest('label') || one.title))
  .map(one => one.outerHTML)"""
# WCAG 2.2, 1.4.3.
POOR_CONTRAST = """() => {
  const light = (rgb) => {
    const [r, g, b] = rgb.match(/\\d+/g).map(v => { v /= 255;
      return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (one) => {
    while (one) { const c = getComputedStyle(one).backgroundColor; if (!/, 0\\)$/.test(c)) return c;
      one = one.parentElement; }
    return 'rgb(255, 255, 255)'; };
  const texts = 'p, button, label, h1, h2, h3, dt, dd, figcaption, span';
  return [...document.querySelectorAll(texts)]
    .filter(one => one.textContent.trim() && one.offsetParent && !one.classList.contains('tag'))
    .map(one => {
      const a = light(getComputedStyle(one).color), b = light(ground(one));
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.outerHTML.slice(0, 80)]; })
    .filter(([ratio]) => ratio < 4.5); }"""


@pytest.fixture(scope="module")
def browser():
    """The machine's own Chromium, driven by Playwright."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine; install it with: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser):
    """Opens a report; fails on any error in the page's script and on any request beyond the disk."""
    contexts = []

    def open_(path: Path):
        context = browser.new_context(viewport={"width": 1300, "height": 900}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
        page.on(
            "request", lambda asked: page.errors.append(asked.url) if asked.url[:5] not in ("file:", "data:") else None
        )
        page.goto(path.as_uri())
        page.wait_for_selector(".card, .fail", timeout=60_000)
        return page

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base_folder, judge_folder, local_ray):
    """A job of three pictures with two variants each, one of another shape, and a row that failed."""
    folder = tmp_path_factory.mktemp("report")
    write_picture(folder / "a.png", 1)
    write_picture(folder / "b.png", 2, height=70, width=140)
    write_picture(folder / "c.png", 3)
    prompts = ["a red barn", "a green barn"]
    rows = [
        {"id": name, "image": f"{name}.png", "caption": f"barn {name}", "target_prompts": prompts} for name in "abc"
    ]
    rows[1]["color_points"] = [{"x": 10, "y": 10, "color": "navy"}, {"x": 60, "y": 60, "color": "#000080"}]
    rows[2]["caption"] = HOSTILE
    rows.append({"id": "gone", "image": "gone.png", "caption": "nothing"})
    spec = JobSpec(
        output=str(folder / "out"), base_model=str(base_folder), judge=str(judge_folder), config=TINY, images_per_step=4
    )
    run_job(request(write_manifest(folder / "m.parquet", rows), spec), at_end=refresh_report)
    return spec


@pytest.fixture
def job(finished, tmp_path):
    """A copy of it, to decide about."""
    shutil.copytree(finished.output, tmp_path / "out")
    return replace(finished, output=str(tmp_path / "out"))


def index(job) -> Path:
    return Path(job.output) / "report" / "index.html"


def test_a_jobs_end_leaves_a_report_that_opens_from_disk(job, opened):
    page = opened(index(job))
    assert page.locator(".card").count() == 4
    assert page.locator("#counts").inner_text().split() == [
        "4",
        "rows",
        "3",
        "ok",
        "1",
        "failed",
        "0",
        "skipped",
        "6",
        "pictures",
        *page.locator("#counts").inner_text().split()[-3:],
    ]
    assert page.locator("#plots svg").count() == 4
    assert "guess" in page.locator("#statement").inner_text()
    assert page.locator("#failures").inner_text().startswith("1 rows without a picture")
    images = page.locator(".card[data-id=a] .slider img")
    assert images.evaluate_all("all => all.every(one => one.complete && one.naturalWidth > 0)")
    assert page.errors == []


def test_a_row_that_failed_when_it_was_done_again_says_so_whatever_it_keeps(job, opened):
    store = Store(job.output)
    ledger = Ledger(store)
    rows = list(ledger.outcomes(ledger.read_job().plan))
    (kept,) = [row.outputs for *_, row in rows if row.id == "a"]
    (place,) = [place for *place, row in rows if row.id == "gone"]
    ledger.amend(ledger.read_job().plan, *place, lambda row: replace(row, outputs=kept))
    write_report(store)
    page = opened(index(job))
    assert page.locator(".card[data-id=gone] .fail").inner_text().startswith("failed: ")
    assert page.locator(".card[data-id=gone] img").count() == 0
    assert page.errors == []


def test_hostile_text_is_text(job, opened):
    page = opened(index(job))
    assert page.title() != "pwned"
    page.locator(".card[data-id=c] button", has_text="Look closely").click()
    page.wait_for_selector("dialog[open]")
    assert HOSTILE in page.locator("#detail-body").inner_text()
    assert page.locator("img[src=x]").count() == 0
    assert page.errors == []


def test_the_slider_uncovers_the_colours(job, opened):
    page = opened(index(job))
    slider = page.locator(".card[data-id=a] .slider")
    before = slider.locator(".after").evaluate("one => getComputedStyle(one).clipPath")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + 40, steps=5)
    page.mouse.up()
    after = slider.locator(".after").evaluate("one => getComputedStyle(one).clipPath")
    assert "50%" in before
    assert float(re.search(r"([\d.]+)%\)", after)[1]) < 20
    assert page.errors == []


def test_filters_find_rows(job, opened):
    page = opened(index(job))
    page.fill("#search", "BARN b")
    assert page.locator(".card").evaluate_all("all => all.map(one => one.dataset.id)") == ["b"]
    page.fill("#search", "")
    page.select_option("#status", "failed")
    assert page.locator(".card").evaluate_all("all => all.map(one => one.dataset.id)") == ["gone"]
    assert "not_found" in page.locator(".card").inner_text()
    page.select_option("#status", "")
    page.select_option("#decision", "approve")
    assert page.locator(".card").count() == 0
    assert "0 of 4 rows" in page.locator("#page").inner_text()
    assert page.errors == []


def test_decisions_by_keyboard_are_kept_saved_and_applied(job, opened, tmp_path):
    page = opened(index(job))
    page.fill("#reviewer", "=Curator")
    page.locator("h2#gallery-title").click()
    page.keyboard.press("a")  # approves a, and on to b
    page.keyboard.press("2")  # picks b's second variant
    page.keyboard.press("j")
    page.keyboard.press("r")  # rejects c
    assert "2 approved (1 with another variant), 1 rejected, 0 to decide" in page.locator("#progress").inner_text()
    page.reload()
    page.wait_for_selector(".card")
    assert "2 approved" in page.locator("#progress").inner_text(), "kept in the browser"
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == "decisions.csv"
    saved = tmp_path / "decisions.csv"
    download.value.save_as(saved)
    lines = {line["id"]: line for line in csv.DictReader(io.StringIO(saved.read_text()))}
    assert {key: one["decision"] for key, one in lines.items()} == {"a": "approve", "b": "pick", "c": "reject"}
    assert lines["a"]["reviewer"] == "'=Curator", "no formula for a spreadsheet"
    done = apply(job.output, read_decisions(str(saved)))
    assert (done.applied, done.stale, done.unknown, done.final) == (3, (), (), 2)
    final = Path(job.output) / "final"
    rows = {row["id"]: row for row in pq.read_table(f"{job.output}/results").to_pylist()}
    (filed,) = final.glob("b_colorized-*.png")
    assert filed.read_bytes() == (Path(job.output) / rows["b"]["outputs"][1]["image"]).read_bytes()
    record = json.loads(Path(f"{filed}.json").read_text())
    assert record["review"]["reviewer"] == "=Curator"
    assert record["method"]["target_prompt"] == "a green barn"
    write_report(Store(job.output))
    page = opened(index(job))  # another browser, without a memory
    assert "2 approved (1 with another variant), 1 rejected" in page.locator("#progress").inner_text()
    assert "a green barn" in page.locator(".card[data-id=b]").inner_text()
    assert page.errors == []


def test_a_picture_is_looked_at_closely(job, opened):
    page = opened(index(job))
    page.locator("h2#gallery-title").click()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] .facts")
    text = page.locator("#detail-body").inner_text()
    for expected in (
        "a red barn",
        "eta 0.8",
        "eta 1.2",
        "0 of 80 x 72 pixels differ",
        "color_prior: loss from",
        "where the model is guessing",
        "sha256",
        "seed",
    ):
        assert expected in text
    assert page.locator("dialog img").evaluate_all("all => all.every(one => one.naturalWidth > 0 || !one.complete)")
    seed = next(Ledger(Store(job.output)).current()).seed
    assert seed > 2**53
    assert str(seed) in text, "every digit of it"
    page.keyboard.press("j")
    page.wait_for_function("document.getElementById('detail-title').textContent === 'b'")
    page.wait_for_selector("dialog[open] .facts")
    assert "10,10,navy" in page.locator("#detail-body").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()
    assert page.errors == []


@pytest.mark.parametrize("row_id", ["a", "b"])  # b has known colours
def test_a_runner_up_of_the_ladder_is_made_when_it_is_picked(job, opened, tmp_path, monkeypatch, row_id):
    def row():
        return next(row for row in Ledger(Store(job.output)).current() if row.id == row_id)

    monkeypatch.setitem(PRESETS, "tiny", TINY)
    page = opened(index(job))
    page.locator(f".card[data-id={row_id}] button", has_text="Look closely").click()
    page.locator("dialog button", has_text="made when the decisions are applied").first.click()
    with page.expect_download() as download:
        page.locator("#close").click()
        page.click("#export")
    download.value.save_as(tmp_path / "d.csv")
    (one,) = read_decisions(str(tmp_path / "d.csv"))
    assert (one.decision, float(one.eta) in TINY.etas) == ("pick", True)
    before = row().outputs[0]
    assert before.eta != float(one.eta)
    done = apply(job.output, [one])
    assert (done.final, done.applied, done.failed) == (1, 1, {})
    again = apply(job.output, [one])
    assert (again.final, again.applied, again.stale) == (1, 1, ()), "the same once more changes nothing"
    assert row().outputs[0].eta == float(one.eta)
    assert row().outputs[0].hints == before.hints
    assert len(row().outputs) == 2
    assert verify(job.output).differences == []


def test_a_curators_known_colours_are_made_at_full_size(job, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)

    def row():
        return next(row for row in Ledger(Store(job.output)).current() if row.id == "a")

    reviewed = row().outputs[1]
    (tmp_path / "d.csv").write_text(
        f'id,output_sha256,decision,hints\na,{reviewed.sha256},approve,"10,10,navy; 5,40,20,20,#906048"\n'
    )
    decided = read_decisions(str(tmp_path / "d.csv"))
    assert (apply(job.output, decided).applied, len(row().outputs)) == (1, 3)
    made = row().outputs[2]
    assert (made.prompt, made.eta) == (reviewed.prompt, reviewed.eta)
    assert made.hints == ("10,10,navy", "5,40,20,20,#906048")
    (filed,) = (Path(job.output) / "final").glob("a_colorized*.png")
    assert filed.read_bytes() == (Path(job.output) / made.image).read_bytes()
    again = apply(job.output, decided)
    assert (again.final, again.stale, len(row().outputs)) == (1, (), 3), "the same once more changes nothing"
    assert verify(job.output).differences == []
    (tmp_path / "d.csv").write_text(f'id,output_sha256,decision,hints\na,{reviewed.sha256},approve,"10,10,navi"\n')
    with pytest.raises(ManifestError, match="navy"):
        read_decisions(str(tmp_path / "d.csv"))


def edit(page, row_id: str):
    """Opens the editor of known colours; its canvas and the canvas's place on the screen for a pixel of the preview."""
    page.locator(f".card[data-id={row_id}] button", has_text="Look closely").click()
    page.locator("dialog summary", has_text="Set known colours").click()
    canvas = page.locator(".places canvas")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    box, (width, height) = canvas.bounding_box(), canvas.evaluate("one => [one.width, one.height]")
    scale = min(box["width"] / width, box["height"] / height)
    left, top = box["x"] + (box["width"] - scale * width) / 2, box["y"] + (box["height"] - scale * height) / 2
    return canvas, lambda x, y: (left + scale * (x + 0.5), top + scale * (y + 0.5))


def painted_pixels(canvas) -> np.ndarray:
    """What the canvas shows, (H, W, 3) in [0, 1]."""
    values, width = canvas.evaluate(
        "one => [[...one.getContext('2d').getImageData(0, 0, one.width, one.height).data], one.width]"
    )
    return np.array(values).reshape(-1, width, 4)[..., :3] / 255


def ab(pixels: np.ndarray) -> np.ndarray:
    return ab_of(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


def test_known_colours_are_set_with_the_mouse_seen_at_once_and_made_at_full_size(job, opened, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    page = opened(index(job))
    canvas, place = edit(page, "a")
    before = painted_pixels(canvas)
    page.mouse.click(*place(20, 30))
    assert "Choose a colour first" in page.locator(".places [role=status]").inner_text()
    page.fill(".places input[list]", "Navi")
    page.mouse.click(*place(20, 30))
    assert "“Navi” is no colour of the table" in page.locator(".places [role=status]").inner_text()
    page.fill(".places input[list]", "Navy")
    page.mouse.click(*place(20, 30))
    page.fill(".places input[list]", "#906048")
    page.mouse.move(*place(50, 10))
    page.mouse.down()
    page.mouse.move(*place(60, 30))
    page.mouse.move(*place(70, 40))
    page.mouse.up()
    page.mouse.click(*place(5, 60))
    assert page.locator(".places li").count() == 3
    page.locator(".places button", has_text="Undo").click()
    assert [one.split(" Remove")[0] for one in page.locator(".places li").all_inner_texts()] == [
        "20,30,Navy",
        "50,10,20,30,#906048",
    ]
    seen = painted_pixels(canvas)
    assert np.abs(seen - before).max() > 0.05
    page.locator(".places button", has_text="Approve with these colours").click()
    assert "with known colours" in page.locator("dialog button.approve[aria-pressed=true]").inner_text()
    with page.expect_download() as download:
        page.locator("#close").click()
        page.click("#export")
    download.value.save_as(tmp_path / "d.csv")
    assert page.errors == []
    (decided,) = read_decisions(str(tmp_path / "d.csv"))
    assert (decided.decision, decided.hints) == ("pick", "20,30,Navy; 50,10,20,30,#906048")
    done = apply(job.output, [decided])
    assert (done.applied, done.failed, done.final) == (1, {}, 1)
    made = next(row for row in Ledger(Store(job.output)).current() if row.id == "a").outputs[-1]
    assert made.hints == ("20,30,Navy", "50,10,20,30,#906048")
    full = np.asarray(Image.open(Path(job.output) / made.image)) / 255
    wanted, got = ab(full) - ab(before), ab(seen) - ab(before)  # the job's pictures are small: previews have their size
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.8
    for where in (np.s_[29:32, 19:22], np.s_[15:35, 55:65]):
        assert np.linalg.norm(np.median((ab(seen) - ab(full))[where], (0, 1))) < 8
    assert verify(job.output).differences == []
    write_report(Store(job.output))
    page = opened(index(job))
    assert "1 approved" in page.locator("#progress").inner_text()


def test_known_colours_are_set_by_keyboard(job, opened):
    page = opened(index(job))
    canvas, _ = edit(page, "c")
    before = painted_pixels(canvas)
    page.locator(".places button", has_text="Neutral").click()
    canvas.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("b")
    for key in ("Shift+ArrowRight", "ArrowRight", "Shift+ArrowDown", "b"):
        page.keyboard.press(key)
    assert page.locator(".places li").all_inner_texts() == ["40,36,neutral Remove", "40,36,11,10,neutral Remove"]
    page.keyboard.press("z")
    assert page.locator(".places li").count() == 1
    assert np.linalg.norm(ab(painted_pixels(canvas))[36, 40]) < 0.5 * np.linalg.norm(ab(before)[36, 40])
    page.locator(".places li button").press("Enter")
    assert page.locator(".places li").count() == 0
    assert page.locator(".places button", has_text="Approve with").is_disabled()
    assert page.evaluate("Object.keys(decided)") == [], "keys of the editor decide nothing"
    assert page.errors == []


def test_a_colour_is_taken_from_a_variant_and_what_is_known_can_be_changed(job, opened):
    page = opened(index(job))
    edit(page, "b")
    assert page.locator(".places li").all_inner_texts() == ["10,10,navy Remove", "60,60,#000080 Remove"]
    page.locator(".places button", has_text="Take a colour").click()
    page.locator("dialog img[data-variant='1']").click()
    page.locator(".places [role=status]", has_text="taken").wait_for()
    taken = page.locator(".places input[list]").input_value()
    variant = next(row for row in Ledger(Store(job.output)).current() if row.id == "b").outputs[1]
    shown = np.asarray(Image.open(Path(job.output) / variant.preview)).astype(int)
    colour = [int(taken[i : i + 2], 16) for i in (1, 3, 5)]
    assert np.abs(shown[30:40, 65:75] - colour).max(-1).min() < 12
    assert page.locator(".places [type=color]").input_value() == taken
    assert page.errors == []


@pytest.mark.parametrize("seed", range(3))
def test_the_pages_solver_agrees_with_the_workers(browser, seed):
    """The same hints on the same picture, by the page's script and by `HintSpreader`."""
    height, width = 300, 400
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    gray, places = 0.35 + 0.1 * x / width, [(200, 140, 1, 1, rng.uniform(0, 1, 3).tolist())]
    for u, v in ((80, 70), (310, 80), (100, 225), (290, 215)):  # a thing has a point, or a box that it fills
        size, side = rng.uniform(30, 65), int(rng.choice([1, 31]))
        gray = np.where(np.hypot(y - v, x - u) < size, rng.choice([0.2, 0.65]) + 0.1 * y / height, gray)
        places.append((u - side // 2, v - side // 2, side, side, rng.uniform(0, 1, 3).tolist()))
    codes = np.round(255 * (gray + rng.normal(0, 0.004, gray.shape))).astype(np.uint8)
    script = (Path(report.__file__).parent / "hints.js").read_text()
    page = browser.new_page()
    page.add_script_tag(content=script)
    found = page.evaluate(
        """([codes, width, hinting, hints]) => {
          const data = new Uint8ClampedArray(codes.flatMap(code => [code, code, code, 255]));
          const preview = new HintPreview({ data, width, height: codes.length / width }, hinting);
          return [...preview.paint(hints)]; }""",
        [
            codes.ravel().tolist(),
            width,
            asdict(HINTING),
            [{"x": u, "y": v, "width": w, "height": h, "rgb": rgb} for u, v, w, h, rgb in places],
        ],
    )
    page.close()
    seen = np.array(found).reshape(height, width, 4)[..., :3] / 255
    scan = codes / np.float32(255)
    hints = [
        Hint(
            top=v / height,
            left=u / width,
            bottom=(v + h) / height,
            right=(u + w) / width,
            ab=tuple(ab(np.array(rgb)[None, None])[0, 0].tolist()),
        )
        for u, v, w, h, rgb in places
    ]
    wanted = ab(HintSpreader(scan, hints)(np.repeat(scan[..., None], 3, -1))[0])
    assert (
        np.linalg.norm(ab(seen.astype(np.float32)) - wanted, axis=-1).mean()
        < 0.2 * np.linalg.norm(wanted, axis=-1).mean()
    )


def test_a_note_decides_nothing_and_goes_with_what_is_decided(job, opened):
    page = opened(index(job))
    page.locator(".card[data-id=a] button", has_text="Look closely").click()
    page.fill("dialog textarea", "faces are green")
    assert "0 approved (0 with another variant), 0 rejected" in page.locator("#progress").inner_text()
    page.locator("dialog button", has_text="Reject").click()
    assert "1 rejected" in page.locator("#progress").inner_text()
    assert page.evaluate("decisionOf(all()[0]).note") == "faces are green"
    assert page.locator("dialog textarea").input_value() == "faces are green"


def test_approving_a_picked_runner_up_keeps_the_pick(job, opened):
    page = opened(index(job))
    page.locator(".card[data-id=a] button", has_text="Look closely").click()
    page.locator("dialog button", has_text="made when the decisions are applied").first.click()
    eta = page.evaluate("decisionOf(all()[0]).eta")
    page.locator("dialog button", has_text="Approved: picked").click()
    assert page.evaluate("[decisionOf(all()[0]).decision, decisionOf(all()[0]).eta]") == ["pick", eta]


def test_the_page_can_be_used_without_seeing_it(job, opened):
    """Names for everything that can be operated, text for every picture, enough contrast."""
    page = opened(index(job))
    page.locator(".card[data-id=a] button", has_text="Look closely").click()
    page.wait_for_selector("dialog[open] .facts")
    assert page.evaluate("[...document.images].filter(one => !one.hasAttribute('alt')).length") == 0
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate(POOR_CONTRAST) == []


def many(count: int):
    for number in range(count):
        output = Output(
            prompt=f"a red barn {number}",
            image=f"images/r{number}/1.png",
            sha256=f"{number:064x}",
            eta=1.0,
            colorfulness=number % 50,
            clip_margin=number % 7 / 10,
            candidates=(),
            preview="report/previews/x.jpg",
        )
        ok = number % 10 != 9
        yield ResultRow(
            id=f"r{number}",
            status=OK if ok else FAILED,
            row_digest=str(number),
            context_prompt=f"barn number {number}",
            outputs=(output,) if ok else (),
            error_kind=None if ok else "truncated",
            error_message=None if ok else "cut",
            warnings=("near_gray: a bit",) if number % 100 == 0 else (),
            seconds=float(number % 60),
            width=80,
            height=72,
            preview="report/previews/x.jpg",
        )


def write_job(store: Store, rows: int) -> None:
    models = ModelIdentity(base_model="mini", base_model_digest="0", judge="mini", judge_digest="0")
    request = JobRequest(
        manifest="m.parquet", spec=JobSpec(output=store.uri, base_model="mini", judge="mini", config=TINY)
    )
    Ledger(store).write_job(JobFile.of(request, rows, models, "p"))


def test_ten_thousand_rows_are_shown_and_filtered(tmp_path, opened, monkeypatch):
    store = Store(str(tmp_path))
    write_job(store, 10_000)
    monkeypatch.setattr(Ledger, "current", lambda self: many(10_000))
    assert write_report(store) == {"ok": 9000, "failed": 1000}
    (tmp_path / "report" / "previews").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "report" / "previews" / "x.jpg")
    page = opened(tmp_path / "report" / "index.html")
    assert "10000 of 10000 rows, page 1 of 417" in page.locator("#page").inner_text()
    page.fill("#search", "number 4242")
    assert "1 of 10000 rows" in page.locator("#page").inner_text()
    page.fill("#search", "")
    page.select_option("#warning", "near_gray")
    assert "100 of 10000 rows" in page.locator("#page").inner_text()
    page.select_option("#warning", "")
    page.select_option("#order", "seconds")
    page.click("#next")
    assert "page 2 of 417" in page.locator("#page").inner_text()
    assert page.locator(".card").count() == 24


def test_a_shorter_report_leaves_nothing_of_a_longer_one(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    write_job(store, 5)
    for count in (1200, 5):
        monkeypatch.setattr(Ledger, "current", lambda self, count=count: many(count))
        write_report(store)
    assert len(store.list("report/data")) == 2


def test_a_large_report_has_parts_and_the_last_ones_are_written_on_demand(tmp_path, opened, monkeypatch):
    store = Store(str(tmp_path))
    write_job(store, 2500)
    monkeypatch.setattr("pipelines.curation.report.report.PART_CHUNKS", 1)  # of 500 rows
    monkeypatch.setattr("pipelines.curation.report.report.PART_ROWS", 500)
    monkeypatch.setattr("pipelines.curation.report.report.FIRST_PARTS", 2)
    monkeypatch.setattr(Ledger, "current", lambda self: many(2500))
    assert sum(write_report(store).values()) == 2500
    assert len(store.list("report/data")) == 4
    page = opened(tmp_path / "report" / "index.html")
    assert "500 of 500 rows" in page.locator("#page").inner_text()
    page.click("text=501 to 1,000")
    assert "a red barn 500" in page.locator(".card").first.inner_text()
    assert page.locator("#parts a").count() == 2
    assert page.locator("#parts span[title*='--part 5']").count() == 1
    write_report(store, part=5)
    page = opened(tmp_path / "report" / "part-0005.html")
    assert "a red barn 2000" in page.locator(".card").first.inner_text()
    write_report(store)
    (tmp_path / "report" / "data" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "report" / "data" / "rows-0001 (1).js").write_bytes(b"")
    write_report(store)
    assert len(store.list("report/data")) == 6, "what was asked for once is kept up to date"
    with pytest.raises(ValueError, match="parts 1 to 5"):
        write_report(store, part=6)
    monkeypatch.setattr(Ledger, "current", lambda self: many(300))
    write_report(store)
    assert sorted(path.name for path in (tmp_path / "report").glob("*.html")) == ["index.html"]


# Review without a browser --------------------------------------------------------------------------------------------


def decision(row, number=0, what="approve", **more) -> Decision:
    return Decision(id=row.id, output_sha256=row.outputs[number].sha256, decision=what, **more)


def test_what_is_no_longer_approved_leaves_the_final_folder(job):
    a, b, _, _ = Ledger(Store(job.output)).current()
    assert apply(job.output, [decision(a), decision(b)]).final == 2
    done = apply(job.output, [decision(a, what="reject", note="wrong red")])
    assert (done.final, done.removed) == (1, 1)
    assert sorted(path.name for path in (Path(job.output) / "final").iterdir()) == [
        f"b_colorized-{b.outputs[0].sha256[:8]}.png",
        f"b_colorized-{b.outputs[0].sha256[:8]}.png.json",
    ]
    assert decisions(Store(job.output))["a"]["note"] == "wrong red"
    assert len(Store(job.output).list("review")) == 2, "every application is kept"


def test_a_picture_whose_row_cannot_be_seen_stays_in_the_final_folder(job):
    """As while a changed manifest is being run: the new plan has nothing yet."""
    store = Store(job.output)
    ledger = Ledger(store)
    a, b, _, _ = ledger.current()
    assert apply(job.output, [decision(a), decision(b)]).final == 2
    facts, before = ledger.plan(ledger.read_job().plan), store.read("job.json")
    ledger.write_plan("0123456789abcdef", facts)
    store.write("job.json", json.dumps({**json.loads(before), "plan": "0123456789abcdef"}).encode())
    assert list(Ledger(store).current()) == []
    done = apply(job.output, [decision(a)])
    assert (done.unknown, done.final, done.removed) == (("a",), 2, 0)
    assert len(store.list("final")) == 4
    store.write("job.json", before)
    assert apply(job.output, [decision(a, what="reject")]).final == 1


def test_a_decision_about_other_bytes_is_stale(job):
    a, *_ = Ledger(Store(job.output)).current()
    done = apply(
        job.output,
        [replace(decision(a), output_sha256="0" * 64), Decision(id="x", output_sha256="", decision="reject")],
    )
    assert (done.applied, done.stale, done.unknown, done.final) == (0, ("a",), ("x",), 0)


def test_what_a_spreadsheet_would_run_is_kept_as_text(job):
    store = Store(job.output)
    a, *_ = Ledger(store).current()
    apply(job.output, [decision(a, note='=HYPERLINK("http://evil")')])
    (key,) = store.list("review")
    assert b"'=HYPERLINK" in store.read(key)
    assert decisions(store)["a"]["note"] == '=HYPERLINK("http://evil")'
    store.write("review/mine.csv", b"\xef\xbb\xbfanything")
    assert set(decisions(store)) == {"a"}, "somebody's own file in the folder"


def test_a_rotten_picture_is_not_filed_as_approved(job):
    store = Store(job.output)
    a, *_ = Ledger(store).current()
    store.write(a.outputs[0].image, b"rotten")
    with pytest.raises(RecolorError, match="damaged"):
        apply(job.output, [decision(a)])
    assert store.list("final") == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"id,decision\na,approve\n", "missing_column"),
        (b"id,output_sha256,decision\na,1,maybe\n", "bad_decision"),
        (b"id,output_sha256,decision,eta\na,1,pick,high\n", "bad_eta"),
        (b"\xff\xfe", "bad_csv"),
    ],
)
def test_a_bad_csv_is_refused_with_its_line(tmp_path, text, kind):
    (tmp_path / "d.csv").write_bytes(text)
    with pytest.raises(ManifestError) as caught:
        read_decisions(str(tmp_path / "d.csv"))
    assert [problem.kind for problem in caught.value.problems] == [kind]
