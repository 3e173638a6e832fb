"""LoRA: only adapters and head are trained, by any objective; saved, merged and attacked."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
)

import textadv
from tests.batches import full_batch
from tests.models import make_tokenizer, save_tiny_model, sentiment_rows
from tests.test_run import write_rows
from tests.test_trainer import Stop, StopAt, make_trainer
from textadv.adapters import LoRAConfig, add_adapters, bare, base_options, merged
from textadv.classifier import ModelVictim
from textadv.config import Recipe, as_dict, build, find_recipe, read_recipe
from textadv.errors import ConfigError, ResourceError, UnsupportedModelError
from textadv.models import ModelConfig, load_for_training
from textadv.objectives import OBJECTIVES, SMART, Adversarial
from textadv.perturb import PGD
from textadv.run import check_recipe, run_recipe
from textadv.testing import tiny_model

peft = pytest.importorskip("peft")

TEXTS = [("a good film",), ("the plot is very bad",), ("one two three four five",)]
OBJECTIVE = Adversarial(perturbation=PGD(epsilon=0.3, num_steps=2, init="uniform"))
HEADS = ("classifier", "score")


def adapted(architecture="bert", **fields):
    torch.manual_seed(0)
    lora = LoRAConfig(**{"rank": 2, "dropout": 0.0, "targets": ["all-linear"], **fields})
    return add_adapters(tiny_model(architecture, num_labels=2), lora, "tiny")


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama", "qwen2", "qwen3", "gemma"])
def test_only_adapters_and_head_are_trained(architecture):
    base, model = tiny_model(architecture, num_labels=2), adapted(architecture)
    batch = full_batch(model)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.equal(model.eval()(**inputs).logits, base(**inputs).logits)
    port = textadv.wrap(model.train())
    for objective in (OBJECTIVE, textadv.FreeLB(), textadv.TRADES()):
        model.zero_grad()
        textadv.backward(objective, port, batch)
        found = {name for name, p in model.named_parameters() if p.grad is not None}
        assert found
        assert all("lora_" in name or any(head in name for head in HEADS) for name in found)
        assert found == {name for name, p in model.named_parameters() if p.requires_grad}
    delta = PGD(epsilon=0.3)(port, batch)
    assert (delta.flatten(1).norm(dim=1) > 0.29).all()


@pytest.mark.parametrize("name", [*OBJECTIVES, "smart with an average"])
def test_every_objective_trains_adapters(name):
    objective = SMART(bregman=1.0) if name == "smart with an average" else OBJECTIVES[name]()
    model = adapted("bert").train()
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    port, batch = textadv.wrap(model), full_batch(model)
    log = textadv.backward(objective, port, batch)
    assert torch.isfinite(log["loss"])
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert grads.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    for key, value in model.named_parameters():
        assert key not in frozen or torch.equal(value, frozen[key]), key


def base_folder(tmp_path, architecture="bert"):
    return save_tiny_model(tmp_path / "base", architecture, num_labels=2)


def loaded(folder, **fields):
    lora = LoRAConfig(**{"rank": 2, **fields})
    torch.manual_seed(0)
    config = ModelConfig(name=str(folder), lora=lora)
    labels = {0: "bad", 1: "good"}
    return load_for_training(config, labels, "single_label_classification")[0]


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_a_run_leaves_a_plain_model_or_the_adapter_alone(architecture, merge, tmp_path):
    folder = base_folder(tmp_path, architecture)
    model = loaded(folder)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    run = make_trainer(tmp_path / "run", OBJECTIVE, model=model, max_steps=3, learning_rate=1e-2)
    run.merge = merge
    result = run.fit()
    after = dict(model.named_parameters())
    assert merge or all(torch.equal(after[name], value) for name, value in before.items())
    stored = tmp_path / "run" / "model"
    names = {path.name for path in stored.iterdir()}
    assert not [n for n in names if n.endswith((".bin", ".md"))]
    expected = ModelVictim(result.model, make_tokenizer(), device="cpu").logits(TEXTS)
    plain = ModelVictim.load(folder, device="cpu").logits(TEXTS)
    assert not torch.allclose(expected, plain, atol=1e-3)
    torch.testing.assert_close(ModelVictim.load(stored, device="cpu").logits(TEXTS), expected)
    if merge:
        assert "model.safetensors" in names
        again = AutoModelForSequenceClassification.from_pretrained(stored)
        assert type(again).__name__ == type(bare(result.model)).__name__
        assert again.config.id2label == {0: "bad", 1: "good"}
        beside = ModelVictim.load(tmp_path / "run" / "adapter", device="cpu").logits(TEXTS)
        torch.testing.assert_close(beside, expected, rtol=1e-4, atol=1e-5)
    else:
        assert {"adapter_config.json", "adapter_model.safetensors", "config.json"} <= names
        assert not (tmp_path / "run" / "adapter").exists()


def test_checkpoints_hold_what_is_trained_and_resume_exactly(tmp_path):
    folder = base_folder(tmp_path)
    options = {"max_steps": 6, "save_steps": 2, "best_metric": "clean_loss", "eval_steps": 2}
    whole = make_trainer(tmp_path / "whole", OBJECTIVE, model=loaded(folder), **options).fit()
    broken = make_trainer(tmp_path / "broken", OBJECTIVE, model=loaded(folder), **options)
    broken.callback = StopAt(4)
    with pytest.raises(Stop):
        broken.fit()
    weights = next((tmp_path / "broken" / "checkpoints").glob("step-*/model.safetensors"))
    assert all("lora_" in name or "modules_to_save" in name for name in load_file(weights))
    torch.manual_seed(7)
    found = make_trainer(tmp_path / "broken", OBJECTIVE, model=loaded(folder), **options).fit(
        resume=True
    )
    left, right = whole.model.state_dict(), found.model.state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_merging_adds_the_updates_to_the_weights():
    model = adapted("bert").eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    layer = bare(model).bert.encoder.layer[0].attention.self.query
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = (layer.base_layer.weight + 16 / 2 * update).detach()
    plain = merged(model)
    found = plain.bert.encoder.layer[0].attention.self.query.weight
    torch.testing.assert_close(found, expected)
    assert type(plain).__name__ == "BertForSequenceClassification"
    assert merged(plain) is plain


@pytest.mark.parametrize("merge", [True, False])
def test_bfloat16_bases_train_in_bf16(merge, tmp_path):
    model = loaded(base_folder(tmp_path, "llama"), base="bfloat16", merge=merge)
    kinds = {(p.requires_grad, p.dtype) for p in model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    run = make_trainer(
        tmp_path / "run", OBJECTIVE, model=model, max_steps=2, precision="bf16", log_steps=1
    )
    run.merge = merge
    result = run.fit()
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}
    assert all(torch.isfinite(p).all() for p in result.model.parameters())
    found = ModelVictim(result.model, make_tokenizer(), device="cpu").logits(TEXTS)
    stored = ModelVictim.load(tmp_path / "run" / "model", device="cpu").logits(TEXTS)
    # The adapter alone is loaded onto the base in float32.
    torch.testing.assert_close(
        found, stored, rtol=0 if merge else 0.02, atol=1e-5 if merge else 0.05
    )


def dequantised(quantised, exact, folder):
    """Give the plain model the rounded base weights in place of those in `folder`."""
    import bitsandbytes as bnb

    stored, layers = load_file(folder / "model.safetensors"), exact.get_parameter
    for name, module in bare(quantised).named_modules():
        weight = f"{name.removesuffix('.base_layer')}.weight"
        if isinstance(module, bnb.nn.Linear4bit):
            kept = bnb.functional.dequantize_4bit(module.weight, module.weight.quant_state)
        elif isinstance(module, bnb.nn.Linear8bitLt):
            kept = module.weight.float() * module.state.SCB[:, None] / 127
        else:
            continue
        layers(weight).data += kept - stored[weight]
    return exact


@pytest.mark.parametrize(("base", "tolerance"), [("8bit", 0.1), ("4bit", 1e-4)])
def test_quantised_bases(base, tolerance, tmp_path):
    """Inputs of 8-bit layers are rounded too; those of 4-bit layers are not."""
    pytest.importorskip("bitsandbytes")
    folder = base_folder(tmp_path, "llama")
    model = loaded(folder, base=base, merge=False)
    kinds = {type(m).__name__ for m in model.modules()}
    assert ("Linear8bitLt" if base == "8bit" else "Linear4bit") in kinds
    run = make_trainer(tmp_path / "run", OBJECTIVE, model=model, max_steps=2, log_steps=1)
    run.merge = False
    result = run.fit()
    assert all(torch.isfinite(p.float()).all() for p in result.model.parameters())
    exact = ModelVictim.load(tmp_path / "run" / "model", device="cpu").model
    assert {p.dtype for p in exact.parameters()} == {torch.float32}
    # Evaluation, without gradients, leaves the way open for gradients.
    ModelVictim(result.model, make_tokenizer(), device="cpu").logits(TEXTS)
    found = []
    for one in (result.model, dequantised(result.model, exact, folder)):
        port, batch = textadv.wrap(one.eval()), full_batch(one)
        delta = torch.zeros_like(port.embed(batch)).requires_grad_()
        logits = port.logits(batch, delta)
        (grad,) = torch.autograd.grad(port.loss(logits, batch).sum(), delta)
        found.append((logits.detach(), grad))
    for rounded, expected in zip(*found, strict=True):
        assert (rounded - expected).norm() <= tolerance * expected.norm()


def test_a_quantised_model_of_ones_own_has_gradients(tmp_path):
    """On CPUs with bfloat16 the first pass without gradients would cut them off."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=2, vocab_size=64, num_labels=2)
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    inputs = {"input_ids": torch.arange(3, 15).view(2, 6), "labels": torch.tensor([0, 1])}
    batch = inputs | {"attention_mask": torch.ones(2, 6, dtype=torch.long)}
    batch["special_tokens_mask"] = torch.zeros(2, 6, dtype=torch.long)

    def own():
        return LlamaForSequenceClassification.from_pretrained(
            tmp_path, quantization_config=how, dtype=torch.float32, pad_token_id=0
        ).eval()

    ports = [textadv.wrap(own()), textadv.wrap(ModelVictim(own(), make_tokenizer()).model)]
    grads = []
    for port, evaluate in zip(ports, (True, False), strict=True):
        delta = torch.zeros_like(port.embed(batch)).requires_grad_()
        if evaluate:
            with torch.no_grad():
                port.model(**inputs)
        grads += torch.autograd.grad(port.loss(port.logits(batch, delta), batch).sum(), delta)
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=0)
    assert (grads[0].norm(dim=2) > 0).all()
    late = own()
    with torch.no_grad():
        late(**inputs)
    if bitsandbytes.nn.Linear4bit(64, 64).support_avx512bf16_for_cpu:
        with pytest.raises(
            UnsupportedModelError, match=r"4-bit weights .* wrap it before its first"
        ):
            textadv.wrap(late)


