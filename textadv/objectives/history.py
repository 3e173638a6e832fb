"""FAT: start each text's single step from the signs of its last perturbation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from textadv import norms
from textadv.embeddings import Batch, EmbeddingPort, Mode
from textadv.errors import ConfigError, DataError
from textadv.monitors import Monitor
from textadv.objectives.base import Objective, Term
from textadv.objectives.point import Point
from textadv.objectives.schedule import Schedule
from textadv.perturb import PGD, Perturbation
from textadv.sites import check_site

__all__ = ["FAT", "SignHistory", "packed_signs"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FAT(Objective):
    """Take one step from a start that points where the text's last attack went.

    The start is `U(0, 1) * sign(last) * sigma / sqrt(n * D)`; what is kept of the attack is one bit
    per entry and one norm, by example id, in `port.memory` (`history.*`).

    Args:
        perturbation: A `pgd` of one step with a random start, in l2 over the text.
        period: Attack at every period-th visit of a text; the visits between train on the last
            attack, rebuilt from signs and norm, at no extra cost.
        site: Where it is added; see `textadv.sites.find_site`.
        inner_mode: `"train"` climbs with dropout, `"eval"` without.
        epsilon_schedule: Ramps steps and start up from 0.

    Cost: 1.67 clean steps where it attacks, 1.0 where it does not.
    Known failure: it needs the same tokens for a text in every epoch, and refuses others.
    Source: Yang et al., Findings of NAACL 2025 (step 0.2, sigma 0.05, no ball).
    Deviations: one bit per entry is kept instead of a float, since the start uses signs only; the
    magnitude of a reused attack is spread evenly over its entries.
    """

    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: PGD(
            norm="l2", epsilon=None, step_size=0.2, num_steps=1, init="uniform", init_scale=0.05
        )
    )
    period: int = 1
    site: str = "word"
    inner_mode: Mode = "train"
    epsilon_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        check_site(self.site)
        if self.period < 1:
            raise ConfigError("period", got=str(self.period), expected="an integer >= 1")
        climb = self.perturbation
        if type(climb) is not PGD or climb.starts_at_zero or climb.norm != "l2":
            raise ConfigError(
                "fat: perturbation",
                got="another start or norm",
                expected="pgd in l2 with a random start, whose signs the history gives",
                fix="set norm: l2 and init: uniform",
            )

    @property
    def num_terms(self) -> int:
        """One."""
        return 1

    @property
    def cost(self) -> float:
        """The mean over a period."""
        attack = (2 * self.perturbation.num_steps + 3) / 3
        return (attack + self.period - 1) / self.period

    @property
    def keeps_memory(self) -> bool:
        """Yes: the history."""
        return True

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the adversarial loss at a new attack, or at the last one."""
        if "example_id" not in batch:
            raise DataError(
                "batch",
                got="no example_id",
                expected="the position of every text in the data: the history is kept by it",
                fix="let the collator add example_id (B,), or use another objective",
            )
        there = port.at(self.site)
        mask = there.editable(batch)
        history = SignHistory(port.memory, there.dim)
        ids = batch["example_id"].tolist()
        signs = history.signs(ids, mask).to(there.blank(batch).dtype)
        visits = history.visits(ids)
        note = {"ids": batch["example_id"]}
        monitor = Monitor("sequence")
        if all(visit % self.period for visit in visits):
            sizes = history.sizes(ids).to(signs)
            entries = signs.abs().flatten(1).sum(1).clamp_min(1)
            delta = signs * (sizes / entries.sqrt()).view(-1, 1, 1)
        else:
            drawn = self.perturbation.start(there.blank(batch), mask, generator)
            # A text that was never attacked has signs of 0 and keeps its own draw.
            start = torch.where(signs != 0, signs * drawn.abs(), drawn)
            delta = self.perturbation(
                there, batch, mode=self.inner_mode, z=start, monitor=monitor, generator=generator
            )
            note |= packed_signs(delta - start, mask)
        logits = there.logits(batch, delta)
        figures = Point(port=there, batch=batch, delta=delta, monitor=monitor).figures(
            batch, None, logits
        )
        figures.setdefault("skipped_fraction", torch.zeros((), device=logits.device))
        loss = there.loss(logits, batch).mean()
        port.notes.append(note)
        yield Term(loss=loss, name="adversarial", logits=logits, figures=figures)

    def remember(self, port: EmbeddingPort, notes: Sequence[Mapping[str, Tensor]]) -> None:
        """Count the visits, and keep the new attacks."""
        history = SignHistory(port.memory, port.at(self.site).dim)
        for note in filter(None, notes):
            history.add(note)


