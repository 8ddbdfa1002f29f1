"""Captions for rows without one, by an image-to-text model such as BLIP (arXiv 2201.12086), marked as a machine's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from diffcolor.base_model import resolve_device
from diffcolor.errors import BaseModelError
from diffcolor.geometry import fitting_size
from diffcolor.hub import fetch
from manifests.errors import ManifestError, Problem
from manifests.read import folders_of, read_rows
from manifests.read import parts as parts_of
from manifests.schema import Defaults, ManifestRow
from pipelines.images.errors import InputImageError
from pipelines.images.rules import Rules
from pipelines.store.retry import Patience
from pipelines.worker.reading import read_scan

SOURCE = "caption_source"  # a column of what is written; results carry it
_PATIENCE = Patience(total=30.0)
_SEEN = 512 * 512  # pixels
_MOST_TOKENS = 40
_TOGETHER = 4


class Captioner:
    """Describes pictures.

    Args:
        name: a folder of transformers, or a hub id; only safetensors weights are read.

    Raises:
        BaseModelError: it cannot be loaded.
    """

    def __init__(self, name: str, device: str = "auto") -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.name, self.device = name, torch.device(resolve_device(device))
        try:
            folder = Path(name) if Path(name).exists() else fetch(name, _needed)
            self.processor: Any = AutoProcessor.from_pretrained(folder)
            model: Any = AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True)
        except BaseModelError:
            raise
        except Exception as error:  # transformers raises many types for an unsuitable folder
            raise BaseModelError(name, f"{type(error).__name__}: {error}") from error
        self.model = model.eval().to(self.device)

    @torch.no_grad()
    def __call__(self, pictures: Sequence[NDArray[np.float32]]) -> list[str]:
        """Texts for gray pictures (H, W) in [0, 1]."""
        images = [Image.fromarray(np.rint(gray * 255).astype(np.uint8)).convert("RGB") for gray in pictures]
        inputs = self.processor(images=images, return_tensors="pt").to(self.device)
        ids = self.model.generate(**inputs, max_new_tokens=_MOST_TOKENS, do_sample=False)
        return [" ".join(text.split()) for text in self.processor.batch_decode(ids, skip_special_tokens=True)]


def _needed(names: list[str]) -> list[str]:
    return [name for name in names if "/" not in name and name.endswith((".json", ".txt", ".safetensors", ".model"))]


@dataclass
class Captioned:
    """What was done.

    Attributes:
        given: captions that the model wrote.
        failed: ids of images that cannot be read, with the reason.
    """

    rows: int = 0
    given: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def caption(
    manifest: str, output: str, captioner: Captioner, columns: Mapping[str, str], rules: Rules, defaults: Defaults
) -> Iterator[Captioned]:
    """Writes the manifest again with the captions that it lacks; tells how far it is after each few rows.

    Beside a caption of the model stands `caption_source`, "machine: NAME", and, unless the row says otherwise, its
    `prompt_writer`, which the pictures' metadata name.

    Raises:
        ManifestError: the manifest cannot be read, or the other not be written.
    """
    fs, files = parts_of(manifest)
    writer = None
    rows = read_rows(manifest, columns, defaults)
    done = Captioned()
    try:
        for path in files:
            with fs.open(path, "rb") as file:
                for batch in pq.ParquetFile(file).iter_batches(_TOGETHER):
                    table, known = pa.Table.from_batches([batch]), [next(rows) for _ in range(len(batch))]
                    texts = _texts(known, _cells(table, _name("caption", columns)), captioner, rules, done)
                    table = _with_texts(table, columns, texts, f"machine: {captioner.name}")
                    table = _with_places(table, columns, known, folders_of(manifest, fs, path))
                    if writer is None:
                        sink = fsspec.open(output, "wb").open()
                        writer = pq.ParquetWriter(sink, table.schema)
                    writer.write_table(table.cast(writer.schema))
                    done.rows += len(table)
                    yield done
    except (OSError, pa.ArrowInvalid) as error:
        message = f"cannot be written ({type(error).__name__}: {error})"
        raise ManifestError(output, [Problem("unwritable", None, None, message)]) from error
    finally:
        if writer is not None:
            writer.close()
            sink.close()


def _cells(table: pa.Table, name: str) -> list[str | None]:
    return table[name].to_pylist() if name in table.column_names else [None] * len(table)


def _texts(
    rows: Sequence[ManifestRow], given: Sequence[str | None], captioner: Captioner, rules: Rules, done: Captioned
) -> list[str | None]:
    """What the model says of the rows without a caption; None for the others, and where an image cannot be read."""
    seen: dict[int, NDArray[np.float32]] = {}
    for number, (row, text) in enumerate(zip(rows, given, strict=True)):
        if text and text.strip():
            continue
        try:
            view, _ = read_scan(row, rules, _PATIENCE, lambda _error, _delay: None)
            seen[number] = view.gray(*fitting_size(*view.shape, _SEEN))
        except InputImageError as error:
            done.failed[row.id] = str(error)
    said = dict(zip(seen, captioner(list(seen.values())) if seen else [], strict=True))
    done.given += sum(bool(text) for text in said.values())
    return [said.get(number) or None for number in range(len(rows))]


def _name(ours: str, columns: Mapping[str, str]) -> str:
    return columns.get(ours, ours)


def _with_texts(table: pa.Table, columns: Mapping[str, str], texts: Sequence[str | None], source: str) -> pa.Table:
    captions, writer = _name("caption", columns), _name("prompt_writer", columns)
    return _written(
        table,
        {
            captions: [text or cell for text, cell in zip(texts, _cells(table, captions), strict=True)],
            SOURCE: [source if text else cell for text, cell in zip(texts, _cells(table, SOURCE), strict=True)],
            writer: [
                cell or (source if text else None) for text, cell in zip(texts, _cells(table, writer), strict=True)
            ],
        },
    )


def _with_places(
    table: pa.Table, columns: Mapping[str, str], rows: Sequence[ManifestRow], folders: Mapping[str, str]
) -> pa.Table:
    """With whole URIs, because relative ones count from the manifest's folder, and with what the folders said."""
    places = {"image": [row.image for row in rows], "reference": [row.reference for row in rows]}
    there = {_name(ours, columns): uris for ours, uris in places.items() if _name(ours, columns) in table.column_names}
    said = {name: [value] * len(rows) for name, value in folders.items() if name not in table.column_names}
    return _written(table, {**there, **said})


def _written(table: pa.Table, written: Mapping[str, Sequence[str | None]]) -> pa.Table:
    for name, cells in written.items():
        column = pa.array(cells, pa.string())
        at = table.column_names.index(name) if name in table.column_names else None
        table = table.append_column(name, column) if at is None else table.set_column(at, name, column)
    return table
