"""Command line of the trainings: `python -m training COMMAND --help`."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from training.pictures import PictureSource
from training.shoots import pack, read_pack
from training.stamps import load_stamps, split_stamps

JUDGED_SCENES = 0.45  # of the judge's pictures: it has to tell colours of things apart


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or what is given in its place."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="A training goes on from its checkpoint in --runs; models that --runs lacks are the embedded ones.",
    )
    parser.add_argument(
        "command", choices=("pack", "tokenizer", "vae", "judge", "coarse", "text", "pool", "unet", "export", "evaluate")
    )
    parser.add_argument("--photographs", type=Path, help="pack: parquet with columns id, title, image (JPEG)")
    parser.add_argument("--captions", type=Path, help="pack: parquet with columns id, caption, of --photographs")
    parser.add_argument("--varied", type=Path, help="pack: parquet with columns id, set, label, caption, image (JPEG)")
    parser.add_argument("--pack", type=Path, help="pack writes it, all others read it")
    parser.add_argument("--stamps", type=Path, help="folder of the Tux Paint stamps")
    parser.add_argument("--runs", type=Path, help="folder of logs and checkpoints")
    parser.add_argument("--out", type=Path, help="export: the folder that gets mini/, judge/ and coarse/")
    parser.add_argument(
        "--encoder", type=Path, help="coarse: ImageNet weights of EfficientNet-Lite0 (.pth), to start from"
    )
    parser.add_argument(
        "--teachers", type=Path, nargs="+", default=[], help="coarse: earlier checkpoints, whose mean it learns, too"
    )
    parser.add_argument("--tower", type=Path, help="text: a colorizer's checkpoint, whose text tower it begins with")
    parser.add_argument("--minutes", type=float, default=20.0, help="budget of the training, at its full rates")
    parser.add_argument("--decay-steps", type=int, default=0, help="the end, so many steps of falling rates instead")
    parser.add_argument("--pictures", type=int, default=24000, help="pool: how many to encode")
    parser.add_argument("--seed", type=int, default=0, help="of weights and pictures; a pool is named by it")
    parser.add_argument("--device", default="cpu", help="coarse and unet: cpu, cuda or auto")
    parser.add_argument("--workers", type=int, default=1, help="coarse: processes that compose pictures")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    return parser.parse_args(arguments)


def open_sources(options: argparse.Namespace) -> tuple[PictureSource, PictureSource]:
    """The pictures to train on, and those of the validation part with the objects that are held out."""
    stamps = split_stamps(load_stamps(options.stamps))
    parts = [read_pack(options.pack, part) for part in ("train", "validation")]
    train, held_out = (PictureSource(photographs=parts[k], stamps=stamps[k]) for k in (0, 1))
    return train, held_out


def main(given: Sequence[str] | None = None) -> None:
    """Runs one command."""
    options = parse(given)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    if options.command == "pack":
        pack(options.photographs, options.captions, options.varied, options.pack)
        return
    source, held_out = open_sources(options)
    if options.command == "coarse":
        from training.train_coarse import train_coarse

        train_coarse(options, source, held_out)
    elif options.command == "text":
        from training.train_text import train_text

        train_text(options, source, held_out)
    elif options.command == "vae":
        from training.train_vae import train_vae

        train_vae(options, source, held_out)
    elif options.command == "tokenizer":
        from training.tokenizer import save_tokenizer

        save_tokenizer(options.runs / "tokenizer", source)
    else:
        _with_frozen(options, source, held_out)


def _with_frozen(options: argparse.Namespace, source: PictureSource, held_out: PictureSource) -> None:
    """The commands that need what was trained before."""
    from training.conditioning import load_frozen

    judged = [replace(one, scenes=JUDGED_SCENES, mounted=0.0) for one in (source, held_out)]
    if options.command == "export":
        from training.export import export

        export(options.runs, options.out, source)
    elif options.command == "judge":
        from training.conditioning import find_tokenizer
        from training.train_judge import train_judge

        train_judge(options, judged[0], judged[1], find_tokenizer(options.runs))
    elif options.command == "pool":
        from training.pool import write_pools

        write_pools(options, source, load_frozen(options.runs, source))
    elif options.command == "unet":
        from training.train_unet import train_unet

        train_unet(options, load_frozen(options.runs, source))
    else:
        from training.evaluate import evaluate

        for what, figures in evaluate(judged[1], load_frozen(options.runs, source)).items():
            print(what, {name: round(value, 3) for name, value in figures.items()})


if __name__ == "__main__":
    main()
