"""The figures of a report, checked against their own counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from textadv.errors import DataError, shown

__all__ = ["AttackRow", "Audit", "EmbeddingRow", "Figures", "Share"]

VERDICTS = ("SUPPORTED", "SUPPORTED WITH FLAGS", "NOT SUPPORTED", "INCONCLUSIVE")


@dataclass(frozen=True)
class Share:
    """A share `k / n` of the examples, with its 95 % Wilson interval."""

    k: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """Return the interval."""
        from textadv.metrics import wilson_interval

        return wilson_interval(self.k, self.n)

    @property
    def count(self) -> str:
        """Return `k/n`."""
        return f"{self.k}/{self.n}"

    @property
    def percent(self) -> str:
        """Return the share and its interval in percent, as Markdown."""
        low, high = self.interval
        return f"{100 * self.k / self.n:.1f} % \\[{100 * low:.1f}, {100 * high:.1f}\\]"

    def arguments(self) -> dict[str, Any]:
        """Return what the metadata says beside the value."""
        interval = [round(bound, 4) for bound in self.interval]
        return {"num_examples": self.n, "num_correct": self.k, "interval_95": interval}


@dataclass(frozen=True, kw_only=True)
class AttackRow:
    """One attack of the report; `counts` is empty when the report has none."""

    name: str
    share: Share
    counts: Mapping[str, int]
    query_budget: int | None
    mean_queries: float | None
    config_hash: str

    @property
    def flipped(self) -> str:
        """Return flipped / attacked."""
        flipped = self.counts.get("flipped", 0)
        return f"{flipped}/{flipped + self.counts.get('survived', 0)}" if self.counts else ""

    @property
    def unresolved(self) -> int:
        """Return how many examples ended without a result."""
        return self.counts.get("unresolved", 0)


@dataclass(frozen=True, kw_only=True)
class EmbeddingRow:
    """Accuracy under one perturbation in embedding space, with the settings that were recorded."""

    name: str
    share: Share
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The verdict of the audit, and the rules that did not pass."""

    verdict: str
    num_rules: int
    num_examples: int
    open: tuple[Mapping[str, str], ...]


class Figures:
    """Read a `report.json`; what it does not hold stays empty.

    Args:
        values: The parsed file.

    Raises:
        DataError: A rate that is no share of its examples, counts that do not add up, or a value of
            another type.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        try:
            self._read(values)
        except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            problem = f"{type(error).__name__}: {error}"
            raise DataError(
                "report.json", got=shown(problem), expected="the fields of a report"
            ) from None

    def _read(self, values: Mapping[str, Any]) -> None:
        self.data = str(values.get("data") or "unnamed data")
        self.n = int(values["num_examples"])
        self.seed = None if values.get("seed") is None else int(values["seed"])
        clean, worst = values.get("clean_accuracy"), values.get("worst_case")
        self.clean = None if clean is None else self._share("clean_accuracy", clean)
        self.worst = self._share("worst_case", worst["accuracy"]) if worst else None
        attacks = values.get("attacks") or {}
        self.attacks = [self._attack(str(name), row) for name, row in attacks.items()]
        rows = values.get("embedding") or {}
        named = rows.items() if isinstance(rows, Mapping) else [(row["name"], row) for row in rows]
        self.embedding = [self._embedding(str(name), row) for name, row in named]
        self.audit = self._audit(values["audit"]) if values.get("audit") else None

    def _share(self, where: str, rate: float, n: int | None = None) -> Share:
        n = self.n if n is None else n
        k = round(rate * n)
        if n < 1 or not 0 <= k <= n or abs(k - rate * n) > 0.01:
            raise DataError(
                f"report.json: {shown(where)[1:-1]}",
                got=f"{rate} of {n} examples",
                expected="a share of the examples",
            )
        return Share(k, n)

    def _attack(self, name: str, row: Mapping[str, Any]) -> AttackRow:
        share = self._share(f"attacks.{name}", row["accuracy_under_attack"])
        counts = {str(key): int(value) for key, value in (row.get("counts") or {}).items()}
        if counts and (sum(counts.values()) != self.n or counts.get("survived", 0) != share.k):
            raise DataError(
                f"report.json: attacks.{shown(name)[1:-1]}.counts",
                got=shown(counts, 200),
                expected=f"{share.k} survived, {self.n} in all",
            )
        budget, queries = row.get("query_budget"), row.get("mean_queries")
        return AttackRow(
            name=name,
            share=share,
            counts=counts,
            query_budget=None if budget is None else int(budget),
            mean_queries=None if queries is None else float(queries),
            config_hash=str(row.get("config_hash") or ""),
        )

    @staticmethod
    def _audit(values: Mapping[str, Any]) -> Audit:
        rows = [
            {key: str(row.get(key) or "") for key in ("rule", "title", "outcome", "figure")}
            for row in values["findings"]
        ]
        if values["verdict"] not in VERDICTS:
            raise DataError(
                "report.json: audit.verdict",
                got=shown(values["verdict"]),
                expected=f"one of {', '.join(VERDICTS)}",
            )
        return Audit(
            verdict=values["verdict"],
            num_rules=len(rows),
            num_examples=int(values.get("num_examples") or 0),
            open=tuple(row for row in rows if row["outcome"] != "PASS"),
        )

    def _embedding(self, name: str, row: Mapping[str, Any]) -> EmbeddingRow:
        n = int(row.get("num_examples") or self.n)
        kinds: dict[str, type] = {
            **{"norm": str, "scope": str, "epsilon": float, "num_steps": int},
            "mean_token_norm": float,
        }
        settings = {key: kind(row[key]) for key, kind in kinds.items() if row.get(key) is not None}
        share = self._share(f"embedding.{name}", row["accuracy"], n)
        return EmbeddingRow(name=name, share=share, settings=settings)
