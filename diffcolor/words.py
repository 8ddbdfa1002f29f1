"""What the embedded models read of a prompt: the words that they were trained on, and no denials of a colour.

A model that meets a word it never saw paints anything. So what is unknown is left out before the models see it, and
said so in a warning. They do not understand "not red" either: it would paint red.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

COLOR_WORDS = frozenset(
    (
        "red scarlet crimson maroon burgundy orange ginger coral peach yellow golden gold mustard green olive mint "
        "lime blue navy azure indigo purple violet lavender lilac magenta pink rose brown tan rust beige cream khaki "
        "ivory teal turquoise aqua cyan black white gray grey silver"
    ).split()
)
_FUNCTION_WORDS = frozenset(
    "a an the of in on at and or with by near under over behind to from for into is are".split()
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?", re.UNICODE)
_COLORS = "|".join(sorted(COLOR_WORDS, key=len, reverse=True))
_DENIAL = re.compile(
    rf"[,;]?\s*\b(?:but\s+)?(?:not|no|never|without|nothing|isn['’]t|aren['’]t|non)\b[\s-]+"
    rf"(?:(?:a|an|any|the|in|of|very|so|is|are|at|all|painted)\s+){{0,3}}(?:{_COLORS})\b"
    rf"(?:(?:\s*,?\s*(?:or|nor|and)\s+)(?:{_COLORS})\b)*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Vocabulary:
    """The words that a model knows, in lower case; None for a model that knows all (CLIP of Stable Diffusion)."""

    words: frozenset[str] | None = None

    def read(self, prompt: str) -> str:
        """The prompt as the model is given it."""
        if self.words is None:
            return prompt
        words = self.words
        said = _DENIAL.sub("", prompt)
        said = _WORD.sub(lambda found: found[0] if _plain(found[0]) in words else "", said)
        said = re.sub(r"\s+([,.;:])", r"\1", re.sub(r"\s+", " ", said))
        if all(_plain(word) in _FUNCTION_WORDS for word in _WORD.findall(said)):
            return ""
        return re.sub(r"(?:[,.;:]\s*)+(?=[,.;:])", "", said).strip(" ,.;:-")

    def unknown(self, prompt: str) -> list[str]:
        """The words that are left out, each once."""
        if self.words is None:
            return []
        return list(dict.fromkeys(word for word in _WORD.findall(prompt) if _plain(word) not in self.words))

    def advice(self, prompt: str) -> list[str]:
        """Warnings about what this prompt cannot do, each with its kind, the words and the remedy."""
        warnings = []
        if denials := [found[0].strip(" ,;") for found in _DENIAL.finditer(prompt)]:
            effect = "it is left out" if self.words is not None else "it may paint that very colour"
            warnings.append(
                f"prompt_denial: no model understands {denials[0]!r}, {effect}; name the colour that it has"
            )
        unknown, count = self.unknown(prompt), len(_WORD.findall(prompt))
        if count >= 3 and len(unknown) > count / 2:
            warnings.append(
                f"prompt_language: the model reads English and does not know {', '.join(unknown[:8])}; "
                f"it sees {self.read(prompt)!r}"
            )
        return warnings


EVERY_WORD = Vocabulary()  # of a model that knows all words


def _plain(word: str) -> str:
    return re.sub(r"['’]s?$", "", word.lower())


@cache
def embedded_vocabulary() -> Vocabulary:
    """Of the embedded models: `diffcolor/embedded/words.txt`."""
    text = (resources.files("diffcolor.embedded") / "words.txt").read_text(encoding="utf-8")
    return Vocabulary(frozenset(text.split()))
