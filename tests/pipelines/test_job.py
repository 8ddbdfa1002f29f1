"""Requests are checked where they are made, and travel as JSON."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcolor.config import PRESETS
from pipelines.images.formats.table import OutputFormat
from pipelines.images.rules import Toned
from pipelines.job import AccessCopy, Device, JobRequest, JobSpec, OnRunning, OutputOptions, failure_limit
from pipelines.values import BadValueError

SPEC = JobSpec(output="out", base_model="mini", judge="mini", config=PRESETS["draft"])


@given(
    st.builds(
        OutputOptions,
        format=st.sampled_from(OutputFormat),
        access_copy=st.none() | st.sampled_from(AccessCopy),
        access_size=st.integers(64, 99_999),
        toned=st.sampled_from(Toned),
        assume_srgb=st.booleans(),
        mark=st.booleans(),
    ),
    st.sampled_from(Device),
    st.sampled_from(OnRunning),
    st.none() | st.text(),
    st.dictionaries(st.text(), st.text()),
    st.sampled_from(list(PRESETS.values())),
)
def test_a_request_comes_back_from_json(outputs, device, on_running, caption, columns, config):
    spec = replace(SPEC, outputs=outputs, device=device, config=config)
    request = JobRequest(manifest="m", spec=spec, on_running=on_running, default_caption=caption, columns=columns)
    assert JobRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_options_are_digested_as_their_plain_values():
    assert json.loads(json.dumps(asdict(OutputOptions(access_copy=AccessCopy.jpeg)))) == {
        "format": "input",
        "access_copy": "jpeg",
        "access_size": 4000,
        "toned": "reject",
        "assume_srgb": False,
        "mark": True,
    }


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        (OutputOptions, {"format": "gif"}, "gif"),
        (OutputOptions, {"toned": "maybe"}, "maybe"),
        (OutputOptions, {"access_size": 63}, "access_size is 63"),
        (JobSpec, {"device": "tpu"}, "tpu"),
        (JobSpec, {"images_per_step": 0}, "images_per_step is 0"),
        (JobSpec, {"timeout_seconds": -1}, "timeout_seconds is -1"),
        (JobRequest, {"workers": 0}, "workers is 0"),
        (JobRequest, {"on_running": "queue"}, "queue"),
        (JobRequest, {"shard_rows": 10_001}, "shard_rows is 10001"),
        (JobRequest, {"max_failures": "many"}, "max_failures is 'many'"),
    ],
)
def test_a_value_out_of_range_is_named(kind, changes, named):
    made = {OutputOptions: OutputOptions(), JobSpec: SPEC, JobRequest: JobRequest(manifest="m", spec=SPEC)}[kind]
    with pytest.raises(ValueError, match=named):
        replace(made, **changes)
    request = JobRequest(manifest="m", spec=SPEC).to_json()
    place = {OutputOptions: request["spec"]["outputs"], JobSpec: request["spec"], JobRequest: request}[kind]
    place.update(changes)
    with pytest.raises(BadValueError, match=named):
        JobRequest.from_json(request)


def test_a_request_without_a_manifest_is_none():
    with pytest.raises(BadValueError, match="manifest"):
        JobRequest.from_json({"spec": SPEC.__dict__})


def test_places_are_made_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "mini").mkdir()  # a folder of that name is not meant
    spec = replace(SPEC, output="photos", judge="photos")
    request = JobRequest(manifest="photos", spec=spec, default_caption="photos").located()
    assert request.manifest == request.spec.output == request.spec.judge == str(tmp_path / "photos")
    assert (request.spec.base_model, request.default_caption) == ("mini", "photos")
    assert replace(request, manifest="s3://archive/m.parquet").located().manifest == "s3://archive/m.parquet"


def test_a_limit_of_failures_is_a_number_or_a_share():
    assert failure_limit(None, 50) == float("inf")
    assert failure_limit("20", 50) == 20
    assert failure_limit("5%", 50) == 2.5


def test_links_in_a_path_are_kept(tmp_path, monkeypatch):
    """Relative image paths start from the manifest's folder as it was named, not from where a link leads."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    assert JobRequest(manifest="link/m.parquet", spec=SPEC).located().manifest == str(tmp_path / "link" / "m.parquet")
