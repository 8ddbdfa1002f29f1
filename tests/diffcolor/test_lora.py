import pytest
import torch

from diffcolor.lora import attached_lora, from_diffusers, init_lora, stack, to_diffusers


def some_lora(unet, count, seed=0):
    generators = [torch.Generator().manual_seed(seed + k) for k in range(count)]
    lora = init_lora(unet, 2, generators)
    for tensor in lora.up.values():
        for k, generator in enumerate(generators):
            tensor[k] = torch.randn(tensor.shape[1:], generator=generator) * 0.3
    return lora


def run(base, x, embeds):
    with torch.no_grad():
        return base.unet(x, torch.full((len(x),), 500), encoder_hidden_states=embeds).sample


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(4, 4, 8, 8, generator=generator), torch.randn(4, 16, 16, generator=generator)


def test_fresh_adapters_change_nothing(base, inputs):
    lora = init_lora(base.unet, 2, [torch.Generator().manual_seed(0)])
    plain = run(base, *inputs)
    with attached_lora(base.unet, lora):
        assert torch.equal(run(base, *inputs), plain)


def test_each_image_gets_its_own_adapters(base, inputs):
    x, embeds = inputs
    lora = some_lora(base.unet, 2)
    with attached_lora(base.unet, lora):
        together = run(base, x, embeds)
    for k in range(2):
        with attached_lora(base.unet, lora.select([k])):
            alone = run(base, x[2 * k : 2 * k + 2], embeds[2 * k : 2 * k + 2])
        assert torch.allclose(together[2 * k : 2 * k + 2], alone, atol=1e-5)
    assert not torch.allclose(together, run(base, x, embeds), atol=1e-3)


def test_unet_is_given_back_when_training_raises(base, inputs):
    plain = run(base, *inputs)
    with pytest.raises(RuntimeError, match="mid-training"), attached_lora(base.unet, some_lora(base.unet, 1)):
        raise RuntimeError("mid-training")
    assert torch.equal(run(base, *inputs), plain)


def test_diffusers_names_round_trip(base):
    lora = some_lora(base.unet, 1).rounded()
    again = from_diffusers(to_diffusers(lora))
    assert again.down.keys() == lora.down.keys()
    for name in lora.down:
        assert torch.equal(again.down[name], lora.down[name])
        assert torch.equal(again.up[name], lora.up[name])


def test_stack_and_select_are_inverse(base):
    lora = some_lora(base.unet, 3)
    again = stack([lora.select([k]) for k in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(again.named().values(), lora.named().values(), strict=True))