def test_the_block_of_a_recipe():
    tree = {
        "model": {"name": "m", "lora": {"rank": 4, "targets": "all-linear", "alpha": "8"}},
        "data": {"train": "t.csv"},
    }
    recipe = build(Recipe, tree, "recipe")
    assert recipe.model.lora == LoRAConfig(rank=4, targets=["all-linear"], alpha=8.0)
    assert build(Recipe, as_dict(recipe), "recipe") == recipe
    assert build(Recipe, {**tree, "model": {"name": "m"}}, "recipe").model.lora is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank: got 0, expected a whole number >= 1"),
        ({"alpha": 0}, "alpha: got 0"),
        ({"dropout": 1.0}, "dropout: got 1.0"),
        ({"base": "4bit"}, "merge: got true with base: 4bit"),
        ({"base": "2bit"}, "base"),
        ({"rang": 4}, "did you mean 'rank'"),
    ],
)
def test_impossible_blocks_are_refused(fields, message):
    tree = {"model": {"name": "m", "lora": fields}, "data": {"train": "t.csv"}}
    with pytest.raises(ConfigError, match=message):
        build(Recipe, tree, "recipe")


def recipe_on(folder, tmp_path, *overrides):
    for split in ("train", "validation", "test"):
        write_rows(tmp_path / f"{split}.jsonl", sentiment_rows(24, seed=len(split)))
    return read_recipe(
        find_recipe("sst2-lora"),
        [
            f"model.name={folder}",
            "model.new_head=true",
            "data.name=null",
            *(
                f"data.{split}={tmp_path / split}.jsonl"
                for split in ("train", "validation", "test")
            ),
            "data.text=text",
            "data.max_length=32",
            "training.max_steps=2",
            "training.precision=fp32",
            "evaluation.num_examples=5",
            *overrides,
        ],
    )


