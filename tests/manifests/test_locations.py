import pytest

from manifests.locations import Reach, folder_of, redacted, resolve


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


HOSTILE = """
file:///etc/shadow
/etc/shadow
/proc/self/environ
file:///dev/zero
s3://another-bucket/x.png
s3://bucket-2/x.png
gs://bucket/x.png
az://container/x.png
abfs://container@account/x.png
local:///etc/shadow
zip://x.png::file:///tmp/a.zip
zip://x.png::s3://bucket/a.zip
tar://x.png::http://host/a.tar
simplecache::http://host/x.png
filecache::s3://bucket/x.png
blockcache::s3://bucket/x.png
reference://x.png::file:///tmp/refs.json
reference://x.png::http://host/refs.json
reference://x.png
dir::s3://bucket
generic://host/x.png
github://org:repo@main/x.png
git://repo@main/x.png
ftp://host/x.png
sftp://host/x.png
ssh://host/x.png
smb://host/x.png
webhdfs://host/x.png
hdfs://host/x.png
hf://datasets/x/y.png
memory://x.png
data:image/png;base64,AAAA
dask://host/x.png
jlab://host/x.png
dbfs://x.png
libarchive://x.png::file:///tmp/a.7z
oci://bucket/x.png
http://user:secret@host/x.png
s3://KEY:SECRET@bucket/x.png
../x.png
~/x.png
C:\\scans\\x.png
\\\\server\\share\\x.png
""".split()


@pytest.mark.parametrize("uri", HOSTILE)
def test_a_manifest_from_a_bucket_reaches_that_bucket_alone(uri):
    with pytest.raises(ValueError, match=r"."):
        resolve(uri, "s3://bucket/in", Reach.of("s3://bucket/in/m.parquet"))


def test_what_a_manifest_may_reach():
    own = Reach.of("s3://bucket/in/m.parquet")
    assert resolve("a.png", "s3://bucket/in", own) == "s3://bucket/in/a.png"
    assert resolve("s3://bucket/elsewhere/a.png", "s3://bucket/in", own) == "s3://bucket/elsewhere/a.png"
    assert own.needs_public_address(resolve("https://iiif.example.org/a.jpg", "s3://bucket/in", own))
    for uri, beginning in (("s3://scans/a.png", "s3://scans/"), ("/srv/scans/a.png", "file:///srv/scans/")):
        with pytest.raises(ValueError, match=f"--allow-input {beginning}"):
            resolve(uri, "s3://bucket/in", own)
        assert resolve(uri, "s3://bucket/in", Reach.of("s3://bucket/m.parquet", [beginning])) == uri
    wider = Reach.of("s3://bucket/m.parquet", ["http://10.0.0.1/"], ["webdav"])
    assert not wider.needs_public_address("http://10.0.0.1/a.png")
    assert wider.needs_public_address("http://10.0.0.2/a.png")
    with pytest.raises(ValueError, match="--allow-input webdav://host/"):
        resolve("webdav://host/a.png", "s3://bucket", wider)
    with pytest.raises(ValueError, match="--allow-input s3://scans-private/"):
        resolve("s3://scans-private/a.png", "s3://bucket", Reach.of("s3://bucket/m.parquet", ["s3://scans"]))
    served = Reach.of("https://stranger.example/m.parquet")
    assert served.needs_public_address("https://stranger.example/redirecting")
    for climbing in ("file:///srv/scans/../../etc/x.tif", "/srv/scans/../x.tif", "https://h/a/%2e%2e/x.png"):
        with pytest.raises(ValueError, match=r"climbs with '\.\.'"):
            resolve(climbing, "s3://bucket", Reach.of("s3://bucket/m.parquet", ["file:///srv/scans/", "https://h/a/"]))
    with pytest.raises(ValueError, match="no beginning of a URI"):
        Reach.of("s3://bucket/m.parquet", ["/srv/scans"])


@pytest.mark.parametrize("uri", ["/etc/hostname", "s3://any/a.png", "webdav://host/a.png", "http://127.0.0.1/a.png"])
def test_a_local_manifest_reaches_what_its_reader_may_read(uri):
    local = Reach.of("/srv/m.parquet", schemes=["webdav"])
    assert resolve(uri, "file:///srv", local) == uri
    assert not local.needs_public_address(uri)
