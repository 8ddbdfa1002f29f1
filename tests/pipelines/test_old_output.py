"""What version 0.1.0 left behind stays readable: the same records, and nothing is done twice."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manifests.read import RecolorRequest
from pipelines.curation.recolor import Recolorer
from pipelines.curation.report.report import write_report
from pipelines.curation.review import apply, read_decisions
from pipelines.curation.verify import verify
from pipelines.driver.run import run_job
from pipelines.job import JobRequest, JobSpec
from pipelines.ledger.ledger import Ledger
from pipelines.operations.status import status
from pipelines.store.store import Store

FIXTURE = Path(__file__).parents[1] / "fixtures" / "output-0.1.0.zip"
_OF_A_RUN = ("_engine/lease/", "_engine/runs/", "job.json", "report/index.html")  # they name runs, times, software


@pytest.fixture
def old(tmp_path):
    with zipfile.ZipFile(FIXTURE) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    """Every file that records what was made, by its key: its hash."""
    keys = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        key: hashlib.sha256(path.read_bytes()).hexdigest()
        for key, path in keys.items()
        if not key.startswith(_OF_A_RUN)
    }


def holds(now: object, before: object) -> bool:
    """Whether all that was said is still said; settings that came later may stand beside it."""
    if isinstance(before, dict):
        return isinstance(now, dict) and all(key in now and holds(now[key], before[key]) for key in before)
    return now == before


def request(old: Path, output: str) -> JobRequest:
    """The job of an output, asked for once more."""
    spec = JobSpec(
        output=str(old / output),
        base_model=str(old / "models/base"),
        judge=str(old / "models/judge"),
        config=Ledger(Store(str(old / output))).read_job().config,
        device="cpu",
        images_per_step=2,
    )
    return JobRequest(manifest=str(old / "manifest.parquet"), spec=spec, workers=1, cpus_per_worker=1, shard_rows=3)


@pytest.mark.parametrize(("output", "said"), [("finished", "status.json"), ("interrupted", "interrupted_status.json")])
def test_status_says_what_it_said(old, output, said):
    before, now = json.loads((old / said).read_text()), status(Store(str(old / output))).to_json()
    for changing in ("output", "heartbeat_age"):
        del before[changing], now[changing]
    assert json.loads(json.dumps(now)) == before


def test_verify_finds_nothing_wrong(old):
    before, now = json.loads((old / "verify.json").read_text()), verify(str(old / "finished")).to_json()
    del before["against_input"], now["against_input"]  # the scans are not at their URIs any more
    assert now == before
    assert before["pictures"] == 8


def test_the_report_and_a_second_review_write_the_same_bytes(old):
    before = contents(old / "finished")
    (decisions,) = [key for key in before if key.startswith("review/")]
    write_report(Store(str(old / "finished")))
    assert contents(old / "finished") == before
    done = apply(str(old / "finished"), read_decisions(str(old / "finished" / decisions)))
    assert (done.applied, done.final, done.removed) == (2, 1, 0)
    after = contents(old / "finished")
    assert {key: after[key] for key in before} == before
    assert {key.split("/")[0] for key in after.keys() - before.keys()} == {"review"}


def test_a_row_is_recoloured_without_training_and_its_old_prompts_are_kept(old):
    output = str(old / "finished")
    recolorer = Recolorer(output, base_model=str(old / "models/base"), judge=str(old / "models/judge"))
    before = contents(old / "finished")
    ((_, known),) = recolorer.recolor_all([RecolorRequest(id="pony", prompts=("a red pony",))])
    assert contents(old / "finished") == before
    ((_, made),) = recolorer.recolor_all([RecolorRequest(id="pony", prompts=("a blue pony",))])
    assert known[0].prompt == "a red pony"
    with Image.open(old / "finished" / made[0].image) as picture, Image.open(old / "scans/pony.png") as scan:
        assert np.array_equal(np.asarray(picture.convert("L")), np.asarray(scan))
    prompts = {row.id: [output.prompt for output in row.outputs] for row in Ledger(Store(output)).current()}
    assert prompts["pony"] == ["a red pony", "a blue pony"]
    assert prompts["barn"] == ["a red barn", "a green barn", "a blue barn"]


def test_a_finished_job_has_nothing_to_do(local_ray, old):
    before, job = contents(old / "finished"), json.loads((old / "finished/job.json").read_text())
    snapshot = run_job(request(old, "finished"))
    assert (snapshot.state, snapshot.ok, snapshot.failed, snapshot.skipped) == ("finished", 3, 1, 1)
    assert contents(old / "finished") == before
    now = json.loads((old / "finished/job.json").read_text())
    ours = {"run", "submitted_at", "manifest", "base_model", "judge", "models"}  # they hold the folder's place
    assert holds(now, {key: job[key] for key in job.keys() - ours})
    assert now["models"]["base_model_digest"] == job["models"]["base_model_digest"]


def test_an_interrupted_job_is_finished_from_its_checkpoint(local_ray, old):
    before = contents(old / "interrupted")
    snapshot = run_job(request(old, "interrupted"))
    assert (snapshot.state, snapshot.ok, snapshot.failed, snapshot.skipped) == ("finished", 3, 1, 1)
    rows = {row.id: row for row in Ledger(Store(str(old / "interrupted"))).current()}
    stage, _, step = rows["pony"].resumed_at.partition("/")
    assert (stage, rows["pony"].trained_steps) == ("color_prior", 405 - int(step))
    assert int(step) > 40
    assert rows["barn"].resumed_at is None
    kept = {key: value for key, value in before.items() if key.startswith(("images/barn", "artifacts/barn"))}
    assert kept.items() <= contents(old / "interrupted").items()
    assert verify(str(old / "interrupted")).differences == []
