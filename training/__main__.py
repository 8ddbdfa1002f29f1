"""Command line of the trainings: `python -m training COMMAND --help`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

TWO_STAGE = ("tokenizer", "vae", "judge", "pool", "unet", "export", "evaluate")  # the base model and its judge


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or what is given in its place."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument(
        "command", choices=("pack", "coarse", "export-coarse", "starts", "refine", "export-unet", *TWO_STAGE)
    )
    parser.add_argument("--photographs", type=Path, help="parquet with columns id, title, image (JPEG)")
    parser.add_argument("--captions", type=Path, help="pack: parquet with columns id, caption, of --photographs")
    parser.add_argument("--varied", type=Path, help="pack: parquet with columns id, set, label, caption, image (JPEG)")
    parser.add_argument("--pack", type=Path, help="pack writes it, coarse reads it")
    parser.add_argument(
        "--encoder", type=Path, help="coarse: ImageNet weights of EfficientNet-Lite0 (.pth), to start from"
    )
    parser.add_argument("--decay-steps", type=int, default=0, help="coarse: the end, so many steps of falling rates")
    parser.add_argument("--stamps", type=Path, help="folder of the Tux Paint stamps")
    parser.add_argument("--runs", type=Path, help="folder of logs and checkpoints")
    parser.add_argument("--out", type=Path, help="the folder that gets mini/, judge/ and coarse/")
    parser.add_argument("--minutes", type=float, default=20.0, help="budget of the training")
    parser.add_argument("--seed", type=int, default=0, help="of weights and pictures; a pool is named by it")
    parser.add_argument("--pictures", type=int, default=24000, help="pool: how many to encode")
    parser.add_argument(
        "--photograph-share", type=float, help="of the pictures; the rest are scenes (vae 0.65, else 0.5)"
    )
    parser.add_argument("--device", default="cpu", help="coarse: cpu, cuda or auto")
    parser.add_argument("--workers", type=int, default=1, help="coarse: processes that compose pictures")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--resume", action="store_true", help="vae, judge, unet: go on from the weights in --runs")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    """Runs one command."""
    arguments = parse(given)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    if arguments.command == "pack":
        from training.shoots import pack

        pack(arguments.photographs, arguments.captions, arguments.varied, arguments.pack)
        return
    if arguments.command == "coarse":
        from training.train_coarse import train_coarse

        train_coarse(arguments)
        return
    if arguments.command == "export-coarse":
        from training.train_coarse import export_coarse

        export_coarse(arguments.runs, arguments.out)
        return
    if arguments.command in ("starts", "refine", "export-unet"):
        from training.refine_unet import export_unet, refine_unet, write_pools

        if arguments.command == "export-unet":
            export_unet(arguments.runs, arguments.out)
        else:
            (write_pools if arguments.command == "starts" else refine_unet)(arguments)
        return
    from training.runs import open_sources, vae_digest

    share = arguments.photograph_share
    if share is None:
        share = 0.65 if arguments.command == "vae" else 0.5
    source, held_out = open_sources(arguments.photographs, arguments.stamps, arguments.seed, share)
    if arguments.command == "vae":
        from training.train_vae import train_vae

        train_vae(source, held_out, arguments.runs / "vae", arguments.minutes, arguments.resume)
    elif arguments.command == "tokenizer":
        from training.tokenizer import save_tokenizer

        save_tokenizer(arguments.runs / "tokenizer", source)
    elif arguments.command == "judge":
        from training.tokenizer import load_tokenizer
        from training.train_judge import train_judge

        tokenizer = load_tokenizer(arguments.runs / "tokenizer")
        train_judge(source, held_out, tokenizer, arguments.runs / "judge", arguments.minutes, arguments.resume)
    elif arguments.command == "pool":
        from training.export import load_frozen
        from training.pool import encode_pool, save_pool
        from training.train_unet import SHAPES

        frozen, _ = load_frozen(arguments.runs, source)
        folder = arguments.runs / "pool" / vae_digest(arguments.runs)
        for (height, width), part in SHAPES.items():
            pool = encode_pool(source, frozen, 8 * round(arguments.pictures * part / 8), (height, width))
            save_pool(folder / f"{height}x{width}-{arguments.seed}.pt", pool)
    elif arguments.command == "unet":
        from training.export import load_frozen
        from training.pool import load_pools
        from training.train_unet import train_unet

        frozen, _ = load_frozen(arguments.runs, source)
        pools = load_pools(arguments.runs / "pool" / vae_digest(arguments.runs))
        train_unet(pools, frozen, arguments.runs / "unet", arguments.minutes, arguments.resume, arguments.seed)
    elif arguments.command == "export":
        from training.export import export

        export(arguments.runs, arguments.out, source)
    elif arguments.command == "evaluate":
        from training.evaluate import evaluate
        from training.export import load_frozen

        frozen, judge = load_frozen(arguments.runs, source)
        for what, figures in evaluate(held_out, frozen, judge).items():
            print(what, {name: round(value, 3) for name, value in figures.items()})


if __name__ == "__main__":
    main()
