"""The installed package, as users have it: from the wheel, in an environment of its own, in any folder."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import write_manifest, write_picture
from tests.processes import ROOT, finish


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in ("diffcolor", "manifests", "pipelines"):  # a copy: setuptools would leave its work in the tree
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cli.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of scripts of a fresh environment; the dependencies are this environment's, the package is not."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (own,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is searched, but the .pth files in it, such as that of an editable install, are not read.
    (own / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


def test_the_wheel_has_the_product_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    modules = {name for name in names if name.endswith(".py")}
    ours = [ROOT / "cli.py"]
    for package in ("diffcolor", "manifests", "pipelines"):
        ours += (ROOT / package).rglob("*.py")
    expected = {str(path.relative_to(ROOT)) for path in ours} - {"manifests/demo/make_demo.py"}
    assert modules == expected
    assert {name.split("/")[0] for name in names} - {"cli.py", "diffcolor", "manifests", "pipelines"} == {
        name.split("/")[0] for name in names if ".dist-info/" in name
    }
    assert {"diffcolor/py.typed", "diffcolor/embedded/MODEL_CARD.md", "pipelines/curation/report/page.html"} <= {*names}


def test_a_job_runs_from_the_wheel_in_a_folder_with_foreign_modules_of_our_names(installed, processes, tmp_path):
    for foreign in ("pipelines/__init__.py", "diffcolor/__init__.py", "cli.py"):
        (tmp_path / foreign).parent.mkdir(exist_ok=True)
        (tmp_path / foreign).write_text("raise ImportError('a foreign module of our name was imported')\n")
    rows = []
    for number in range(2):
        write_picture(tmp_path / f"p{number}.png", number)
        rows.append({"id": f"r{number}", "image": f"p{number}.png", "caption": "a photograph of a house"})
    write_manifest(tmp_path / "m.parquet", rows)
    settings = {"environment": {"PYTHONPATH": ""}, "cwd": tmp_path}
    program = installed / "diffcolor-batch"
    assert "mini (base model)" in finish(processes.start([program, "models"], **settings), 0)
    submit = [program, "submit", "m.parquet", "--preset", "draft", "--output", "out"]
    finish(processes.start(submit, **settings), 0)
    assert [row["status"] for row in pq.read_table(tmp_path / "out" / "results").to_pylist()] == ["ok", "ok"]
    assert "0 luminance mismatches" in finish(processes.start([program, "verify", "out"], **settings), 0)
