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


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("reference://x.png::file:///tmp/refs.json", "'::' joins several URIs"),
        ("simplecache::http://user:hunter2@host/x.png", "'::' joins several URIs"),
        ("github://org:repo@main/x.png", "the scheme 'github' is none of file, s3"),
        ("LOCAL:///etc/shadow", "the scheme 'local'"),
        ("data:image/png;base64,AAAA", "the scheme 'data'"),
        ("ftp://host/x.png", "the scheme 'ftp'"),
        ("s3://AKIAKEY:SECRETKEY@bucket/x.png", "held a user name or a password"),
        ("https://user:hunter2@host/x.png", "held a user name or a password"),
        (r"C:\scans\a.tif", "a Windows path"),
        (r"\\server\share\a.tif", "a Windows path"),
        ("~/a.tif", "'~' is not expanded"),
    ],
)
def test_a_manifest_reaches_files_buckets_and_web_servers_alone(uri, message):
    with pytest.raises(ValueError, match=message) as caught:
        resolve(uri, "s3://bucket/in")
    assert not any(secret in str(caught.value) for secret in ("hunter2", "SECRETKEY", "AKIAKEY"))


def test_secrets_are_taken_out_of_chains():
    assert redacted("zip://a.png::s3://KEY:SECRET@bucket/x.zip") == "zip://a.png::s3://bucket/x.zip"
    assert redacted("simplecache::http://u:hunter2@h/x?sig=1") == "simplecache::http://h/x"
