"""Saved training states: the furthest whole one is found, whatever happened to the others."""

import threading

import pytest
import torch

from diffcolor.checkpoint import Checkpoint
from pipelines.errors import StoreError
from pipelines.store.store import Store
from pipelines.worker.checkpoints import Checkpoints

KEY = "ab" * 32


@pytest.fixture
def events():
    return []


@pytest.fixture
def checkpoints(tmp_path, events):
    return Checkpoints(Store(str(tmp_path)), lambda event, **facts: events.append((event, facts)))


def state(stage: str, step: int) -> Checkpoint:
    return Checkpoint(stage, step, {"x": torch.tensor([float(step)])})


def another(store: Store) -> Checkpoints:
    return Checkpoints(store, print)


def save(checkpoints, *states) -> None:
    for one in states:
        checkpoints.save([(KEY, one)])
        checkpoints.wait()


def test_the_furthest_is_found_and_two_are_kept(checkpoints):
    assert checkpoints.load(KEY) is None
    save(checkpoints, state("color_prior", 9), state("embedding", 1), state("embedding", 2))
    assert len(checkpoints.store.list("_engine/checkpoints")) == 2
    found = checkpoints.load(KEY)
    assert (found.stage, found.step, found.tensors["x"].item()) == ("embedding", 2, 2.0)


def test_a_damaged_one_is_logged_and_the_one_before_is_used(checkpoints, events):
    save(checkpoints, state("embedding", 1), state("embedding", 2))
    newest = checkpoints.store.list("_engine/checkpoints")[1]
    checkpoints.store.write(newest, checkpoints.store.read(newest)[:-5])
    assert checkpoints.load(KEY).step == 1
    assert events[-1][0] == "checkpoint_refused"
    save(checkpoints, state("embedding", 3))
    assert checkpoints.load(KEY).step == 3, "the damaged one was the one to be replaced"


def test_saving_never_overwrites_the_one_that_was_loaded(checkpoints, tmp_path):
    save(checkpoints, state("embedding", 1), state("embedding", 2))
    again = Checkpoints(Store(str(tmp_path)), lambda *_, **__: None)
    assert again.load(KEY).step == 2
    save(again, state("embedding", 3))
    assert sorted(again.load(KEY).step for _ in range(1)) == [3]
    kept = {another(again.store).load(KEY).step}
    again.store.delete("_engine/checkpoints/ab/" + KEY + "/0.checkpoint")
    assert kept | {another(again.store).load(KEY).step} == {2, 3}


def test_a_busy_upload_skips_and_a_failed_one_is_logged(checkpoints, events, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(checkpoints.store, "write", lambda *_: gate.wait())
    assert checkpoints.save([(KEY, state("embedding", 1))])
    assert not checkpoints.save([(KEY, state("embedding", 2))])
    gate.set()
    checkpoints.wait()

    def refuse(*_):
        raise StoreError("full")

    monkeypatch.setattr(checkpoints.store, "write", refuse)
    save(checkpoints, state("embedding", 3))
    assert [event for event, _ in events] == ["checkpoint_skipped", "checkpoint", "checkpoint_failed"]


def test_what_is_not_needed_any_more_goes(checkpoints):
    save(checkpoints, state("embedding", 1), state("embedding", 2))
    checkpoints.drop([KEY])
    assert checkpoints.store.list("_engine/checkpoints") == []
