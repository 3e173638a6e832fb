"""Sites are found by what runs, and objectives keep to the one the port was given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import textadv
from tests.batches import full_batch
from textadv.errors import ConfigError, UnsupportedModelError
from textadv.objectives import Adversarial, Latent
from textadv.perturb import FGM, PGD, SynonymHull
from textadv.sites import find_site
from textadv.testing import ARCHITECTURES, tiny_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_are_counted_from_both_ends(architecture):
    model = tiny_model(architecture)
    first, last = find_site(model, "layer:0"), find_site(model, "layer:1")
    assert find_site(model, "layer:-1") == last
    assert find_site(model, "layer:-2") == first
    assert find_site(model, "embeddings_out") == first
    assert (first.name, first.call) != (last.name, last.call)
    assert not first.prefix
    assert len(last.prefix) == 2
    for site in ("layer:2", "layer:-3"):
        with pytest.raises(ConfigError, match="2 blocks"):
            find_site(model, site)


def test_embedding_sums_are_before_the_embedding_norm_where_there_is_one():
    names = {a: find_site(tiny_model(a), "embeddings_sum").name for a in ARCHITECTURES}
    assert names["bert"] == "bert.embeddings.LayerNorm"
    assert names["modernbert"] == "model.embeddings.norm"
    assert names["bart"] == "model.encoder.layernorm_embedding"
    for architecture in ("gpt2", "llama", "t5", "opt", "xlnet"):
        assert names[architecture] == find_site(tiny_model(architecture), "layer:0").name


def test_objectives_use_the_site_of_the_port_unless_told_otherwise():
    model = tiny_model("bert")
    batch = full_batch(model)

    def gradients(port, objective):
        model.zero_grad()
        textadv.backward(objective, port, batch, generator=torch.Generator())
        return model.bert.encoder.layer[1].output.dense.weight.grad.clone()

    fgm = Adversarial(perturbation=FGM())
    words = gradients(textadv.wrap(model), fgm)
    named = gradients(textadv.wrap(model, site="bert.embeddings.word_embeddings"), fgm)
    wrapped = gradients(textadv.wrap(model, site="layer:1"), fgm)
    asked = gradients(textadv.wrap(model), Adversarial(perturbation=FGM(), site="layer:1"))
    assert torch.equal(words, named)
    assert torch.equal(wrapped, asked)
    assert not torch.equal(words, asked)


def test_ports_at_other_sites_share_memory_and_follow_the_forward():
    model = tiny_model("bert")
    port = textadv.wrap(model)
    there = port.at("layer:1")
    port.memory["x"] = torch.ones(1)
    assert there.memory is port.memory
    assert port.at("layer:1") is there
    assert there.at("word") is port
    calls = []
    port.forward = lambda **inputs: (calls.append(1), model(**inputs))[1]
    textadv.backward(Latent(perturbation=PGD(num_steps=1)), port, full_batch(model))
    assert len(calls) == 2
    assert (port.on_words, there.on_words) == (True, False)


def test_sets_of_words_need_the_words():
    model = tiny_model("bert")
    port, batch = textadv.wrap(model, site="layer:1"), full_batch(model)
    with pytest.raises(ConfigError, match="expected the words"):
        SynonymHull()(port, batch)
    with pytest.raises(ConfigError, match="expected the words"):
        textadv.backward(textadv.objectives.TAVAT(), port, batch)


class Flat(nn.Module):
    """No blocks."""

    def __init__(self, config):
        super().__init__()
        self.word, self.config = nn.Embedding(96, 8), config

    def forward(self, input_ids, attention_mask=None):
        from transformers.modeling_outputs import SequenceClassifierOutput

        return SequenceClassifierOutput(logits=self.word(input_ids).sum(1)[:, :3])


def test_a_model_without_blocks_has_no_layers():
    with pytest.raises(UnsupportedModelError, match="no list of blocks"):
        find_site(Flat(tiny_model().config), "layer:0")


def test_a_prefix_is_not_cached_for_compiled_models():
    from textadv import reuse

    model = tiny_model("bert")
    site = find_site(model, "layer:1")
    model._compiled_call_impl = lambda *args, **kwargs: None
    with reuse.cached_prefix(model, site):
        assert not any("forward" in module.__dict__ for module in model.modules())
    model._compiled_call_impl = None


def test_the_prefix_is_unpatched_when_a_forward_fails():
    model = tiny_model("bert")
    port, batch = textadv.wrap(model).at("layer:1"), full_batch(model)
    model.classifier.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        FGM()(port, batch)
    assert not any("forward" in module.__dict__ for module in model.modules())