def test_the_shipped_recipe_runs_on_a_tiny_decoder(tmp_path):
    recipe = recipe_on(base_folder(tmp_path, "qwen2"), tmp_path)
    result = run_recipe(recipe, tmp_path / "run")
    assert result.training.step == 2
    assert sum(result.report.attacks["deepwordbug"].counts.values()) == 5
    assert type(result.training.model).__name__ == "Qwen2ForSequenceClassification"


def test_bfloat16_bases_need_bf16(tmp_path):
    recipe = recipe_on("nowhere", tmp_path, "model.lora.base=bfloat16")
    match = (
        r"model\.lora\.base: got bfloat16 with fp32 training.*Fix: set training\.precision: bf16"
    )
    with pytest.raises(ConfigError, match=match):
        check_recipe(recipe)


def test_unknown_layers_are_named():
    with pytest.raises(ConfigError, match=r"model\.lora\.targets: .*expected all-linear.* query"):
        adapted("bert", targets=["qeury"])


@pytest.mark.parametrize(("package", "base"), [("peft", "float32"), ("bitsandbytes", "4bit")])
def test_missing_packages_are_named(package, base, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name)
    )
    with pytest.raises(ResourceError, match=f"no package {package}.*pip install {package}"):
        base_options(LoRAConfig(base=base, merge=base != "4bit"))


def test_devices_without_quantisation_are_named(monkeypatch):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match=r"does not run on cpu.*Fix: set base: bfloat16"):
        base_options(LoRAConfig(base="4bit", merge=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "a LoRA adapter that carries its head"),
        ({"modules_to_save": None}, "carries its head"),
        ({"base_model_name_or_path": None}, "names its base"),
        ({"base_model_name_or_path": "/nowhere/at/all"}, "no such directory"),
        (None, "expected adapter_model.safetensors"),
    ],
)
def test_other_adapters_are_refused(change, message, tmp_path):
    folder = base_folder(tmp_path)
    run = make_trainer(tmp_path / "run", OBJECTIVE, model=loaded(folder), max_steps=1)
    run.fit()
    adapter = tmp_path / "run" / "adapter"
    if change is None:
        weights = adapter / "adapter_model.safetensors"
        weights.rename(adapter / "model.safetensors")
    else:
        settings = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**settings, **change}))
    with pytest.raises(UnsupportedModelError, match=message):
        ModelVictim.load(adapter, device="cpu")
