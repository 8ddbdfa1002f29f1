"""Tiny random models in the shapes of the real ones: what unit tests load through the real loading code."""

import json
from pathlib import Path

import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

WORDS = "a photo of the red green blue yellow apple barn sky house woman man cat grayscale scratchy colorful photograph"
IDENTIFIERS = "sks ktn vzb qxr"
CONTEXT = 16


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP-shaped BPE tokenizer whose words are whole tokens."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.normalizer, bpe.decoder = normalizers.Lowercase(), decoders.BPEDecoder("</w>")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)])
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([WORDS] * 9 + [IDENTIFIERS] * 3, trainer)
    trained = json.loads(bpe.to_str())["model"]
    tokens = sorted(trained["vocab"], key=trained["vocab"].get)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokens = list(dict.fromkeys([*sorted(alphabet), *(f"{c}</w>" for c in sorted(alphabet)), *tokens]))
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in trained["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=CONTEXT)
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_base_model(folder: Path, prediction_type: str = "epsilon") -> Path:
    """A Stable-Diffusion-shaped folder with random weights: 32-pixel pictures, 8x8 latents."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(folder / "tokenizer")
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT,
            projection_dim=16,
            bos_token_id=len(tokenizer) - 2,
            eos_token_id=len(tokenizer) - 1,
            pad_token_id=len(tokenizer) - 1,
        )
    )
    vae = _tiny_vae()
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=16,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    v_prediction = prediction_type == "v_prediction"
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=v_prediction,
        timestep_spacing="trailing" if v_prediction else "leading",
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def make_xl_base_model(folder: Path) -> Path:
    """A Stable-Diffusion-XL-shaped folder with random weights: 32-pixel pictures, 8x8 latents."""
    torch.manual_seed(3)
    tokenizers = [make_tokenizer(folder / name) for name in ("tokenizer", "tokenizer_2")]
    text = {
        "vocab_size": len(tokenizers[0]),
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": len(tokenizers[0]) - 2,
        "eos_token_id": len(tokenizers[0]) - 1,
        "pad_token_id": len(tokenizers[0]) - 1,
    }
    first = CLIPTextModel(CLIPTextConfig(hidden_size=16, intermediate_size=32, projection_dim=16, **text))
    second = CLIPTextModelWithProjection(
        CLIPTextConfig(hidden_size=24, intermediate_size=48, projection_dim=20, hidden_act="gelu", **text)
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=16 + 24,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    StableDiffusionXLPipeline(
        vae=_tiny_vae(),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def _tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
        scaling_factor=0.7,
    )


def make_tiny_decoder(folder: Path, latent_channels: int = 4, scales: int = 3) -> Path:
    """An AutoencoderTiny folder with random weights, for the latents of `make_base_model`."""
    torch.manual_seed(2)
    AutoencoderTiny(
        latent_channels=latent_channels,
        encoder_block_out_channels=(8,) * scales,
        decoder_block_out_channels=(8,) * scales,
        num_encoder_blocks=(1,) * scales,
        num_decoder_blocks=(1,) * scales,
    ).save_pretrained(folder)
    return folder


def make_captioner(folder: Path) -> Path:
    """A BLIP-shaped folder with random weights."""
    torch.manual_seed(4)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), "[DEC]", "[ENC]"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), model_max_length=16)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {
        "bos_token_id": words.index("[DEC]"),
        "eos_token_id": words.index("[SEP]"),
        "sep_token_id": words.index("[SEP]"),
        "pad_token_id": 0,
    }
    config = BlipConfig(
        vision_config={**sizes, "image_size": 32, "patch_size": 8, "projection_dim": 16},
        text_config={
            **sizes,
            **ids,
            "vocab_size": len(words),
            "encoder_hidden_size": 16,
            "max_position_embeddings": 64,
        },
        projection_dim=16,
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def make_judge(folder: Path) -> Path:
    """An open_clip folder with random weights."""
    torch.manual_seed(1)
    tokenizer = make_tokenizer(folder)
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": len(tokenizer),
                "width": 16,
                "heads": 2,
                "layers": 1,
                "hf_tokenizer_name": "tokenizer",
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    text = {key: value for key, value in config["model_cfg"]["text_cfg"].items() if key != "hf_tokenizer_name"}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=config["model_cfg"]["vision_cfg"], text_cfg=text)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder
