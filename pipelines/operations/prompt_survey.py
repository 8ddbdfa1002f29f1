"""What a manifest's prompts cannot do on a base model, said before a job."""

from pathlib import Path
from typing import Any

from diffcolor.config import MINI, NO_BASE
from diffcolor.errors import BaseModelError
from diffcolor.identity import embedded_folder
from diffcolor.prompts import prompt_advice
from diffcolor.words import EVERY_WORD, embedded_vocabulary
from manifests.schema import ManifestRow


class PromptSurvey:
    """Loads what reads the prompts, which is quick; no weights."""

    def __init__(self, base_model: str = MINI) -> None:
        embedded, self.is_fitted = base_model in (MINI, NO_BASE), base_model != NO_BASE
        self.vocabulary = embedded_vocabulary() if embedded else EVERY_WORD
        self.tokenizer = _tokenizer(embedded_folder(MINI) if embedded else Path(base_model))

    def advice(self, row: ManifestRow) -> list[str]:
        """The warnings that the row will have."""
        return prompt_advice(self.vocabulary, self.tokenizer, row.caption, row.target_prompts, is_fitted=self.is_fitted)


def _tokenizer(folder: Path) -> Any:
    """A model folder's; None for a model of the hub, which is not downloaded for this."""
    from transformers import CLIPTokenizer

    if not (folder / "tokenizer").is_dir():
        return None
    try:
        return CLIPTokenizer.from_pretrained(folder / "tokenizer")
    except Exception as error:  # transformers raises many types for an unsuitable folder
        raise BaseModelError(str(folder), f"its tokenizer cannot be read ({type(error).__name__}: {error})") from error
