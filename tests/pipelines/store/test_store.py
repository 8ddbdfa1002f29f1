import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import StoreError
from pipelines.ledger.identity import sha256
from pipelines.ledger.names import artifact_key, image_key, slug
from pipelines.store.fetch import fetch_uri
from pipelines.store.store import Store, StoreKeyError


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return Store(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/out")


def test_what_is_written_is_read_and_listed(store):
    store.write("a/b.txt", b"one")
    store.write("a/b.txt", b"two")
    store.write("c.txt", b"")
    assert store.read("a/b.txt") == b"two"
    assert store.list("a") == ["a/b.txt"]
    assert store.list("nothing") == []
    store.delete("a/b.txt")
    store.delete("a/b.txt")
    assert not store.exists("a/b.txt")
    with pytest.raises(FileNotFoundError):
        store.read("a/b.txt")


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", ".."])
def test_no_key_leaves_the_root(store, key):
    with pytest.raises(StoreKeyError):
        store.write(key, b"x")


def test_a_failed_write_leaves_the_old_object_and_no_litter(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    store.write("a", b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(StoreError, match="disk full"):
        store.write("a", b"new")
    assert store.read("a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_over_the_limit_is_not_read(tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 100)
    assert fetch_uri(str(tmp_path / "big"), 100).read() == b"x" * 100
    with pytest.raises(OSError, match="limit"):
        fetch_uri(str(tmp_path / "big"), 99)
    with pytest.raises(OSError, match="not a file"):
        fetch_uri("/dev/zero", 99)
    with pytest.raises(OSError, match="not a file"):
        fetch_uri(str(tmp_path), 99)


@pytest.mark.parametrize("size", [10, 3000])
def test_files_are_written_and_read_as_they_are(store, size, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.store.store._IN_ONE_PIECE", 1000)
    (tmp_path / "local").write_bytes(bytes(range(10)) * (size // 10))
    with open(tmp_path / "local", "rb") as file:
        store.write_file("a/b", file)
        store.write_file("a/b", file)
    with store.read_file("a/b") as again:
        assert again.read() == (tmp_path / "local").read_bytes()
    assert store.list("a") == ["a/b"]
    with pytest.raises(FileNotFoundError):
        store.read_file("a/c")


@given(prompt=st.text())
def test_names_are_safe_and_readable_whatever_the_prompt(prompt):
    key = image_key("row", 1, prompt, sha256(b"content"), "tif")
    assert key.startswith("images/row/1-")
    assert key.count("/") == 2
    assert key.isascii()
    assert len(key) < 100
    Store("memory://x").path(key)


def test_two_contents_never_share_a_name():
    assert image_key("a", 1, "red", "1" * 64, "png") != image_key("a", 1, "red", "2" * 64, "png")
    assert slug("A Red Äpfel!") == "a-red-apfel"
    assert artifact_key("a", "0123456789abcdef" * 4) == "artifacts/a/0123456789abcdef.safetensors"