class SignHistory:
    """Signs and norms of past perturbations, by example id, as tensors in a dictionary.

    `history.bits` holds the signs of all examples end to end, eight entries a byte;
    `history.begin`, `history.tokens`, `history.norm` and `history.visits` have one row an example.

    Args:
        memory: The dictionary; tensors are added to it and replaced as they grow.
        dim: Width D of a token's perturbation.
    """

    def __init__(self, memory: dict[str, Tensor], dim: int) -> None:
        self.memory, self.dim = memory, dim
        self._rows = {
            "begin": torch.int64,
            "tokens": torch.int64,
            "norm": torch.float32,
            "visits": torch.int64,
        }
        memory.setdefault("history.bits", torch.empty(0, dtype=torch.uint8))
        memory.setdefault("history.used", torch.zeros(1, dtype=torch.int64))
        for name, dtype in self._rows.items():
            memory.setdefault(f"history.{name}", torch.empty(0, dtype=dtype))

    def signs(self, ids: list[int], mask: Tensor) -> Tensor:
        """Return the kept signs, (B, L, D) of -1 and 1, 0 for texts without a history.

        Raises:
            DataError: If a text has another number of tokens than when it was kept.
        """
        found = torch.zeros((*mask.shape, self.dim))
        chosen = mask.cpu()
        for row, (example, tokens) in enumerate(zip(ids, self._of("tokens", ids), strict=True)):
            if tokens == 0:
                continue
            self._check(example, tokens, int(chosen[row].sum()))
            found[row, chosen[row]] = self._read(example, tokens)
        return found.to(mask.device)

    def sizes(self, ids: list[int]) -> Tensor:
        """Return the norm of each text's last perturbation, (B,)."""
        return torch.tensor(self._of("norm", ids))

    def visits(self, ids: list[int]) -> list[int]:
        """Return how often each text has been seen."""
        return self._of("visits", ids)

    def add(self, note: Mapping[str, Tensor]) -> None:
        """Count one visit of the texts `ids`, and keep their `packed_signs` if there are any."""
        ids = note["ids"].tolist()
        self._grow(ids)
        self.memory["history.visits"].index_add_(0, torch.tensor(ids), torch.ones(len(ids)).long())
        if "bits" not in note:
            return
        bits, end = note["bits"].cpu(), 0
        for example, tokens, size in zip(
            ids, note["tokens"].tolist(), note["norms"].tolist(), strict=True
        ):
            known = int(self.memory["history.tokens"][example])
            if known:
                self._check(example, known, tokens)
            begin, end = end, end - (-tokens * self.dim // 8)
            room = int(self.memory["history.begin"][example]) if known else self._room(end - begin)
            self.memory["history.begin"][example] = room
            self.memory["history.tokens"][example] = tokens
            self.memory["history.norm"][example] = size
            self.memory["history.bits"][room : room + end - begin] = bits[begin:end]

    def _of(self, name: str, ids: list[int]) -> list[Any]:
        """Return one column of the rows of `ids`, 0 for texts that were never seen."""
        column = self.memory[f"history.{name}"]
        return [column[example].item() if example < len(column) else 0 for example in ids]

    def _read(self, example: int, tokens: int) -> Tensor:
        begin, count = int(self.memory["history.begin"][example]), tokens * self.dim
        packed = self.memory["history.bits"][begin : begin + -(-count // 8)]
        return (_unpack(packed, count).float() * 2 - 1).view(tokens, self.dim)

    def _grow(self, ids: list[int]) -> None:
        missing = max(ids) + 1 - len(self.memory["history.norm"])
        if missing > 0:
            missing = max(missing, len(self.memory["history.norm"]))
            for name, dtype in self._rows.items():
                key = f"history.{name}"
                self.memory[key] = torch.cat([self.memory[key], torch.zeros(missing, dtype=dtype)])

    def _room(self, size: int) -> int:
        """Return where `size` bytes at the end of the signs begin, after making room for them."""
        begin = int(self.memory["history.used"])
        self.memory["history.used"][0] = begin + size
        bits = self.memory["history.bits"]
        if begin + size > len(bits):
            more = torch.zeros(max(size, len(bits)), dtype=torch.uint8)
            self.memory["history.bits"] = torch.cat([bits, more])
        return begin

    def _check(self, example: int, kept: int, found: int) -> None:
        if kept != found:
            raise DataError(
                f"history of example {example}",
                got=f"{found} perturbable tokens",
                expected=f"{kept}, as in the epochs before",
                fix="keep texts and tokenisation the same, or use another objective",
            )


def packed_signs(delta: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return what is kept of perturbations (B, L, D): token counts, norms, and whole bytes a text.

    Returns:
        `tokens` (B,) int64, `norms` (B,) float32, `bits` (N,) uint8 of all texts in a row.
    """
    chosen, positive = mask.cpu(), (delta > 0).cpu()
    rows = [_pack(positive[row, chosen[row]].flatten()) for row in range(len(delta))]
    sizes = norms.norm(delta, "l2", "sequence").cpu().float()
    return {"tokens": chosen.sum(1), "norms": sizes, "bits": torch.cat(rows)}


def _pack(bits: Tensor) -> Tensor:
    """Return booleans as bytes, eight in each."""
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -len(bits) % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8)


def _unpack(packed: Tensor, count: int) -> Tensor:
    """Return the first `count` booleans in bytes."""
    bits = (packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[:count].bool()
