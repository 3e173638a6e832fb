"""What the page says about one run: the report's figures as words, in the order they are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from textadv.card.escape import visible
from textadv.metrics import wilson_interval
from textadv.page.confusion import matrices
from textadv.report import PRELIMINARY_BELOW, AttackResult
from textadv.results import Results, group_title

__all__ = ["VERDICT_KINDS", "view"]

VERDICT_KINDS = {
    "SUPPORTED": "good",
    "SUPPORTED WITH FLAGS": "warn",
    "INCONCLUSIVE": "warn",
    "NOT SUPPORTED": "bad",
}
OUTCOME_KINDS = {"PASS": "good", "FLAG": "warn", "FAIL": "bad", "INCONCLUSIVE": "plain"}
NOT_AUDITED = "NOT AUDITED"
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


def view(results: Results, label_names: Mapping[int, str]) -> dict[str, Any]:
    """Return what the template shows of a run; its details must have been worked out."""
    report = results.report
    n = report.num_examples
    found, cascade, audit = report.details or {}, report.cascade, report.audit
    clean = _share(round(report.clean_accuracy * n), n)
    headline = _headline(results)
    verdict = audit["verdict"] if audit else NOT_AUDITED
    names = [visible(label_names.get(row["label"], row["label"]), 40) for row in found["classes"]]
    rows = list(_attacks(results))
    return {
        "model": visible(results.name),
        "data": visible(_short(report.data)),
        "n": f"{n:,}",
        "preliminary": n < PRELIMINARY_BELOW,
        "seed": report.seed,
        "verdict": {"text": verdict, "kind": VERDICT_KINDS.get(verdict, "plain")},
        "clean": {"text": f"{clean['percent']} %"},
        "headline": headline,
        "scale": [
            _scale("clean", clean, 40, "s0"),
            _scale(headline["short"], headline, 100, "s1"),
        ],
        "tiles": list(_tiles(results, clean)),
        "cascade": cascade,
        "coverage": _coverage(results),
        "attacks_lead": _attacks_lead(cascade),
        "attacks": rows,
        "similarity_note": _similarity_note(results),
        "tracks": list(_tracks(cascade, n)),
        "any_not_tried": any(row["not_tried"] for row in cascade["tracks"].values())
        if cascade
        else False,
        "not_run": [(visible(k), visible(v, 400)) for k, v in cascade["not_run"].items()]
        if cascade
        else [],
        "group": visible(group_title(found["group"])) if found["group"] else "",
        "classes": [
            {
                "name": name,
                "n": row["num_examples"],
                "clean": _rate(row["right"], row["num_examples"]),
                **_share(row["standing"], row["num_examples"]),
            }
            for name, row in zip(names, found["classes"], strict=True)
        ],
        "matrices": list(matrices(found["confusion"], names)),
        "audit": [
            {
                **{key: visible(row[key], 600) for key in ("rule", "title", "figure", "advice")},
                "outcome": row["outcome"],
                "kind": OUTCOME_KINDS[row["outcome"]],
            }
            for row in (audit["findings"] if audit else ())
        ],
        "commands": [visible(command, 1000) for command in report.commands],
        "facts": list(_facts(results)),
        "settings": "\n".join(
            f"{visible(name)} {one.config_hash} "
            + visible(json.dumps(dict(one.config), sort_keys=True), 4000)
            for name, one in report.attacks.items()
        ),
    }


def _share(k: int, n: int) -> dict[str, Any]:
    """Return a share as words, and as places on a scale of 100."""
    low, high = (100 * bound for bound in wilson_interval(k, n))
    value = 100 * k / n if n else 0.0
    return {
        "percent": f"{value:.1f}" if n else "-",
        "count": f"{k:,} of {n:,}",
        "interval": f"{low:.1f} to {high:.1f} %",
        "value": value,
        "at": round(min(value, 99.4), 2),
        "low": round(low, 2),
        "width": round(high - low, 2),
    }


def _headline(results: Results) -> dict[str, Any]:
    report, group = results.report, results.headline
    if group is None:
        share = _share(round(report.clean_accuracy * report.num_examples), report.num_examples)
        return {**share, "caption": "clean accuracy; no text attack was run", "short": "clean"}
    standing = sum(status == "survived" for status in results.statuses(group).values())
    if report.cascade:
        title = group_title(group)
        caption, short = f"accuracy under attack, worst case over {title}", f"under {title}"
    elif len(results.groups[group]) > 1:
        over = ", ".join(results.groups[group])
        caption, short = f"accuracy under attack, worst case over {over}", "worst case"
    else:
        caption, short = f"accuracy under attack, {group}", f"under {group}"
    share = _share(standing, report.num_examples)
    return {**share, "caption": visible(caption), "short": visible(short, 40)}


def _coverage(results: Results) -> str:
    """Say what the headline of a cascade is about, and what it leaves out."""
    if results.report.cascade is None or results.headline is None:
        return ""
    main = results.report.cascade["headline"]
    missing = [track for track in main.get("all_tracks", ()) if track not in main["tracks"]]
    attacks = ", ".join(results.groups[results.headline])
    text = f"The headline counts {attacks} ({' and '.join(main['tracks'])})."
    return visible(text + (f" Not covered: {' and '.join(missing)}." if missing else ""), 1000)


def _short(data: str) -> str:
    """Return a file with the folder it is in, and anything else as it is."""
    parts = Path(data).parts
    return "/".join(parts[-2:]) if Path(data).suffix in SUFFIXES and len(parts) > 2 else data


def _scale(name: str, share: Mapping[str, Any], y: int, colour: str) -> dict[str, Any]:
    def place(value: float) -> float:
        return round(20 + 5.6 * value, 1)

    return {
        "name": name,
        "text": f"{share['percent']} %",
        "y": y,
        "colour": colour,
        "at": place(share["value"]),
        "low": place(share["low"]),
        "high": place(share["low"] + share["width"]),
    }


def _tiles(results: Results, clean: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    yield {
        "value": f"{clean['percent']} %",
        "name": f"clean accuracy: {clean['count']}, {clean['interval']}",
    }
    group = results.headline
    if group is not None:
        statuses = list(results.statuses(group).values())
        flipped = statuses.count("flipped")
        attacked = flipped + statuses.count("survived")
        yield {"value": _rate(flipped, attacked), "name": "of those right before are flipped"}
        unresolved = statuses.count("unresolved")
        yield {"value": f"{unresolved:,}", "name": "unresolved; none of them counts as robust"}
    report = results.report
    asked = [record.num_queries for record in results.records if record.attack in report.attacks]
    yield {
        "value": f"{sum(asked):,}",
        "name": f"queries by {len(report.attacks)} attack{'s' * (len(report.attacks) != 1)}",
    }


def _attacks_lead(cascade: Mapping[str, Any] | None) -> str:
    base = "Accuracy is over all examples, success over those right before. "
    if cascade is None or cascade["mode"] == "individual":
        return base + "Every attack was run on every example."
    return base + (
        "Examples that one attack flips are not tried on by the next of its group: accuracy is "
        "that after the attack, everything else is over the examples it was tried on."
    )


def _attacks(results: Results) -> Iterator[dict[str, Any]]:
    report = results.report
    tracks = report.cascade["tracks"] if report.cascade else {}
    for name, result in report.attacks.items():
        track = next((key for key, row in tracks.items() if name in row["attacks"]), "")
        counts, quality = result.counts, result.quality
        yield {
            "name": visible(name),
            "track": track,
            **_share(counts["survived"], report.num_examples),
            "success": _percent(result.attack_success_rate),
            "queries": f"{_number(result.mean_queries)} / {_number(result.median_queries)}",
            "budget": "none" if result.query_budget is None else f"{result.query_budget:,}",
            "counts": f"{counts['flipped']} / {counts['survived']} / {counts['unresolved']}",
            "reasons": _reasons(result),
            "idle": not any(
                record.attack == name and record.status != "wrong_before"
                for record in results.records
            ),
            "changed": bool(quality),
            "words": _percent(result.modified_word_rate),
            "edits": _number(quality.get("edit_distance")),
            "similarity": f"{quality['similarity']:.2f} / {quality['similarity_p5']:.2f}"
            if "similarity" in quality
            else "-",
            "filtered": _filtered(quality),
        }


def _filtered(quality: Mapping[str, Any]) -> str:
    if "filtered" not in quality:
        return "-"
    low, high = quality["filtered_interval"]
    return f"{_percent(quality['filtered'])}, {100 * low:.1f} to {100 * high:.1f} %"


def _similarity_note(results: Results) -> str:
    for result in results.report.attacks.values():
        if "encoder" in result.quality:
            threshold, encoder = result.quality["threshold"], visible(result.quality["encoder"])
            return (
                f"Similarity is the cosine by {encoder}. The last column counts a flip only if "
                f"its text is at least {threshold} similar, and every other example as standing; "
                "it stands beside the accuracy above, never in its place."
            )
    return ""


def _reasons(result: AttackResult) -> str:
    return visible(
        ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in result.reasons.items())
    )


def _tracks(cascade: Mapping[str, Any] | None, n: int) -> Iterator[dict[str, Any]]:
    for name, row in (cascade["tracks"] if cascade else {}).items():
        missing = row["not_tried"]
        share = _share(row["counts"]["survived"], n)
        if missing:
            share["percent"] += f" to {100 * row['at_most']:.1f}"
            share["width"] = round(min(100 * row["at_most"], 100) - share["low"], 2)
            share["interval"] = f"{missing} not tried"
        yield {
            "name": name,
            **share,
            "not_tried": str(missing),
            "attacks": visible(", ".join(row["attacks"])),
        }


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    report = results.report
    yield "sample", f"{report.num_examples:,} examples, hash {report.data_hash or 'not recorded'}"
    yield "seed", str(report.seed)
    if report.cascade:
        yield "cascade", f"{report.cascade['name']}, parameters {report.cascade['hash']}"
    for name, version in report.versions.items():
        yield visible(name), visible(version)
    yield "records", f"{len(results.records):,}, in records.jsonl"


def _rate(k: int, n: int) -> str:
    return f"{100 * k / n:.1f} %" if n else "-"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
