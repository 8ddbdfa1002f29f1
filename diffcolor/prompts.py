"""Prompts: their embeddings, and the unique identifiers of stage 2."""

import re
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

from diffcolor.base_model import BaseModel
from diffcolor.conditioning import Conditioning
from diffcolor.words import TOKENIZING, Vocabulary

# Words that end a noun phrase: a word before any of these (or before punctuation) is taken for a noun.
_FUNCTION_WORDS = frozenset(
    (
        "a an the this that these those some any each every no of in on at by for from to with without under "
        "over above below behind before after near next beside between among against along across around "
        "through into onto upon off out up down and or but nor as than if while during is are was were be "
        "been being has have had having do does did his her its their our my your it he she they we who whom "
        "whose which where when there here not very two three four five six seven eight nine ten one several "
        "many few all both wearing holding standing sitting looking"
    ).split()
)
# Nouns for the picture itself, not for what it shows.
_MEDIA = frozenset(["photo", "photograph", "picture", "image", "portrait", "view", "scene", "print"])
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", re.UNICODE)


def nouns(prompt: str) -> list[tuple[int, int]]:
    """Spans (start, end) of the words taken for nouns: the last word of every run of content words.

    A heuristic without a tagger (docs/decisions/0004): "a woman in a red dress" gives woman, dress.
    """
    words = list(_WORD.finditer(prompt))
    spans = []
    for word, following in zip_longest(words, words[1:]):
        text = word.group().lower()
        if text in _FUNCTION_WORDS or text in _MEDIA or len(text) < 2:
            continue
        ends = following is None or following.group().lower() in _FUNCTION_WORDS
        if ends or prompt[word.end() : following.start()].strip():
            spans.append(word.span())
    return spans


# Words of one token in CLIP's vocabulary that mean nothing, as far as we know; chosen by eye from its rarest.
_MEANINGLESS = (
    "tzky zshq nlwx dhry ncbd kprs bbly styn vsky mswx ldnt hsfb zyk snz zzy nmwx scwx kywx kswx ncwx gypt ggly ssly "
    "nyrd sltd dvn smx yql swx twx wwx"
).split()


def rare_tokens(tokenizer: Any, count: int) -> list[str]:
    """`count` words of one token each that mean nothing.

    Of CLIP's vocabulary, a chosen few: among its rarest are profane words and abbreviations. Of another one, which has
    none of these, three or four consonants, the rarest first: a BPE vocabulary is ordered by how often its merges were
    seen, so the rarest words have the highest ids.
    """
    known = tokenizer.get_vocab()
    rare = [word for word in _MEANINGLESS if f"{word}</w>" in known]
    if not rare:
        words = [token.removesuffix("</w>") for token in sorted(known, key=known.get, reverse=True) if "</w>" in token]
        rare = [word for word in words if re.fullmatch(r"[bcdfghjklmnpqrstvwxz]{3,4}", word)]
    # A vocabulary without such words (of a test model) falls back to invented ones.
    return (rare + [f"{a}{b}k" for a in "zxqvj" for b in "bcdfghjklm"])[:count]


def with_identifiers(prompt: str, tokenizer: Any) -> str:
    """The context prompt with a unique identifier before each noun (arXiv 2308.01655, stage 2)."""
    spans = nouns(prompt)
    identified = prompt
    for (start, _), identifier in reversed(list(zip(spans, rare_tokens(tokenizer, len(spans)), strict=False))):
        identified = f"{identified[:start]}{identifier} {identified[start:]}"
    return identified


def embed_prompts(base: BaseModel, prompts: list[str]) -> Conditioning:
    """What the U-Net reads of prompts, as diffusers' pipelines have it."""
    return base.condition([base.vocabulary.read(prompt) for prompt in prompts])


def embed_identified(base: BaseModel, prompts: list[str]) -> Conditioning:
    """`embed_prompts` of the prompts with a unique identifier before each noun."""
    return base.condition([identified(prompt, base.vocabulary, base.tokenizer) for prompt in prompts])


def identified(prompt: str, vocabulary: Vocabulary, tokenizer: Any) -> str:
    """The prompt as the model reads it, with a unique identifier before each noun."""
    return with_identifiers(vocabulary.read(prompt), tokenizer)


def cut_words(tokenizer: Any, prompt: str) -> str:
    """The end of `prompt` that is too long for the text encoder; "" when all of it fits."""
    with TOKENIZING:
        ids = tokenizer(prompt, add_special_tokens=False).input_ids
    return tokenizer.decode(ids[tokenizer.model_max_length - 2 :]).strip()


def prompt_advice(
    vocabulary: Vocabulary, tokenizer: Any, context: str, targets: Iterable[str], *, is_fitted: bool = True
) -> list[str]:
    """What to warn of: denials, other languages, and what is too long.

    Args:
        tokenizer: None where it is unknown.
        context: the context prompt, which stage 2 reads with an identifier before each noun.
        targets: the target prompts; one may be the context prompt.
        is_fitted: whether there is a stage 2.
    """
    warnings: list[str] = []
    for prompt in dict.fromkeys((context, *targets)):
        warnings += vocabulary.advice(prompt)
        if tokenizer is not None and (cut := cut_words(tokenizer, vocabulary.read(prompt))):
            warnings.append(f"prompt_too_long: {prompt[:40]!r}...: the model does not see {cut!r}")
    if is_fitted and tokenizer is not None and not cut_words(tokenizer, vocabulary.read(context)):
        cut = cut_words(tokenizer, identified(context, vocabulary, tokenizer))
        if cut:
            warnings.append(f"prompt_too_long: {context[:40]!r}...: stage 2 does not see {cut!r}; it has many nouns")
    return warnings
