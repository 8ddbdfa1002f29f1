"""What the embedded models read of a prompt: the words that they were trained on, and no denials of a colour.

A model that meets a word it never saw paints anything. So what is unknown is left out before the models see it, and
said so in a warning. They do not understand "not red" either: it would paint red.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib import resources
from threading import Lock

COLOR_WORDS = frozenset(
    (
        "red scarlet crimson maroon burgundy orange ginger coral peach yellow golden gold mustard green olive mint "
        "lime blue navy azure indigo purple violet lavender lilac magenta pink rose brown tan rust beige cream khaki "
        "ivory teal turquoise aqua cyan black white gray grey silver"
    ).split()
)
# Colours that are read as a known one.
READ_AS = {
    "fuchsia": "pink", "salmon": "pink", "ochre": "brown", "tawny": "brown", "sienna": "brown", "auburn": "brown",
    "chestnut": "brown", "amber": "orange", "emerald": "green", "chartreuse": "green", "ruby": "red",
    "vermilion": "red", "sapphire": "blue", "plum": "purple", "mauve": "purple", "taupe": "gray", "charcoal": "gray",
    "ecru": "beige",
}  # fmt: skip
_FUNCTION_WORDS = frozenset(
    "a an the of in on at and or with by near under over behind to from for into is are".split()
)
_DENIALS = frozenset("not no never without nothing neither nor non avoid isnt arent wasnt werent dont".split())
_DETERMINERS = frozenset("a an the any in of".split())
_BETWEEN = _DETERMINERS | frozenset(  # may stand between a denial and its colour
    (
        "is are was were be been at all very so too really truly painted coloured colored pale light dark deep bright "
        "dull soft faded vivid muted warm"
    ).split()
)
_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|[.,;:]", re.UNICODE)
_STOPS = frozenset(".,;:")
# Each call of a tokenizer sets how it pads and cuts, and raises where another thread's call is under way.
TOKENIZING = Lock()
_LONGEST = 2000  # characters that are looked at; no model sees as many


@dataclass(frozen=True)
class Vocabulary:
    """The words that a model knows, in lower case; None for a model that knows all (CLIP of Stable Diffusion)."""

    words: frozenset[str] | None = None

    def read(self, prompt: str) -> str:
        """The prompt as the model is given it; reading it again changes nothing."""
        if self.words is None:
            return prompt
        tokens = [READ_AS.get(token.lower(), token) for token in _tokens(prompt)]
        kept, _ = self._without_denials(tokens)
        kept = [token for token in kept if token in _STOPS or _plain(token) in self.words]
        if all(token in _STOPS or token.lower() in _FUNCTION_WORDS for token in kept):
            return ""
        said = re.sub(r"\s+([.,;:])", r"\1", " ".join(kept))
        said = re.sub(r"[.,;:]+(?=[.,;:])", "", said).strip(" .,;:")
        return said if len(kept) == len(tokens) else self.read(said)

    def unknown(self, prompt: str) -> list[str]:
        """The words that are left out, each once."""
        if self.words is None:
            return []
        words = [token for token in _tokens(prompt) if token not in _STOPS and token.lower() not in READ_AS]
        return list(dict.fromkeys(word for word in words if _plain(word) not in self.words))

    def advice(self, prompt: str) -> list[str]:
        """Warnings about what this prompt cannot do, each with its kind, the words and the remedy."""
        tokens = _tokens(prompt)
        warnings = []
        _, denied = self._without_denials([READ_AS.get(token.lower(), token) for token in tokens])
        if denied:
            effect = "it is left out" if self.words is not None else "it may paint that very colour"
            warnings.append(f"prompt_denial: no model understands {denied[0]!r}, {effect}; name the colour that it has")
        unknown, count = self.unknown(prompt), sum(token not in _STOPS for token in tokens)
        seen = self.read(prompt)
        if unknown and ((not seen and not denied) or (count >= 3 and len(unknown) > count / 2)):
            sees = f"sees {seen!r}" if seen else "sees no prompt at all"
            warnings.append(
                f"prompt_language: the model reads English and does not know {', '.join(unknown[:8])}; it {sees}"
            )
        return warnings

    def _without_denials(self, tokens: list[str]) -> tuple[list[str], list[str]]:
        """The tokens without "not red", "without any blue or green", "no white hat", and what was taken out."""
        kept: list[str] = []
        denied: list[str] = []
        at = 0
        while at < len(tokens):
            end = self._end_of_denial(tokens, at)
            if end is None:
                kept.append(tokens[at])
                at += 1
                continue
            denied.append(" ".join(tokens[at:end]))
            if kept and kept[-1].lower() in ("but", "anything"):
                kept.pop()
            at = end
        return kept, denied

    def _end_of_denial(self, tokens: list[str], at: int) -> int | None:
        """Where the denial of a colour that begins at a token ends; None where none begins."""
        first = tokens[at].lower()
        anything_but = first == "but" and at > 0 and tokens[at - 1].lower() == "anything"
        if first not in _DENIALS and not re.search(r"n['’]t$", first) and not anything_but:
            return None
        here, of_a_thing = at + 1, first in ("no", "without")
        while here < len(tokens) and tokens[here].lower() not in COLOR_WORDS:
            word = tokens[here].lower()
            known = self.words is None or _plain(word) in self.words
            if word in _STOPS or (known and word not in _BETWEEN and word not in _DENIALS and not word.endswith("ish")):
                return None
            of_a_thing |= word in _DETERMINERS
            here += 1
        if here == len(tokens):
            return None
        while here < len(tokens) and tokens[here].lower() in COLOR_WORDS:
            here += 1
            joined = here + 1 < len(tokens) and tokens[here].lower() in ("or", "nor")
            if joined and tokens[here + 1].lower() in COLOR_WORDS:
                here += 1
        follows = tokens[here].lower() if here < len(tokens) else ","
        if of_a_thing and follows not in _STOPS and follows not in _FUNCTION_WORDS and follows != "but":
            here += 1  # "no white hat": the hat is denied, too
        return here


EVERY_WORD = Vocabulary()  # of a model that knows all words


def _tokens(prompt: str) -> list[str]:
    """Words and stops; hyphens part words, other marks and digits are left out."""
    return _TOKEN.findall(unicodedata.normalize("NFC", prompt[:_LONGEST]))


def _plain(word: str) -> str:
    return re.sub(r"['’]s?$", "", word.lower())


@cache
def embedded_vocabulary() -> Vocabulary:
    """Of the embedded models: `diffcolor/embedded/words.txt`."""
    text = (resources.files("diffcolor.embedded") / "words.txt").read_text(encoding="utf-8")
    return Vocabulary(frozenset(text.split()))
