import pytest

from manifests.locations import folder_of, redacted, resolve


def test_a_folder_keeps_its_host():
    assert folder_of("memory://host/dir/m.parquet") == "memory://host/dir"


def test_a_local_manifest_gives_a_file_uri(tmp_path):
    assert folder_of(str(tmp_path / "m.parquet")) == f"file://{tmp_path}"
    assert folder_of(str(tmp_path)) == f"file://{tmp_path}"


@pytest.mark.parametrize("path", ["../a.png", "a/../../b.png", ".."])
def test_relative_paths_stay_below_the_manifest(path):
    with pytest.raises(ValueError, match="leaves"):
        resolve(path, "s3://bucket/in")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://u:p@host:8/a.png?X-Sig=s#f", "https://host:8/a.png"),
        ("s3://bucket/a.png", "s3://bucket/a.png"),
        ("/srv/a?b.png", "/srv/a?b.png"),
    ],
)
def test_secrets_of_uris_are_not_shown(uri, shown):
    assert redacted(uri) == shown
