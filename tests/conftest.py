"""Shared fixtures: tiny models, gray pictures, one local Ray."""

import os
from pathlib import Path

# Before torch: its threads would fight with Ray's workers for a small machine's cores.
os.environ["OMP_NUM_THREADS"] = "1"
# Ray's workers are "nice" to the rest of a machine (15), which starves them where something else keeps it busy.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray spells it so)

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from xdist.scheduler import LoadScopeScheduling

from diffcolor.config import Config, FitConfig, SampleConfig
from tests import tiny_models

_SAMPLE = SampleConfig(num_inference_steps=4)
TINY = Config(
    preset="tiny",
    fit=FitConfig(color_prior_steps=4, embedding_steps=2, in_context_steps=3, lora_rank=2, primary=_SAMPLE),
    sample=_SAMPLE,
    etas=(0.8, 1.2),
)


# Files for pytest-xdist, the slowest first; those of one word share a process, and in it one Ray or one S3 server.
_SCHEDULE = {
    "test_kills": "kills",
    "test_s3": "s3",
    "test_driver": "ray",
    "test_run": "ray",
    "test_old_output": "ray",
    "test_report": "ray",
    "test_export": "ray",
    "test_several_curators": "ray",
    "test_formats": "formats",
    "test_ray_job": "cluster",
    "test_wheel": "wheel",
    "test_training": "training",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first, so that none of them is left alone at the end."""
    order = {name: number for number, name in enumerate(_SCHEDULE)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


class _Scheduler(LoadScopeScheduling):
    """Hands out whole files (whose tests share fixtures), and files of one Ray or server together."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return _SCHEDULE.get(Path(path).stem, path)


def pytest_xdist_make_scheduler(config: pytest.Config, log) -> _Scheduler:
    config.option.loadscopereorder = False  # which would put the files with the most tests first
    return _Scheduler(config, log)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory):
    return tiny_models.make_base_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory):
    return tiny_models.make_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="session")
def base(base_folder):
    from diffcolor.base_model import load_base_model

    return load_base_model(str(base_folder))


@pytest.fixture(scope="session")
def judge(judge_folder):
    from diffcolor.judge import load_judge

    return load_judge(str(judge_folder))


@pytest.fixture(scope="session")
def models(base, judge):
    from diffcolor.coarse import load_coarse
    from diffcolor.models import Models

    return Models(base, judge, load_coarse())


def gray_picture(seed: int, height: int = 72, width: int = 80) -> np.ndarray:
    """A smooth picture with an edge and some grain, (H, W) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    picture = 90 + 60 * np.sin(x / 11 + seed) + 40 * (y > height / 2) + rng.normal(0, 4, (height, width))
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_picture(path, seed: int, **size) -> None:
    Image.fromarray(gray_picture(seed, **size)).save(path)


def write_manifest(path, rows: list[dict]) -> str:
    """A manifest with explicit types for our columns, inferred ones for the carried columns."""
    from manifests.schema import SCHEMA

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        columns[name] = pa.array(values, SCHEMA.field(name).type) if name in SCHEMA.names else pa.array(values)
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.fixture
def pictures(tmp_path):
    """A folder with three pictures of one size."""
    for number in range(3):
        write_picture(tmp_path / f"p{number}.png", number)
    return tmp_path


@pytest.fixture
def spec(tmp_path, base_folder, judge_folder):
    from pipelines.job import JobSpec

    return JobSpec(
        output=str(tmp_path / "out"),
        base_model=str(base_folder),
        judge=str(judge_folder),
        config=TINY,
        images_per_step=2,
    )


@pytest.fixture(scope="session")
def local_ray():
    """One embedded Ray for all tests that run a driver in this process."""
    import ray

    from pipelines.driver.cluster import start_ray

    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {"env_vars": {"PYTHONPATH": root}}
    start_ray(address="local", num_cpus=2, include_dashboard=False, runtime_env=environment)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory):
    """One S3 server for all tests; it takes seconds to start."""
    from tests.servers import SeaweedFS

    with SeaweedFS(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def s3_environment(monkeypatch):
    """Called with a server, or its variables: makes it the S3 that any tool finds; fsspec forgets the one before."""
    import s3fs

    def use(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()

    yield use
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def processes():
    """Starts processes in groups of their own; none outlives the test."""
    from tests.processes import owned_processes

    with owned_processes() as owned:
        yield owned


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")
