"""One run at a time, and no waiting for the dead."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest

from pipelines.errors import OutputInUseError
from pipelines.store import lease
from pipelines.store.lease import Holder, acquire, read_lease
from pipelines.store.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "out"))


@pytest.fixture
def quick(monkeypatch):
    """A beat every 50 ms, silence for 0.5 s is the end."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.5)


def plant(store, **changes) -> None:
    """A holder that is not this process."""
    holder = Holder(run="other", host="elsewhere", pid=1, machine="elsewhere", started="0")
    store.create("_engine/lease/00000007.json", json.dumps(asdict(replace(holder, **changes))).encode())
    store.write("_engine/lease/00000007.beat", json.dumps({"run": "other", "time": time.time()}).encode())


def test_a_second_run_is_refused_and_told_by_whom_until_the_first_lets_go(store):
    first = acquire(store, "first", {"ok": 3})
    with pytest.raises(OutputInUseError, match=r"run first on .* \(process") as caught:
        acquire(store, "second", {})
    assert caught.value.pid == os.getpid()
    first.release(state="finished")
    assert read_lease(store).heartbeat["state"] == "finished"
    assert read_lease(store).heartbeat["ok"] == 3
    acquire(store, "second", {}).release()
    assert store.list("_engine/lease") == ["_engine/lease/00000002.beat", "_engine/lease/00000002.json"]


def test_waiting_gets_it_when_it_is_free_and_says_once_for_whom(store, quick):
    first, told = acquire(store, "first", {}), []
    threading.Timer(0.4, first.release).start()
    second = acquire(store, "second", {}, wait=True, waiting=told.append)
    assert second.epoch == first.epoch + 1
    assert [error.run for error in told] == ["first"]
    second.release()


def test_of_many_at_once_one_gets_it(store):
    def attempt(number: int):
        try:
            return acquire(store, f"run {number}", {})
        except OutputInUseError:
            return None

    for _ in range(5):
        with ThreadPoolExecutor(8) as threads:
            got = [one for one in threads.map(attempt, range(8)) if one]
        assert len(got) == 1
        got[0].release()


def test_a_killed_process_of_this_machine_is_not_waited_for(store):
    code = "import sys, time; from pipelines.store.lease import acquire; from pipelines.store.store import Store;"
    code += "acquire(Store(sys.argv[1]), 'killed', {}); print('held', flush=True); time.sleep(99)"
    child = subprocess.Popen([sys.executable, "-c", code, store.uri], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    with pytest.raises(OutputInUseError):
        acquire(store, "next", {})
    child.kill()
    child.wait()
    acquire(store, "next", {}).release()


def test_a_process_of_another_machine_is_waited_for_until_its_beat_is_old(store, quick):
    plant(store)
    assert read_lease(store).is_alive
    started = time.monotonic()
    acquire(store, "next", {}, wait=True).release()
    assert time.monotonic() - started > 0.4


def test_a_reused_process_id_is_another_process(store):
    mine = acquire(store, "mine", {})
    held = read_lease(store)
    mine.release()
    assert held.is_alive
    reused = replace(held.holder, started="1")
    assert not replace(held, holder=reused).is_alive
    assert replace(held, holder=replace(reused, machine="another boot")).is_alive


def test_a_holder_that_was_frozen_past_its_time_learns_that_it_lost(store, quick):
    frozen = acquire(store, "frozen", {})
    frozen._over.set()  # no beats any more
    frozen._thread.join()
    time.sleep(0.6)
    # Another machine's eyes: this process is alive, only its beat is old.
    successor = acquire(store, "successor", {}, wait=True)
    assert not frozen.lost.is_set()
    frozen.heartbeat(ok=99)
    assert frozen.lost.is_set()
    assert read_lease(store).heartbeat.get("ok") is None, "a lost holder's beat is not written"
    successor.release()


def test_age_is_the_stores_own_clock(store, monkeypatch):
    mine = acquire(store, "mine", {})
    monkeypatch.setattr(time, "time", lambda: 0.0)  # this machine's clock is fifty years off
    assert read_lease(store).age < 5
    mine.release()
