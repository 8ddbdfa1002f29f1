import open_clip
import pytest
import torch

from diffcolor.base_model import load_base_model
from diffcolor.prompts import cut_words, embed_prompts, nouns, prompt_advice, rare_tokens, with_identifiers


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a woman in a dress", ["woman", "dress"]),
        ("A red barn, and the old oak tree.", ["barn", "tree"]),
        ("a photo of a cat", ["cat"]),
        ("coffee", ["coffee"]),
        ("", []),
    ],
)
def test_nouns_end_their_phrases(prompt, expected):
    assert [prompt[start:end] for start, end in nouns(prompt)] == expected


def test_each_noun_gets_its_own_identifier(base):
    identified = with_identifiers("a woman in a dress", base.tokenizer).split()
    assert [identified[i] for i in (0, 2, 3, 4, 6)] == ["a", "woman", "in", "a", "dress"]
    assert identified[1] != identified[5]


@pytest.mark.parametrize("model", ["tiny", "mini"])
def test_identifiers_are_single_rare_tokens(model, base):
    tokenizer = (base if model == "tiny" else load_base_model()).tokenizer
    identifiers = rare_tokens(tokenizer, 4)
    assert len(set(identifiers)) == 4
    for identifier in identifiers:
        assert len(tokenizer(identifier, add_special_tokens=False).input_ids) == 1


def test_embeds_are_what_the_text_encoder_gives_to_diffusers(base, base_folder):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        base_folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    theirs, empty = pipeline.encode_prompt("a red apple", "cpu", 1, True, negative_prompt="")
    assert torch.allclose(embed_prompts(base, ["a red apple"])["embeds"], theirs, atol=1e-5)
    assert torch.allclose(embed_prompts(base, [""])["embeds"], empty, atol=1e-5)


def test_cut_words_names_what_the_model_does_not_see(base):
    assert cut_words(base.tokenizer, "a red apple") == ""
    assert cut_words(base.tokenizer, "a " * 20 + "blue sky").endswith("blue sky")


class Clip:
    """CLIP's own vocabulary, which open_clip brings along."""

    vocabulary = open_clip.tokenizer.SimpleTokenizer().encoder

    def get_vocab(self):
        return self.vocabulary


def test_identifiers_of_clips_vocabulary_mean_nothing():
    """Its rarest words of consonants are httr, rcn, shld, hmv, and a profane one."""
    found = rare_tokens(Clip(), 31)
    assert len(set(found)) == 31
    assert all(f"{word}</w>" in Clip.vocabulary for word in found)
    assert not {"fck", "ssh", "pkg", "nsfw", "http", "kkkk"} & set(found)


def test_a_caption_that_identifiers_make_too_long_is_warned_of(base):
    caption = "a red apple, a blue house, a green barn, a cat"  # 14 of 14 tokens, with 4 nouns
    (warning,) = prompt_advice(base.vocabulary, base.tokenizer, caption, [caption])
    assert warning.startswith("prompt_too_long")
    assert "stage 2 does not see" in warning
    assert prompt_advice(base.vocabulary, base.tokenizer, "a red apple", ["a red apple"]) == []
