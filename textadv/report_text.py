"""The parts of `report.md` about cascade, quality, classes, query budgets, audit and commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from textadv.errors import shown

if TYPE_CHECKING:
    from textadv.report import RobustnessReport

__all__ = ["cell", "judgement_lines", "opening_lines", "percent"]


def opening_lines(report: RobustnessReport) -> list[str]:
    """Return the audit's verdict and, for a cascade, the one figure that it is about."""
    lines: list[str] = []
    if report.audit:
        open_rules = [row for row in report.audit["findings"] if row["outcome"] != "PASS"]
        named = ", ".join(f"{cell(row['rule'])} {cell(row['outcome'])}" for row in open_rules)
        lines += ["", f"Audit: **{cell(report.audit['verdict'])}**" + (named and f" ({named})")]
    if report.cascade:
        lines += ["", _headline(report.cascade, report.num_examples)]
    return lines


def judgement_lines(report: RobustnessReport) -> list[str]:
    """Return the lines for what a report holds beside attacks and embeddings."""
    lines: list[str] = []
    if report.cascade:
        lines += ["", "## Tracks", "", *_cascade(report.cascade)]
    qualities = {name: one.quality for name, one in report.attacks.items() if one.quality}
    if qualities:
        lines += ["", "## Changed texts", "", *_quality(qualities)]
    if report.details:
        lines += ["", "## Classes", "", *_classes(report.details)]
        lines += ["", "## Query budgets", ""]
        lines += _curves(report.details["query_curves"], report.num_examples)
    if report.audit:
        lines += ["", "## Audit", "", *_findings(report.audit)]
    if report.data_hash or report.commands:
        lines += ["", "## Repeat"]
    if report.data_hash:
        lines += ["", f"Sample: `{cell(report.data_hash)}`."]
    if report.commands:
        lines += ["", *(f"    {shown(command, 1000)[1:-1]}" for command in report.commands)]
    return lines


def _findings(audit: Mapping[str, Any]) -> Iterator[str]:
    probed = f", on {audit['num_examples']} examples" if "num_examples" in audit else ""
    yield f"Checks that could have shown these figures wrong{probed}:"
    yield ""
    yield "| rule | check | outcome | figure | advice |"
    yield "|---|---|---|---|---|"
    for row in audit["findings"]:
        parts = [row[key] for key in ("rule", "title", "outcome", "figure", "advice")]
        yield "| " + " | ".join(map(cell, parts)) + " |"


def _headline(cascade: Mapping[str, Any], n: int) -> str:
    main = cascade["headline"]
    figure = cascade["groups"][main["group"]]
    low, high = figure["interval"]
    every = "every attack" if len(figure["attacks"]) > 1 else "the one attack"
    text = (
        f"Accuracy under attack: **{percent(figure['accuracy'])}** "
        f"({figure['counts']['survived']}/{n}) [{100 * low:.1f}, {100 * high:.1f}] survive {every} "
        f"of the {_tracks(main['tracks'])} in cascade {cell(cascade['name'])}."
    )
    covered = set(main["tracks"])
    missing = [track for track in main.get("all_tracks", ()) if track not in covered]
    return text + (f" Not covered: the {_tracks(missing)}." if missing else "")


def _tracks(names: Sequence[str]) -> str:
    listed = " and ".join(map(cell, names))
    return f"track{'s' * (len(names) != 1)} {listed}"


def _cascade(cascade: Mapping[str, Any]) -> Iterator[str]:
    alone = cascade["mode"] == "individual"
    yield (
        f"Cascade {cell(cascade['name'])}, parameters `{cell(cascade['hash'])}`, "
        + ("every attack on every example." if alone else "only survivors go on.")
    )
    yield ""
    yield "| track | accuracy under attack, at least | at most | not tried | attacks |"
    yield "|---|---|---|---|---|"
    for name, track in cascade["tracks"].items():
        low, high = track["interval"]
        yield (
            f"| {cell(name)} | {percent(track['accuracy'])} "
            f"({track['counts']['survived']}/{sum(track['counts'].values())}) "
            f"[{100 * low:.1f}, {100 * high:.1f}] | {percent(track['at_most'])} "
            f"| {track['not_tried']} | {', '.join(map(cell, track['attacks']))} |"
        )
    for name, reason in cascade["not_run"].items():
        yield f"\nNot run: {cell(name)}: {cell(reason)}"


def _quality(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    encoder = next((row["encoder"] for row in rows.values() if "encoder" in row), None)
    yield "| attack | edit distance | similarity, mean / 5 % | accuracy, similar flips only |"
    yield "|---|---|---|---|"
    for name, row in rows.items():
        mean, low = (f"{row[key]:.3f}" if key in row else "-" for key in _SIMILARITY)
        interval = row.get("filtered_interval")
        span = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
        yield (
            f"| {cell(name)} | {row['edit_distance']:.1f} | {mean} / {low} "
            f"| {percent(row.get('filtered'))}{span} |"
        )
    if encoder is not None:
        threshold = next(row["threshold"] for row in rows.values() if "threshold" in row)
        yield f"\nSimilar: a cosine of {threshold} or more by {cell(encoder)}."


_SIMILARITY = ("similarity", "similarity_p5")


def _classes(found: Mapping[str, Any]) -> Iterator[str]:
    group = f", {cell(found['group'])}" if found["group"] else ""
    yield f"| label | examples | right | right under attack{group} |"
    yield "|---|---|---|---|"
    for row in found["classes"]:
        n = row["num_examples"]
        low, high = row["interval"]
        share = percent(row["standing"] / n if n else None)
        yield (
            f"| {row['label']} | {n} | {row['right']} | {share} ({row['standing']}/{n}) "
            f"[{100 * low:.1f}, {100 * high:.1f}] |"
        )
    for name, title in (("clean", "Clean"), ("under_attack", "Under attack")):
        rows: Sequence[Sequence[int]] = found["confusion"][name]
        yield ""
        yield f"{title}, gold label by predicted label:"
        yield ""
        yield "| gold | " + " | ".join(map(str, range(len(rows)))) + " |"
        yield "|---|" + "---|" * len(rows)
        for label, counts in enumerate(rows):
            yield f"| {label} | " + " | ".join(map(str, counts)) + " |"


def _curves(curves: Mapping[str, Sequence[Sequence[int]]], n: int) -> Iterator[str]:
    yield "| attack | examples that stand, by query budget |"
    yield "|---|---|"
    for name, points in curves.items():
        shares = ", ".join(f"{budget}: {standing}/{n}" for budget, standing in points)
        yield f"| {cell(name)} | {shares} |"


def percent(value: float | None) -> str:
    """Return a share in percent."""
    return "-" if value is None else f"{100 * value:.1f} %"


def cell(value: object) -> str:
    """Return text that stays one harmless cell: no markup, no line breaks, nothing invisible."""
    text = shown(str(value), 400)[1:-1]
    for character in "\\`*_[]<>|":
        text = text.replace(character, "\\" + character if character != "<" else "&lt;")
    return text
