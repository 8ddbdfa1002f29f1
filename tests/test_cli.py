"""The command line: help, exit codes, JSON."""

import json
import re
import runpy
import tempfile
import zipfile
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import cli
from diffcolor.identity import embedded_folder
from pipelines.commands.console import summary
from pipelines.progress import Snapshot
from pipelines.version import VERSION
from tests.conftest import write_manifest, write_picture

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
runner = CliRunner()


def run(*arguments):
    return runner.invoke(cli.app, [str(argument) for argument in arguments])


def commands():
    def walk(command, path):
        for name, sub in getattr(command, "commands", {}).items():
            yield from walk(sub, [*path, name]) if hasattr(sub, "commands") else [([*path, name], sub)]

    return list(walk(get_command(cli.app), []))


@pytest.mark.parametrize(
    ("path", "command"), commands(), ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_every_command_has_help_and_stands_in_the_readme(path, command):
    assert command.help
    assert run(*path, "--help").exit_code == 0
    assert f"diffcolor-batch {' '.join(path)}" in README


def test_the_readme_shows_no_command_that_is_not_there():
    known = {" ".join(path) for path, _ in commands()} | {"manifest"}
    for shown in re.findall(r"diffcolor-batch ((?:manifest )?[a-z]+)", README):
        assert shown in known


def test_the_readme_shows_the_lines_that_the_program_prints(tmp_path):
    """The demo's progress and its proof, by their form: the numbers are those of a run."""
    with zipfile.ZipFile(Path(__file__).parent / "fixtures" / "output-0.1.0.zip") as archive:
        archive.extractall(tmp_path)
    printed = [
        summary(Snapshot(rows=8, ok=4), 26.0),
        summary(Snapshot(rows=8, ok=8), None) + "; results in demo-colorized",
        run("verify", tmp_path / "finished").stdout.splitlines()[0],
    ]
    shown = {re.sub(r"\d+", "#", line.split(" | ")[0]) for line in README.splitlines()}
    for line in printed:
        assert re.sub(r"\d+", "#", line) in shown


def test_the_version_is_the_packages_and_h_is_help():
    assert run("--version").stdout == f"diffcolor-batch {VERSION}\n"
    assert run("submit", "-h").stdout == run("submit", "--help").stdout


def test_a_bad_manifest_is_usage_and_names_every_problem(tmp_path):
    row = {"id": "../x", "image": "a.png", "caption": "c"}
    path = write_manifest(tmp_path / "m.parquet", [row, {**row, "id": "b", "caption": None}])
    for command in (("manifest", "validate", path), ("submit", path, "--output", tmp_path / "out")):
        result = run(*command)
        assert result.exit_code == 2
        assert "bad_id" in result.stderr
        assert "no_prompt" in result.stderr
    assert not (tmp_path / "out").exists()


def test_manifest_build_validate_show(tmp_path):
    write_picture(tmp_path / "a.png", 1)
    (tmp_path / "c.csv").write_text("file,caption,color_hints\na.png,A barn,red barn\n")
    out = tmp_path / "m.parquet"
    assert "1 rows" in run("manifest", "build", tmp_path, "--captions", tmp_path / "c.csv", "-o", out).stdout
    assert "no problems" in run("manifest", "validate", out).stdout
    (row,) = json.loads(run("manifest", "show", out, "--json").stdout)
    assert row["target_prompts"] == ["A red barn"]
    assert "A red barn" in run("manifest", "show", out).stdout


@pytest.mark.parametrize("command", ["status", "verify", "recolor"])
def test_a_folder_that_is_no_output_is_said(tmp_path, command):
    more = ("--id", "a", "--prompt", "x") if command == "recolor" else ()
    result = run(command, tmp_path, *more)
    assert result.exit_code == 1
    assert "not a diffcolor-batch output" in result.stderr


@pytest.mark.parametrize(
    "arguments", [(), ("--id", "a"), ("--prompt", "x"), ("--id", "a", "--manifest", "m"), ("--id", "a", "--group", "g")]
)
def test_recolor_needs_an_id_with_new_colours_a_group_or_a_manifest(tmp_path, arguments):
    assert run("recolor", tmp_path, *arguments).exit_code == 2


@pytest.mark.parametrize("pair", ["caption", "=x", "caption="])
def test_a_malformed_column_mapping_is_usage(tmp_path, pair):
    assert run("manifest", "validate", tmp_path, "--column", pair).exit_code == 2


def test_models_names_the_embedded_files_and_digests():
    entries = json.loads(run("models", "--json").stdout)
    assert [entry["use"] for entry in entries] == ["base model", "CLIP judge", "coarse colorizer"]
    assert all(len(sha) == 64 for entry in entries for sha in entry["files"].values())
    sizes = {entry["use"]: entry["bytes"] for entry in entries}
    assert sizes["base model"] + sizes["CLIP judge"] < 60e6
    assert sizes["coarse colorizer"] < 20e6
    assert embedded_folder("mini").parent.joinpath("MODEL_CARD.md").exists()


def test_without_a_base_model_there_is_no_gray_start(tmp_path):
    found = run("submit", tmp_path / "m.parquet", "--base-model", "none", "--start", "gray")
    assert found.exit_code == 2
    assert "coarse colorizer" in found.stderr


def test_the_papers_budgets_on_mini_are_warned_of(tmp_path):
    for preset, warned in (("paper", True), ("balanced", False)):
        said = run("submit", tmp_path / "nosuch.parquet", "--output", tmp_path / "out", "--preset", preset).output
        assert ("loses colour" in said) == warned


def test_what_nobody_foresaw_ends_with_a_sentence_and_a_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["diffcolor-batch", "submit", "--on-end", "curl -H abc123", "\udcff.parquet"])

    def broken() -> None:
        raise RuntimeError("no such thing at HTTPS://host/x?X-Amz-Signature=abc123 or at https://[x]/y?a=abc123")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        cli.run()
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "RuntimeError" in said.err
    assert "Traceback" not in said.err
    (file,) = tmp_path.iterdir()
    assert "Traceback" in file.read_text()
    assert "abc123" not in said.err + file.read_text()


def test_the_page_of_commands_is_what_the_program_says():
    made = runpy.run_path(str(ROOT / "docs" / "make_commands.py"))["page"]() + "\n"
    assert made == (ROOT / "docs" / "commands.md").read_text(), "python docs/make_commands.py"
