"""The vocabulary: a byte-level BPE in CLIP's format, trained on our captions."""

import json
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from training.pictures import PictureSource
from training.prompts import anti_color_prompts

CONTEXT_LENGTH = 48
START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# Invented words, each one token: the method puts one before each noun.
IDENTIFIERS = (
    "sks", "ktn", "vzb", "qxr", "zwf", "hjk", "pqd", "xlm", "bvt", "gzn", "wkr", "jfd", "qtz", "mxv", "dkz", "nvq",
    "rzx", "tqj", "lzk", "fxb", "ckv", "yzq", "hqw", "zgp",
)  # fmt: skip


def read_words() -> list[str]:
    """Common words of photographs, which deserve a token each."""
    return Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()


def train_merges(texts: list[str], size: int) -> Tokenizer:
    """Trains a byte-level BPE whose words end in `</w>`."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=3,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(folder: Path, source: PictureSource, merges: int = 3200, captions: int = 20000) -> CLIPTokenizer:
    """Trains the vocabulary and writes vocab.json, merges.txt and the configuration.

    Args:
        folder: receives the files.
        source: captions are drawn from it.
        merges: how many merges to learn at most.
        captions: how many captions to learn from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    texts = [source.draw((32, 32), generator).caption for _ in range(captions)]
    texts += [prompt for prompt in anti_color_prompts() for _ in range(50)]
    texts += read_words() * 60 + list(IDENTIFIERS) * 400
    trained = json.loads(train_merges(texts, merges + 512).to_str())["model"]["merges"][:merges]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    for pair in trained:
        if "".join(pair) not in tokens:
            tokens.append("".join(pair))
    tokens += [START, END]  # the end last: CLIP's pooling looks for the greatest id
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in trained)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    configuration = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CONTEXT_LENGTH,
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "do_lower_case": True,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
    special = {name: configuration[name] for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")
    return load_tokenizer(folder)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Loads the vocabulary of a folder."""
    return CLIPTokenizer.from_pretrained(str(folder))
