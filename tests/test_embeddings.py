"""The port: right place, once per forward, nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import textadv
from textadv.embeddings import enable_gradient_checkpointing
from textadv.errors import ConfigError, DataError, UnsupportedModelError
from textadv.testing import ARCHITECTURES, tiny_batch, tiny_model


def state_of(model):
    return {
        "training": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grads": [p.grad is None for p in model.parameters()],
        "rng": torch.get_rng_state().tolist(),
        "keys": list(model.state_dict()),
    }


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_zero_delta_is_bit_identical_to_the_plain_model(architecture, side):
    model = tiny_model(architecture)
    port = textadv.wrap(model)
    batch = tiny_batch(model, padding_side=side)
    with torch.no_grad():
        plain = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        embeds = port.embed(batch)
        assert embeds.shape == (*batch["input_ids"].shape, port.dim)
        assert torch.equal(port.logits(batch, torch.zeros_like(embeds)), plain)
        assert torch.equal(port.logits(batch), plain)
        moved = port.logits(batch, 0.5 * port.editable(batch).unsqueeze(-1).float() + 0 * embeds)
    assert not torch.equal(moved, plain)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_wrapping_and_attacking_leaves_no_trace(architecture):
    model = tiny_model(architecture)
    model.train()
    next(iter(model.children())).eval()
    before = state_of(model)
    port = textadv.wrap(model)
    textadv.PGD(norm="l2", epsilon=0.3, num_steps=2)(port, tiny_batch(model))
    assert state_of(model) == before


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_no_trace_is_left_when_the_forward_raises_midway(mode):
    model = tiny_model("bert").train()
    port = textadv.wrap(model)
    before = state_of(model)
    model.classifier.register_forward_hook(lambda *_: 1 / 0)
    before["hooks"] = state_of(model)["hooks"]
    with pytest.raises(ZeroDivisionError):
        textadv.FGM()(port, tiny_batch(model), mode=mode)
    assert state_of(model) == before
    with port.perturbed(None):
        pass


@pytest.mark.parametrize("architecture", ["bert", "albert", "llama", "modernbert"])
def test_gradient_equals_that_of_inputs_embeds_where_both_exist(architecture):
    model = tiny_model(architecture).double()
    port = textadv.wrap(model)
    batch = tiny_batch(model, lengths=(7, 7, 7))
    delta = torch.zeros_like(port.embed(batch)).requires_grad_()
    (by_hook,) = torch.autograd.grad(port.logits(batch, delta).square().sum(), delta)
    embeds = port.embed(batch).requires_grad_()
    config = model.config
    model.config.pad_token_id = config.pad_token_id
    output = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"])
    (by_embeds,) = torch.autograd.grad(output.logits.square().sum(), embeds)
    torch.testing.assert_close(by_hook, by_embeds, rtol=1e-9, atol=1e-12)


def test_gradcheck_through_the_hook():
    model = tiny_model("bert").double()
    port = textadv.wrap(model)
    batch = tiny_batch(model, lengths=(4, 3))
    delta = (0.01 * torch.randn(*batch["input_ids"].shape, port.dim)).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda d: port.loss(port.logits(batch, d), batch).sum(), (delta,), nondet_tol=1e-10
    )


def test_xlnet_is_perturbed_in_its_own_layout():
    model = tiny_model("xlnet").double()
    port = textadv.wrap(model)
    batch = tiny_batch(model)
    delta = torch.zeros_like(port.embed(batch))
    delta[1, 2] = 5.0
    with torch.no_grad():
        changed = (port.logits(batch, delta) != port.logits(batch)).any(1)
    assert changed.tolist() == [False, True, False]


def test_encoder_decoders_are_perturbed_in_the_encoder_only():
    for architecture in ("bart", "t5"):
        model = tiny_model(architecture)
        assert "encoder" in textadv.wrap(model).site
        assert model.get_input_embeddings() is not model.get_submodule(textadv.wrap(model).site)


class Looping(nn.Module):
    """Calls its embedding a given number of times."""

    def __init__(self, calls, config):
        super().__init__()
        self.word, self.calls, self.config = nn.Embedding(96, 8), calls, config

    def forward(self, input_ids, attention_mask=None):
        from transformers.modeling_outputs import SequenceClassifierOutput

        states = [self.word(input_ids) for _ in range(self.calls)]
        hidden = torch.stack(states).sum(0) if states else torch.zeros(*input_ids.shape, 8)
        return SequenceClassifierOutput(logits=hidden.sum(1)[:, :3])


def test_a_layer_that_fires_twice_is_refused():
    model = Looping(2, tiny_model().config)
    port = textadv.wrap(model)
    batch = tiny_batch(model)
    with pytest.raises(UnsupportedModelError, match="2 calls in one forward"):
        port.logits(batch, torch.zeros(3, 9, 8))
    assert torch.isfinite(port.logits(batch)).all()


def test_a_model_without_an_embedding_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"Looping.*wrap\(model, site="):
        textadv.wrap(Looping(0, tiny_model().config))
    with pytest.raises(UnsupportedModelError, match="'nowhere'"):
        textadv.wrap(tiny_model(), site="nowhere")


def test_a_delta_of_the_wrong_shape_is_refused():
    model = tiny_model()
    with pytest.raises(ConfigError, match=r"got \(3, 9, 31\), expected .* \(3, 9, 32\)"):
        textadv.wrap(model).logits(tiny_batch(model), torch.zeros(3, 9, 31))


def test_perturbed_does_not_nest():
    model = tiny_model()
    port, batch = textadv.wrap(model), tiny_batch(model)
    delta = torch.zeros_like(port.embed(batch))
    with pytest.raises(RuntimeError, match="nest"), port.perturbed(delta), port.perturbed(delta):
        pass


def test_editable_leaves_out_padding_and_special_tokens():
    model = tiny_model()
    port, batch = textadv.wrap(model), tiny_batch(model)
    for row, length in enumerate((9, 4, 6)):
        expected = [1 <= column < length - 1 for column in range(9)]
        assert port.editable(batch)[row].tolist() == expected
    chosen = torch.zeros(3, 9)
    chosen[:, 2:8] = 1
    batch["perturb_mask"] = chosen
    assert torch.equal(port.editable(batch), chosen.bool() & batch["attention_mask"].bool())


def test_editable_asks_for_what_it_cannot_know():
    model = tiny_model()
    batch = tiny_batch(model)
    expected = textadv.wrap(model).editable(batch)
    del batch["special_tokens_mask"]
    with pytest.raises(DataError, match="return_special_tokens_mask=True"):
        textadv.wrap(model).editable(batch)

    class Tokenizer:
        all_special_ids = (0, 1, 2, 3)
        unk_token_id = 3

    batch["input_ids"][0, 3] = 3
    assert torch.equal(textadv.wrap(model, Tokenizer()).editable(batch), expected)


def test_labels_give_a_loss_and_missing_labels_are_named():
    model = tiny_model()
    port, batch = textadv.wrap(model), tiny_batch(model)
    mean = port.loss(port.logits(batch), batch).mean()
    torch.testing.assert_close(port(batch).loss, mean)
    del batch["labels"]
    with pytest.raises(DataError, match="labels"):
        textadv.FGM()(port, batch)


def test_dropout_masks_are_the_same_in_every_pass_of_an_attack():
    model = tiny_model("bert", hidden_dropout_prob=0.5).train()
    port, batch = textadv.wrap(model), tiny_batch(model)
    with port.attack_mode("train") as rewind:
        first = port.logits(batch)
        free = port.logits(batch)
        rewind()
        assert torch.equal(port.logits(batch), first)
        assert not torch.equal(free, first)
    with port.attack_mode("eval"):
        assert torch.equal(port.logits(batch), port.logits(batch))
    assert all(m.training for m in model.modules())


def test_attack_mode_freezes_only_what_was_trainable():
    model = tiny_model()
    model.bert.requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    with textadv.wrap(model).attack_mode():
        assert not any(p.requires_grad for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == flags


def test_gradient_checkpointing_changes_nothing():
    model = tiny_model("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    port, batch = textadv.wrap(model), tiny_batch(model)
    plain = textadv.PGD(epsilon=0.3)(port, batch, mode="train")
    calls = []
    model.bert.encoder.layer[0].attention.register_forward_hook(lambda *_: calls.append(1))
    enable_gradient_checkpointing(model)
    again = textadv.PGD(epsilon=0.3)(port, batch, mode="train")
    torch.testing.assert_close(again, plain)
    assert len(calls) == 6  # three steps, each block run again in its backward pass


def test_compiled_models_agree_and_are_not_traced_for_every_delta():
    torch._dynamo.reset()
    model = tiny_model("bert")
    port, batch = textadv.wrap(model), tiny_batch(model)
    plain = textadv.PGD(epsilon=0.3, num_steps=4)(port, batch)
    counter = CompileCounter()
    model.compile(backend=counter)
    with port.attached():
        compiled = textadv.PGD(epsilon=0.3, num_steps=4)(port, batch)
        frames = counter.frame_count
        for _ in range(3):
            textadv.PGD(epsilon=0.1, num_steps=4)(port, batch)
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)
    assert counter.frame_count == frames
    torch._dynamo.reset()
