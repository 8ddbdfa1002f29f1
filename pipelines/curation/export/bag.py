"""BagIt (RFC 8493): the destination's payload with its sha256 manifests."""

from collections.abc import Iterable

from pipelines.images import scratch
from pipelines.store.store import Store
from pipelines.version import SYSTEM, VERSION

_DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


def bag(target: Store) -> None:
    """Writes the tag files for the payload in `data/`."""
    payload = target.list("data")
    digests, total = {}, 0
    for key in payload:
        with target.read_file(key) as file:
            digests[key], total = scratch.sha256_of_file(file), total + file.tell()
    tags = {
        "bagit.txt": _DECLARATION,
        "bag-info.txt": (
            f"Bag-Software-Agent: {SYSTEM} {VERSION}\nPayload-Oxum: {total}.{len(payload)}\n"
            "External-Description: Photographs colorized by a machine; their luminance is the scans' own\n"
        ).encode(),
        "manifest-sha256.txt": _lines(digests.items()),
    }
    for name, content in tags.items():
        target.write(name, content)
    written = []
    for name in tags:
        with target.read_file(name) as file:
            written.append((name, scratch.sha256_of_file(file)))
    target.write("tagmanifest-sha256.txt", _lines(written))


def _lines(digests: Iterable[tuple[str, str]]) -> bytes:
    # These three characters, and no others, are escaped in names (RFC 8493, 2.1.3).
    escaped = ((digest, name.replace("%", "%25").replace("\n", "%0A").replace("\r", "%0D")) for name, digest in digests)
    return "".join(f"{digest}  {name}\n" for digest, name in escaped).encode()
