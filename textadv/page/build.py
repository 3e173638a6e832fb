"""Put the page together: style, script, plots and data in one file that asks for nothing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from textadv.card.escape import visible
from textadv.compare import compare_results
from textadv.details import with_details
from textadv.errors import ConfigError, DataError
from textadv.metrics import accuracy_under_attack, outcome_counts
from textadv.page.data import examples_json
from textadv.page.plots import legend, line_plot, scatter_plot
from textadv.page.view import view
from textadv.report import RobustnessReport
from textadv.results import WORST_CASE, Results, group_title, load_results
from textadv.statistics import spread, worst_statuses

__all__ = ["ReportFiles", "build_page", "write_report"]

MOST_LINES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """What `write_report` wrote, and the report of the first run."""

    html: Path
    markdown: Path
    json: Path
    report: RobustnessReport

    def __str__(self) -> str:
        return "\n".join(f"report: {path}" for path in (self.html, self.markdown, self.json))


def write_report(
    runs: Sequence[str | Path], html: str | Path | None = None, *, encoder: str | None = None
) -> ReportFiles:
    """Write the page of a run, compared with others if more are given.

    `report.json` and `report.md` of the first run are written again, with the same figures as the
    page.

    Args:
        runs: Directories of evaluations; the first is the one the page is about.
        html: The file to write; `report.html` in the first directory by default.
        encoder: Sentence encoder for the similarity of changed texts, where it was not measured.

    Raises:
        DataError: A directory without a report or records, or with damaged ones.
        ResourceError: No matplotlib.
    """
    if not runs:
        raise ConfigError("report", got="no run", expected="the directory of an evaluation")
    found = [load_results(run) for run in runs]
    report = with_details(found[0], encoder)
    found[0] = dataclasses.replace(found[0], report=report)
    folder = Path(runs[0]) if Path(runs[0]).is_dir() else Path(runs[0]).parent
    target = Path(html) if html is not None else folder / "report.html"
    page = build_page(found, label_names=_label_names(folder, report.model))
    partial = target.with_name(target.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(page, encoding="utf-8")
    partial.replace(target)
    json_file, markdown = report.save(folder)
    return ReportFiles(html=target, markdown=markdown, json=json_file, report=report)


def build_page(runs: Sequence[Results], *, label_names: Mapping[int, str] | None = None) -> str:
    """Return the page as one HTML document.

    Args:
        runs: The run the page is about, then those it is compared with.
        label_names: Names of the classes.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    main = runs[0]
    if main.report.details is None:
        main = dataclasses.replace(main, report=with_details(main))
    names = dict(label_names or {})
    style, script = (_package_file(name) for name in ("report.css", "report.js"))
    environment = Environment(
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    template = environment.from_string(_package_file("report.html.j2"))
    values: dict[str, Any] = {
        "policy": _policy(style, script),
        "style": Markup(style),
        "script": Markup(script),
        "records": Markup(examples_json(main, names)),
        "main": view(main, names),
        **_curves([main, *runs[1:]]),
        **_several([main, *runs[1:]]),
    }
    return template.render(values)


def _shown(value: Any) -> Any:
    """Escape what shows nothing, half characters too; keep numbers and percent signs together."""
    if type(value) is not str:
        return value
    lines = (visible(line, limit=None) for line in value.split("\n"))
    return "\n".join(lines).replace(" %", "\u00a0%")


def _package_file(name: str) -> str:
    return files("textadv.page").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Allow this style sheet and this script, and nothing else: no request leaves the page."""

    def digest(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _curves(runs: Sequence[Results]) -> dict[str, Any]:
    from markupsafe import Markup

    main = runs[0]
    radius_runs = [run for run in runs if run.report.embedding]
    radius_lines = [_radius_line(run.report) for run in radius_runs]
    details = main.report.details or {}
    n = main.report.num_examples
    tried = {one.attack for one in main.records if one.status in ("flipped", "survived")}
    curves = [(name, line) for name, line in details["query_curves"].items() if name in tried]
    curves = curves[:MOST_LINES]
    norms = [row.get("mean_token_norm") for row in main.report.embedding.values()]
    return {
        "radius_plot": Markup(
            line_plot(
                radius_lines,
                label="Accuracy against the radius of the perturbation",
                xlabel="radius, l2, embedding units",
                prefix="radius",
            )
        )
        if radius_lines
        else "",
        "radius_legend": legend([run.name for run in radius_runs]),
        "token_norm": f"{norms[0]:.2f}" if norms and norms[0] is not None else "",
        "query_plot": Markup(
            line_plot(
                [[(budget, k, n) for budget, k in points] for _, points in curves],
                label="Accuracy against the query budget",
                xlabel="queries per text",
                prefix="queries",
                logarithmic=True,
                steps=True,
            )
        )
        if curves
        else "",
        "query_legend": legend([name for name, _ in curves]),
    }


def _radius_line(report: RobustnessReport) -> list[tuple[float, int, int]]:
    n = report.num_examples
    points = [(0.0, round(report.clean_accuracy * n), n)]
    for row in report.embedding.values():
        if row.get("norm") == "l2" and row.get("epsilon") is not None:
            count = int(row.get("num_examples") or n)
            points.append((float(row["epsilon"]), round(row["accuracy"] * count), count))
    return sorted(points)


def _several(runs: Sequence[Results]) -> dict[str, Any]:
    """Return the comparison of several runs, with what cannot be compared said in words."""
    from markupsafe import Markup

    empty: dict[str, Any] = {
        "runs": [],
        "tradeoff": "",
        "comparisons": [],
        "seeds": None,
        "runs_caption": "",
    }
    if len(runs) < 2:
        return empty
    points, rows = [], []
    for number, run in enumerate(runs):
        n = run.report.num_examples
        clean = round(run.report.clean_accuracy * n)
        standing = _standing(run)
        points.append(((clean, n), (standing, n)))
        rows.append(
            {
                "letter": chr(ord("A") + number % 26),
                "shape": legend([run.name] * (number + 1))[number]["shape"],
                "model": visible(run.name),
                "clean": f"{100 * clean / n:.1f} %",
                "headline": f"{100 * standing / n:.1f} %",
            }
        )
    group = runs[0].headline
    caption = group if group == WORST_CASE else f"under {group_title(group)}" if group else "clean"
    return {
        **empty,
        "runs": rows,
        "runs_caption": visible(caption, 60),
        "tradeoff": Markup(
            scatter_plot(
                points,
                label="Clean accuracy against accuracy under attack, one point per model",
                xlabel="clean accuracy, %",
                ylabel="accuracy under attack, %",
                prefix="models",
            )
        ),
        "comparisons": [
            _compared(runs[0], run, row["letter"])
            for row, run in zip(rows[1:], runs[1:], strict=True)
        ],
        "seeds": _seeds(runs),
    }


def _compared(first: Results, second: Results, letter: str) -> str:
    """Return the verdict on two runs, by the letters they have in the table."""
    try:
        found = compare_results(first, second)
    except DataError as error:
        return visible(f"A and {letter} are not compared: {error}", 600)
    return f"A and {letter}: {dataclasses.replace(found, first='A', second=letter).verdict}"


def _standing(run: Results) -> int:
    if run.headline is None:
        return sum(run.right.values())
    return list(run.statuses(run.headline).values()).count("survived")


def _seeds(runs: Sequence[Results]) -> dict[str, Any] | None:
    """Return mean and range over runs of one model with several seeds, and their worst case."""
    group = runs[0].headline
    if len({run.name for run in runs}) > 1 or group is None:
        return None
    if any(run.groups != runs[0].groups or run.labels != runs[0].labels for run in runs):
        return None
    attacks = runs[0].groups[group]
    together = worst_statuses(
        record for run in runs for record in run.records if record.attack in attacks
    )
    counts = outcome_counts(together.values(), len(together))

    def words(values: list[float]) -> str:
        found = spread(values)
        low, high = 100 * found.low, 100 * found.high
        return f"mean {100 * found.mean:.1f} %, {low:.1f} to {high:.1f} %"

    return {
        "count": len(runs),
        "clean": words([run.report.clean_accuracy for run in runs]),
        "headline": words([_standing(run) / run.report.num_examples for run in runs]),
        "worst": f"{100 * accuracy_under_attack(counts):.1f} %",
    }


def _label_names(folder: Path, model: str) -> dict[int, str]:
    """Return the names of the classes from the model beside the report, or the one it names."""
    for place in (folder / "model", Path(model)):
        try:
            config = json.loads((place / "config.json").read_text(encoding="utf-8"))
            return {int(key): str(name) for key, name in config["id2label"].items()}
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            continue
    return {}
