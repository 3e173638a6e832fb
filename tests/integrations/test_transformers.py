"""`transformers.Trainer` with any objective: same weights as a plain loop, nothing lost."""

from __future__ import annotations

import datasets
import pytest
import torch
import transformers

import textadv
from tests.models import make_tokenizer, sentiment_rows
from textadv.integrations import AdversarialTrainer, AdversarialTrainerMixin
from textadv.objectives import TAVAT, Adversarial, Clean, FreeAT, FreeLB
from textadv.perturb import FGM, PGD
from textadv.seeding import torch_generator
from textadv.testing import tiny_model

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
PGD_START = PGD(epsilon=0.3, num_steps=2, init="uniform")


def make_model():
    model = tiny_model("bert", num_labels=2, **NO_DROPOUT).double()
    model.config.problem_type = "single_label_classification"
    return model


def make_data(count=16):
    rows = sentiment_rows(count)
    tokenizer = make_tokenizer()
    encoded = tokenizer([r["text"] for r in rows], return_special_tokens_mask=True)
    columns = {k: encoded[k] for k in ("input_ids", "attention_mask", "special_tokens_mask")}
    return datasets.Dataset.from_dict({**columns, "labels": [r["label"] for r in rows]})


def make_arguments(folder, **options):
    return transformers.TrainingArguments(
        output_dir=str(folder),
        report_to=[],
        use_cpu=True,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        logging_steps=1,
        disable_tqdm=True,
        **{
            "save_strategy": "no",
            "per_device_train_batch_size": 8,
            "num_train_epochs": 2,
            **options,
        },
    )


def make_trainer(folder, objective, kind=AdversarialTrainer, model=None, **options):
    tokenizer = make_tokenizer()
    return kind(
        model=make_model() if model is None else model,
        args=make_arguments(folder, **options),
        train_dataset=make_data(),
        eval_dataset=make_data(6),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        **({} if objective is None else {"objective": objective}),
    )


def assert_same(left, right, tolerance=1e-10):
    for (name, a), b in zip(left.named_parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(
            a, b, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_clean_objective_equals_the_trainer_itself(tmp_path):
    plain = make_trainer(tmp_path / "a", None, transformers.Trainer)
    ours = make_trainer(tmp_path / "b", Clean())
    plain.train()
    ours.train()
    assert_same(plain.model, ours.model)
    assert [r.get("loss") for r in plain.state.log_history] == pytest.approx(
        [r.get("loss") for r in ours.state.log_history]
    )


OBJECTIVES = {
    "pgd": Adversarial(perturbation=PGD_START),
    "freelb": FreeLB(perturbation=PGD(epsilon=0.3, step_size=0.1, num_steps=2)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_equals_a_plain_loop(name, tmp_path):
    trainer = make_trainer(tmp_path, OBJECTIVES[name], max_steps=3)
    batches = []
    step = trainer.training_step
    trainer.training_step = lambda model, inputs, *rest: (
        batches.append({k: v.clone() for k, v in inputs.items()}),
        step(model, inputs, *rest),
    )[1]
    trainer.train()
    assert "special_tokens_mask" in batches[0]
    model = make_model().train()
    port = textadv.wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number, batch in enumerate(batches):
        optimizer.zero_grad()
        generator = torch_generator("cpu", trainer.args.seed, "perturbation", number, 0, 0)
        textadv.backward(OBJECTIVES[name], port, batch, generator=generator)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert_same(trainer.model, model)


@pytest.mark.parametrize(
    "objective", [Adversarial(perturbation=FGM(epsilon=0.3)), OBJECTIVES["freelb"]]
)
def test_accumulation_equals_one_large_batch(objective, tmp_path):
    once = make_trainer(tmp_path / "a", objective, per_device_train_batch_size=8)
    parts = make_trainer(
        tmp_path / "b", objective, per_device_train_batch_size=4, gradient_accumulation_steps=2
    )
    for trainer in (once, parts):
        trainer.train()
    assert once.state.global_step == parts.state.global_step == 4
    assert_same(once.model, parts.model)


def test_any_trainer_becomes_adversarial_in_one_line(tmp_path):
    class Weighted(transformers.Trainer):
        def create_optimizer(self, *args, **kwargs):
            self.created = True
            return super().create_optimizer(*args, **kwargs)

    class Ours(AdversarialTrainerMixin, Weighted):
        pass

    trainer = make_trainer(tmp_path, Adversarial(perturbation=FGM()), Ours)
    trainer.train()
    assert trainer.created
    logged = trainer.state.log_history[0]
    assert {"loss", "clean_loss", "adversarial_loss", "adversarial_accuracy", "delta_norm"} <= (
        logged.keys()
    )
    assert logged["loss"] == pytest.approx(logged["clean_loss"] + logged["adversarial_loss"], 1e-3)
    assert {"eval_loss"} <= trainer.evaluate().keys()
    assert trainer.predict(make_data(6)).predictions.shape == (6, 2)
    assert not any(m._forward_hooks for m in trainer.model.modules())


def test_batches_are_replayed_for_free_adversarial_training(tmp_path):
    trainer = make_trainer(tmp_path, FreeAT(num_replays=2), max_steps=4)
    seen = []
    step = trainer.training_step
    trainer.training_step = lambda model, inputs, *rest: (
        seen.append(inputs["input_ids"].clone()),
        step(model, inputs, *rest),
    )[1]
    trainer.train()
    assert len(seen) == trainer.state.global_step == 4
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])
    assert seen[0].shape != seen[2].shape or not torch.equal(seen[0], seen[2])


def test_what_an_objective_remembers_survives_a_checkpoint(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = make_trainer(tmp_path / "run", TAVAT(), **options)
    whole.train()
    resumed = make_trainer(tmp_path / "run", TAVAT(), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert_same(whole.model, resumed.model, 1e-12)
    for name, value in whole.port_of(whole.model).memory.items():
        assert torch.equal(resumed.port_of(resumed.model).memory[name], value)


def test_each_micro_batch_of_a_window_has_its_own_memory(tmp_path):
    trainer = make_trainer(
        tmp_path,
        FreeAT(num_replays=2),
        max_steps=2,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=4,
    )
    trainer.train()
    memory = trainer.port_of(trainer.model).memory
    assert sorted(memory) == ["free.delta.0", "free.delta.1"]
    assert all((value != 0).any() for value in memory.values())
