"""Options from a file and from the environment."""

import json

import pytest
from typer.testing import CliRunner

import cli
from tests.conftest import write_manifest


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Shows a manifest of nine rows; returns how many rows were shown."""
    monkeypatch.chdir(tmp_path)
    manifest = write_manifest(
        tmp_path / "m.parquet", [{"id": f"r{k}", "image": "a.png", "caption": "a barn"} for k in range(9)]
    )

    def show(*options, environment=None, before=()):
        done = CliRunner().invoke(cli.app, [*before, "manifest", "show", manifest, "--json", *options], env=environment)
        assert done.exit_code == 0, done.output
        return len(json.loads(done.stdout))

    return show


def test_the_command_line_counts_before_the_environment_before_the_file(shown, tmp_path):
    (tmp_path / "diffcolor-batch.toml").write_text("[manifest.show]\nlimit = 2\n")
    environment = {"DIFFCOLOR_MANIFEST_SHOW_LIMIT": "3"}
    assert shown() == 2
    assert shown(environment=environment) == 3
    assert shown("--limit", "4", environment=environment) == 4
    (tmp_path / "other.toml").write_text("[manifest.show]\nlimit = 5\n")
    assert shown(before=["--settings", "other.toml"]) == 5


def test_settings_are_printed_with_where_they_come_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "diffcolor-batch.toml").write_text('[submit]\nimages-per-step = 3\noutput = "s3://a/b"\n')
    printed = CliRunner().invoke(cli.app, ["--print-settings"], env={"DIFFCOLOR_SUBMIT_PRESET": "draft"})
    assert printed.exit_code == 0
    assert "submit images-per-step = 3  (the file)" in printed.stdout
    assert 'submit preset = "draft"  (DIFFCOLOR_SUBMIT_PRESET)' in printed.stdout


def test_a_variable_that_stands_for_no_option_is_warned_of(shown, monkeypatch):
    monkeypatch.setenv("DIFFCOLOR_MANIFEST_SHOW_LIMITS", "3")
    monkeypatch.setenv("DIFFCOLOR_MANIFEST_SHOW_LIMIT", "2")
    monkeypatch.setenv("DIFFCOLORS", "2")
    done = CliRunner().invoke(cli.app, ["models"])
    warned = [line for line in done.stderr.splitlines() if line.startswith("warning: the variable")]
    assert len(warned) == 1
    assert "DIFFCOLOR_MANIFEST_SHOW_LIMITS is ignored" in warned[0]
    assert "did you mean DIFFCOLOR_MANIFEST_SHOW_LIMIT?" in warned[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[submit]\noutputt = 1\n", "'outputt'; did you mean 'output'"),
        ("[submitt]\n", "did you mean 'submit'"),
        ("submit = 3\n", "write a table [submit]"),
        ("[submit]\noutput = {a = 1}\n", "a value is wanted"),
        ("[submit\n", "cannot be read"),
        ("[submit]\nno-mark = true\n", "did you mean 'mark'"),
    ],
)
def test_what_a_file_gets_wrong_is_named_with_its_remedy(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(text)
    done = CliRunner().invoke(cli.app, ["--settings", "s.toml", "status", "out"], env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_value_of_the_wrong_kind_is_the_options_own_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "diffcolor-batch.toml").write_text('[submit]\nimages-per-step = "many"\n')
    done = CliRunner().invoke(cli.app, ["submit", "m.parquet", "--output", "out"])
    assert done.exit_code == 2
    assert "--images-per-step" in done.stderr


@pytest.mark.parametrize("line", ['on-end = "rm -rf /"', 'env = ["A"]', 'address = "http://elsewhere:8265"'])
def test_a_file_that_merely_lies_there_runs_and_sends_nothing(tmp_path, monkeypatch, line):
    """It may have come with the scans."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "diffcolor-batch.toml").write_text(f"[submit]\n{line}\n")
    refused = CliRunner().invoke(cli.app, ["status", "out"], env={"COLUMNS": "300"})
    assert (refused.exit_code, "asked for: --settings" in refused.stderr) == (2, True)
    asked = CliRunner().invoke(cli.app, ["--settings", "diffcolor-batch.toml", "--print-settings"])
    assert line.partition(" ")[0] in asked.stdout


def test_nor_does_it_widen_what_a_nested_command_may_reach(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "diffcolor-batch.toml").write_text('[manifest.validate]\nallow-input = ["s3://"]\n')
    assert CliRunner().invoke(cli.app, ["status", "out"]).exit_code == 2
