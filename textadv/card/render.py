"""The model card: a run's own files as YAML metadata and Markdown."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from textadv.card import escape
from textadv.card.figures import Figures, Share
from textadv.card.sources import FINISHED, read_mapping, training_length
from textadv.errors import DataError, TextAdvError, shown
from textadv.files import exists
from textadv.results import load_results

__all__ = ["render_card"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DATA_SUFFIXES = frozenset((".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"))
_TASKS = {
    "multi_label_classification": "multi-label text classification",
    "regression": "text regression",
}
_PIPELINE_OPTIONS = {
    "multi_label_classification": ", top_k=None",
    "regression": ', function_to_apply="none"',
}


def render_card(
    run_dir: str | Path, *, repo_id: str | None = None, report_dir: str | Path | None = None
) -> str:
    """Render the model card of a run: YAML metadata and Markdown.

    Only what the run's files record is printed; every rate comes with its count and a 95 %
    interval. The same files give the same card.

    Args:
        run_dir: Run directory with `model/`, `recipe.yaml` and, where they exist, `env.json`,
            `metrics.jsonl` and `report.json`.
        repo_id: Repository the card is for; the recipe's `hub.repo` when not given.
        report_dir: Folder of `report.json`, when it is not `run_dir`.

    Raises:
        DataError: A file is missing, damaged, or contradicts itself.
    """
    try:
        run = _Run(Path(run_dir), Path(report_dir or run_dir), repo_id)
        body = _template().render(run.facts()).strip()
        return f"---\n{run.metadata()}\n---\n\n{body}\n"
    except TextAdvError:
        raise
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(
            str(run_dir),
            got=f"a value of another kind ({shown(str(error), 160)})",
            expected=FINISHED,
        ) from error


@functools.cache
def _template() -> Any:
    """Return the compiled template: compiling it takes longer than a card."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {
        name: getattr(escape, name) for name in ("cell", "code", "fenced", "text")
    }
    text = files("textadv").joinpath("templates/card.md.j2").read_text(encoding="utf-8")
    return environment.from_string(text)


