"""What leaves for the archive: names, records, bags, signatures; judged by other programs' validators."""

import io
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bagit
import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree
from PIL import Image

from pipelines.curation.export.c2pa import Certificate, SigningError
from pipelines.curation.export.export import ExportError, Options, _named, export
from pipelines.curation.review import Decision, apply
from pipelines.driver.run import run_job
from pipelines.job import JobSpec
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import Output, ResultRow
from pipelines.store.store import Store
from tests import scans
from tests.conftest import TINY, write_manifest
from tests.pipelines.jobs import request


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base_folder, judge_folder, local_ray):
    """Scans in two folders: a 16-bit TIFF, a page of a TIFF, a region of a page, a JPEG 2000."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "in" / "1940").mkdir(parents=True)
    (folder / "in" / "1941").mkdir()
    files = {
        "1940/barn.tif": scans.described_tiff(scans.GRAY16),
        "1940/book.tif": scans.pages(scans.GRAY, scans.GRAY[::-1]),
        "1941/page.tif": scans.tiff(np.tile(scans.GRAY, (2, 2))),
        "1941/barn.jp2": scans.jp2_file(scans.GRAY),
    }
    for name, content in files.items():
        (folder / "in" / name).write_bytes(content)
    prompts = {"caption": "a barn\x0b by a road", "target_prompts": ["a red barn", "a green barn"]}
    rows = [
        {"id": "a", "image": "in/1940/barn.tif", **prompts},
        {"id": "b", "image": "in/1940/book.tif", "page": 1, **prompts},
        {"id": "c-fig1", "image": "in/1941/page.tif", "regions": [[0, 0, 80, 72]], **prompts},
        {"id": "d", "image": "in/1941/barn.jp2", **prompts},
    ]
    spec = JobSpec(
        output=str(folder / "out"), base_model=str(base_folder), judge=str(judge_folder), config=TINY, images_per_step=4
    )
    run_job(request(write_manifest(folder / "m.parquet", rows), spec))
    return spec


@pytest.fixture
def job(finished, tmp_path):
    shutil.copytree(finished.output, tmp_path / "out")
    return replace(finished, output=str(tmp_path / "out"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A throw-away chain: an authority and what it certifies."""
    folder, now = tmp_path_factory.mktemp("certificate"), datetime.now(UTC)

    def made(name, key, issuer, issuer_key, *extensions):
        builder = x509.CertificateBuilder(
            issuer_name=issuer,
            subject_name=name,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(days=1),
            not_valid_after=now + timedelta(days=2),
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer_key, hashes.SHA256())

    def named(common):
        return x509.Name(
            [
                x509.NameAttribute(x509.NameOID.COMMON_NAME, common),
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Test Archive"),
            ]
        )

    def usage(**wanted):
        names = (
            "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign "
            "crl_sign encipher_only decipher_only"
        ).split()
        return x509.KeyUsage(**{name: wanted.get(name, False) for name in names})

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = made(
        named("root"),
        root_key,
        named("root"),
        root_key,
        (x509.BasicConstraints(True, None), True),
        (usage(key_cert_sign=True, crl_sign=True), True),
        (authority, False),
    )
    leaf = made(
        named("signer"),
        key,
        named("root"),
        root_key,
        (x509.BasicConstraints(False, None), True),
        (usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    )
    pem = serialization.Encoding.PEM
    (folder / "chain.pem").write_bytes(leaf.public_bytes(pem) + root.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificate(folder / "chain.pem", folder / "key.pem")


def files(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_names_are_the_scans_and_folders_are_mirrored(job, tmp_path):
    made = export(job.output, str(tmp_path / "to"), Options(everything=True, variants=True))
    assert made == [
        "1940/barn_colorized.tif",
        "1940/barn_colorized_a02.tif",
        "1940/book_p0001_colorized.tif",
        "1940/book_p0001_colorized_a02.tif",
        "1941/c-fig1_colorized.tif",
        "1941/c-fig1_colorized_a02.tif",
        "1941/barn_colorized.jp2",
        "1941/barn_colorized_a02.jp2",
    ]
    assert files(tmp_path / "to") == sorted([*made, *(f"{name}.json" for name in made)])
    record = json.loads((tmp_path / "to" / "1940" / "barn_colorized.tif.json").read_text())
    assert record["exported"]["sha256"] == record["outcome"]["sha256"]


def test_only_what_is_approved_leaves_and_the_picked_variant_at_that(job, tmp_path):
    a, b, *_ = Ledger(Store(job.output)).current()
    assert export(job.output, str(tmp_path / "none"), Options()) == []
    apply(
        job.output,
        [
            Decision(id="a", output_sha256=a.outputs[1].sha256, decision="pick"),
            Decision(id="b", output_sha256=b.outputs[0].sha256, decision="reject"),
        ],
    )
    (made,) = export(job.output, str(tmp_path / "to"), Options())
    picked = (Path(job.output) / a.outputs[1].image).read_bytes()
    assert (tmp_path / "to" / made).read_bytes() == picked
    assert "1940/book_p0001_colorized.tif" not in export(job.output, str(tmp_path / "all"), Options(everything=True))


def test_nothing_is_overwritten_and_the_same_again_is_no_clash(job, tmp_path):
    target = tmp_path / "to"
    export(job.output, str(target), Options(everything=True))
    before = {name: (target / name).stat().st_size for name in files(target)}
    export(job.output, str(target), Options(everything=True))
    (target / "1940" / "barn_colorized.tif").write_bytes(b"somebody's")
    with pytest.raises(ExportError, match=r"barn_colorized\.tif"):
        export(job.output, str(target), Options(everything=True))
    assert (target / "1940" / "barn_colorized.tif").read_bytes() == b"somebody's"
    assert before.keys() == set(files(target))
    with pytest.raises(ExportError, match="inside the output"):
        export(job.output, job.output + "/copies", Options(everything=True))


def test_records_and_manifests_of_others_are_not_overwritten_either(job, tmp_path):
    for name in ("manifest.json", "1940/barn_colorized.tif.json", "iiif/1940/barn_colorized.tif.jpg"):
        target = tmp_path / name.replace("/", "_")
        (target / name).parent.mkdir(parents=True)
        (target / name).write_bytes(b"somebody's")
        with pytest.raises(ExportError, match="other files"):
            export(job.output, str(target), Options(everything=True, iiif="https://example.org"))
        assert files(target) == [name]


def test_an_interrupted_bag_is_finished_by_the_same_export(job, tmp_path):
    export(job.output, str(tmp_path / "bag"), Options(everything=True, bagit=True))
    record = "data/1941/barn_colorized.jp2.json"  # written behind its picture
    for name in ("bagit.txt", "manifest-sha256.txt", "data/1941/barn_colorized.jp2", record):
        (tmp_path / "bag" / name).unlink()
    export(job.output, str(tmp_path / "bag"), Options(everything=True, bagit=True))
    assert bagit.Bag(str(tmp_path / "bag")).validate()
    (tmp_path / "bag" / "data" / "stranger.txt").write_bytes(b"x")
    with pytest.raises(ExportError):
        export(job.output, str(tmp_path / "bag"), Options(everything=True, bagit=True))


def row_of(name, row_id, **more) -> ResultRow:
    output = Output(
        prompt="p", image=f"images/{row_id}/1.tif", sha256="0", eta=1, colorfulness=1, clip_margin=1, candidates=()
    )
    return ResultRow(id=row_id, status="ok", row_digest=row_id, image=name, outputs=(output,), **more)


def test_no_two_pictures_share_a_name():
    rows = [
        row_of("file:///s/Foto #12.tif", "r1"),
        row_of("file:///s/Foto #13.tif", "r2"),
        row_of("file:///s/a.tif", "r3"),
        row_of("file:///s/A.jpg", "r4"),
        row_of("https://example.org/x/caf%C3%A9.jpg?token=1", "r5"),
        row_of(None, "r6"),
    ]
    names = list(_named(((row, list(row.outputs)) for row in rows), "file:///s"))
    assert names == [
        "Foto #12_colorized.tif",
        "Foto #13_colorized.tif",
        "r3_colorized.tif",
        "r4_colorized.tif",
        "café_colorized.tif",
        "r6_colorized.tif",
    ]
    (name,) = _named(iter([(row_of("file:///s/../../etc/passwd", "r1"), [rows[0].outputs[0]])]), "file:///s")
    assert ".." not in name.split("/")
    assert not name.startswith("/")


def test_a_bag_is_valid(job, tmp_path):
    made = export(job.output, str(tmp_path / "bag"), Options(everything=True, bagit=True, premis=True))
    bag = bagit.Bag(str(tmp_path / "bag"))
    assert bag.validate()
    assert set(made) <= set(bag.payload_files())
    (tmp_path / "bag" / made[0]).write_bytes(b"damaged")
    with pytest.raises(bagit.BagValidationError):
        bagit.Bag(str(tmp_path / "bag")).validate()


def test_premis_says_what_was_made_of_what(job, tmp_path):
    export(job.output, str(tmp_path / "to"), Options(everything=True, premis=True))
    root = etree.parse(tmp_path / "to" / "1940" / "barn_colorized.tif.premis.xml").getroot()
    text = {etree.QName(one).localname: one.text for one in root.iter()}
    row = next(iter(Ledger(Store(job.output)).current()))
    assert root.findtext(".//{*}messageDigest") == row.outputs[0].sha256
    assert text["relatedObjectIdentifierValue"] == f"urn:sha256:{row.input_sha256}"
    assert text["eventType"] == "modification"
    assert "a red barn" in text["eventDetail"]
    assert text["agentName"] == "diffcolor-batch"
    order = [etree.QName(one).localname for one in root]
    assert order == ["object", "event", "agent"]


def test_iiif_shows_the_scan_first(job, tmp_path):
    base = "https://example.org/colour/"
    export(job.output, str(tmp_path / "to"), Options(everything=True, iiif=base))
    manifest = json.loads((tmp_path / "to" / "manifest.json").read_text())
    assert (manifest["type"], len(manifest["items"])) == ("Manifest", 4)
    for canvas in manifest["items"]:
        choice = canvas["items"][0]["items"][0]["body"]
        assert choice["type"] == "Choice"
        assert [one["label"]["en"] for one in choice["items"]] == [["Original scan"], ["AI-colorized"]]
        assert "guess" in canvas["requiredStatement"]["value"]["en"][0]
        for one in choice["items"]:
            file = tmp_path / "to" / one["id"].removeprefix(base)
            with Image.open(file) as picture:
                assert picture.size == (one["width"], one["height"])


def test_signed_pictures_keep_their_pixels_and_say_who_signed(job, certificate, tmp_path):
    made = export(job.output, str(tmp_path / "to"), Options(everything=True, certificate=certificate))
    for name in made:
        content = (tmp_path / "to" / name).read_bytes()
        record = json.loads((tmp_path / "to" / f"{name}.json").read_text())
        if name.endswith(".jp2"):
            assert "not signed" in record["c2pa"]
            continue
        assert record["c2pa"] == "signed"
        reader = c2pa.Reader("image/tiff", io.BytesIO(content))
        assert reader.get_validation_state() in ("Valid", "Trusted")
        active = reader.get_active_manifest()
        (actions,) = [one for one in active["assertions"] if one["label"].startswith("c2pa.actions")]
        kinds = [one["action"] for one in actions["data"]["actions"]]
        assert kinds == ["c2pa.opened", "c2pa.color_adjustments"]
        assert active["ingredients"][0]["relationship"] == "parentOf"
        assert "compositeWithTrainedAlgorithmicMedia" in json.dumps(actions)


def test_a_certificate_of_no_use_is_said(job, certificate, tmp_path):
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(SigningError, match="cannot sign"):
        export(
            job.output,
            str(tmp_path / "to"),
            Options(everything=True, certificate=replace(certificate, key=tmp_path / "key.pem")),
        )
    assert "no key" not in repr(replace(certificate, key=tmp_path / "key.pem"))
