"""Command line of the trainings: `python -m diffcolor.embedded.training COMMAND --help`."""

import argparse
from pathlib import Path

import torch


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m diffcolor.embedded.training", description=__doc__)
    parser.add_argument("command", choices=("tokenizer", "vae", "judge", "unet", "export", "evaluate"))
    parser.add_argument("--photographs", type=Path, required=True, help="parquet with columns title, image (JPEG)")
    parser.add_argument("--stamps", type=Path, required=True, help="folder of the Tux Paint stamps")
    parser.add_argument("--runs", type=Path, required=True, help="folder of logs and checkpoints")
    parser.add_argument("--out", type=Path, help="export: the folder that gets mini/ and judge/")
    parser.add_argument("--minutes", type=float, default=20.0, help="budget of the training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--resume", action="store_true", help="vae, unet: go on from the weights in --runs")
    return parser.parse_args()


def main() -> None:
    """Runs one command."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    from .runs import open_sources

    share = {"vae": 0.65, "judge": 0.5}.get(arguments.command, 0.6)
    source, held_out = open_sources(arguments.photographs, arguments.stamps, arguments.seed, share)
    if arguments.command == "vae":
        from .train_vae import train_vae

        train_vae(source, held_out, arguments.runs / "vae", arguments.minutes, arguments.resume)
    elif arguments.command == "tokenizer":
        from .tokenizer import save_tokenizer

        save_tokenizer(arguments.runs / "tokenizer", source)
    elif arguments.command == "judge":
        from .tokenizer import load_tokenizer
        from .train_judge import train_judge

        tokenizer = load_tokenizer(arguments.runs / "tokenizer")
        train_judge(source, held_out, tokenizer, arguments.runs / "judge", arguments.minutes)
    elif arguments.command == "unet":
        from .export import load_frozen
        from .train_unet import train_unet

        frozen, _ = load_frozen(arguments.runs, source)
        train_unet(source, frozen, arguments.runs / "unet", arguments.minutes, arguments.resume)
    elif arguments.command == "export":
        from .export import export

        export(arguments.runs, arguments.out, source)
    elif arguments.command == "evaluate":
        from .evaluate import evaluate
        from .export import load_frozen, load_unet

        frozen, judge = load_frozen(arguments.runs, source)
        for what, figures in evaluate(held_out, frozen, judge, load_unet(arguments.runs), arguments.runs).items():
            print(what, {name: round(value, 3) for name, value in figures.items()})


if __name__ == "__main__":
    main()