class _Run:
    """The files of a run, and what the card says about them."""

    def __init__(self, folder: Path, report_dir: Path, repo_id: str | None) -> None:
        self.folder = folder
        self.recipe = read_mapping(folder / "recipe.yaml")
        self.model = read_mapping(folder / "model" / "config.json")
        self.env = read_mapping(folder / "env.json", required=False)
        report = read_mapping(report_dir / "report.json", required=False)
        if report.get("audit") and (report_dir / "records.jsonl").is_file():
            # Without the audit when it is one of other records.
            report["audit"] = load_results(report_dir).report.audit
        self.measured_by_recipe = report_dir == folder and "evaluation" in self.recipe
        self.report = Figures(report) if report else None
        self.repo_id = repo_id or self.block("hub").get("repo")
        self.versions = self.env.get("versions") or {}
        self.problem = str(self.model.get("problem_type"))

    def block(self, name: str) -> dict[str, Any]:
        value = self.recipe.get(name)
        return value if isinstance(value, dict) else {}

    @property
    def title(self) -> str:
        return str(self.repo_id).rpartition("/")[2] if self.repo_id else self.folder.resolve().name

    @property
    def data(self) -> str:
        data = self.block("data")
        return _without_folder(data.get("name") or data.get("train") or "unnamed data")

    def metadata(self) -> str:
        from huggingface_hub import ModelCardData

        hub, dataset = self.block("hub"), self.block("data").get("name")
        adversarial = self.block("objective").get("name", "clean") != "clean"
        results = list(self.results())
        card = ModelCardData(
            language=hub.get("language"),
            license=hub.get("license"),
            library_name="transformers",
            pipeline_tag="text-classification",
            base_model=_hub_id(self.block("model").get("name")),
            datasets=[dataset] if _hub_id(dataset) else None,
            metrics=["accuracy"] if results else None,
            tags=["textadv", *(["adversarial-training"] if adversarial else [])],
            model_name=escape.visible(self.title),
            eval_results=results or None,
        )
        return str(card.to_yaml(line_break="\n")).strip()

    def results(self) -> Iterator[Any]:
        from huggingface_hub import EvalResult

        report, data = self.report, self.block("data")
        if report is None:
            return
        dataset = _hub_id(data.get("name"))

        def result(kind: str, name: str, share: Share, arguments: Mapping[str, Any]) -> Any:
            return EvalResult(
                task_type="text-classification",
                dataset_type=dataset or "custom",
                dataset_name=escape.visible(_without_folder(report.data)),
                dataset_config=data.get("config") if dataset else None,
                metric_type=kind,
                metric_name=name,
                metric_value=round(share.k / share.n, 4),
                metric_args={**arguments, "seed": report.seed, **share.arguments()},
            )

        if report.clean is not None:
            yield result("accuracy", "Accuracy", report.clean, {})
        for attack in report.attacks:
            name = escape.visible(attack.name)
            arguments = {"attack": name, "query_budget": attack.query_budget}
            label = f"Accuracy under attack ({name})"
            yield result("accuracy_under_attack", label, attack.share, arguments)
        for row in report.embedding:
            name = escape.visible(row.name)
            label = f"Accuracy under perturbation ({name})"
            arguments = {"perturbation": name, **row.settings}
            yield result("accuracy_under_perturbation", label, row.share, arguments)

    def facts(self) -> dict[str, Any]:
        names = self.model.get("id2label") or {}
        blocks = ("model", "data", "objective", "training")
        settings = {name: self.recipe[name] for name in blocks if name in self.recipe}
        return {
            "title": self.title,
            "base_model": _without_folder(self.block("model").get("name", "an unnamed model")),
            "task": _TASKS.get(self.problem, "text classification"),
            "data": self.data,
            "objective": self.block("objective").get("name", "clean"),
            "version": self.versions.get("textadv", ""),
            "labels": sorted((int(key), name) for key, name in names.items()),
            "report": self.report,
            "report_data": _without_folder(self.report.data) if self.report else "",
            "limits": list(self.limits()),
            "steps": training_length(self.folder / "metrics.jsonl"),
            "settings": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).strip(),
            "environment": self.environment(),
            "loading": self.loading(),
            "repeating": "\n".join(self.commands()),
        }

    def environment(self) -> list[str]:
        python = [f"Python {self.env['python']}"] if "python" in self.env else []
        device = [str(self.env["device"])] if "device" in self.env else []
        return device + python + [f"{name} {found}" for name, found in self.versions.items()]

    def limits(self) -> Iterator[str]:
        report, length = self.report, self.block("data").get("max_length")
        if report:
            yield (
                "The figures hold for these attacks, budgets and data. Other attacks, larger "
                "budgets or an attacker who adapts to this model can do better."
            )
            yield (
                "One trained model: the intervals cover the choice of examples, not that of the "
                "training seed."
            )
            if report.audit is None:
                yield "No audit tried to show that these figures are wrong."
            elif report.audit.verdict == "NOT SUPPORTED":
                yield "**The audit refutes these figures: do not rely on them.**"
            if report.attacks and self.unrated:
                yield "No person checked that the changed texts keep their label."
            elif not report.attacks:
                yield "No attack on texts was run; figures in embedding space do not replace one."
            unresolved = sum(attack.unresolved for attack in report.attacks)
            if unresolved:
                yield f"{unresolved} searches ended without a result and count as unresolved."
        yield "Nothing is known about languages, domains and kinds of text that were not measured."
        if length is not None:
            yield f"Inputs were cut to {escape.text(length)} tokens in training."

    @property
    def unrated(self) -> bool:
        """Whether nobody rated the changed texts, as far as the audit says."""
        audit = self.report.audit if self.report else None
        return audit is None or any(row["rule"] == "A27" for row in audit.open)

    def loading(self) -> str:
        pair = len(self.block("data").get("text") or ()) == 2
        example = '{"text": "First text.", "text_pair": "Second text."}' if pair else '"A text."'
        model = json.dumps(self.repo_id or "run/model")
        options = _PIPELINE_OPTIONS.get(self.problem, "")
        return (
            "from transformers import pipeline\n\n"
            f'classifier = pipeline("text-classification", model={model}{options})\n'
            f"print(classifier({example}))"
        )

    def commands(self) -> Iterator[str]:
        version = self.versions.get("textadv")
        yield "pip install " + _quoted(f"textadv=={version}" if version else "textadv")
        report = self.report
        then = ", and measures what its evaluation block says" if self.measured_by_recipe else ""
        yield "# recipe.yaml is in this repository; it names the data" + (then if report else "")
        yield "textadv train recipe.yaml --output-dir run"
        if report is None or self.measured_by_recipe:
            return
        for budget in dict.fromkeys(attack.query_budget for attack in report.attacks):
            names = [a.name for a in report.attacks if a.query_budget == budget]
            words: list[object] = [
                "--data",
                _without_folder(report.data),
                "--attack",
                ",".join(names),
            ]
            words += ["--num-examples", report.n]
            words += ["--seed", report.seed] if report.seed is not None else []
            words += ["--query-budget", budget] if budget is not None else []
            listed = " ".join(map(_quoted, words))
            yield f"textadv attack run/model {listed} --output-dir attack"


def _hub_id(name: object) -> str | None:
    """Return a name that can be a Hub id: no path, no file, no `package:NAME`."""
    if isinstance(name, str) and _HUB_ID.fullmatch(name) and not exists(Path(name)):
        return name
    return None


def _without_folder(name: object) -> str:
    """Return the name of a file without its folders, which can be private; ids stay as they are."""
    text = str(name)
    is_path = text.startswith(("/", "~", ".")) or Path(text).suffix in _DATA_SUFFIXES
    return Path(text).name if is_path else text


def _quoted(word: object) -> str:
    return shlex.quote(escape.visible(word))
