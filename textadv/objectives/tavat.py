"""TA-VAT: FreeLB with a perturbation per token that is remembered by word."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from textadv import norms
from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.objectives.freelb import FreeLB
from textadv.perturb import Perturbation, TokenAware
from textadv.seeding import torch_generator

__all__ = ["TAVAT"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TAVAT(FreeLB):
    """Climb with a text part and a token part, which starts from the mean of the word's past ones.

    The vocabulary table is in `port.memory` (`vocabulary.eta`, `vocabulary.count`): it is saved in
    checkpoints, and is no part of the model.

    Args:
        perturbation: `token-aware`; `num_steps` is K.
        site: `"word"`.
        lambda_consistency: As in `freelb`.
        epsilon_schedule: Ramps radius, steps and start up from 0.

    Cost: K clean steps.
    Known failure: the table is as large as the embedding matrix.
    Source: Li & Qiu, AAAI 2021, algorithm 1 (BERT-base on SST-2: step 0.05, K 2, sigma 0.2,
    epsilon 0.5).
    Deviations: every point counts 1/K (the code leaves it out); `eta` is normalised per text, not
    over the batch; the table keeps a running mean of `eta`, where the code adds without bound, and
    moves once per optimizer step.
    """

    perturbation: Perturbation = dataclasses.field(default_factory=TokenAware)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.perturbation, TokenAware):
            raise ConfigError("tavat: perturbation", got="another", expected="token-aware")
        if self.site != "word":
            raise ConfigError("tavat: site", got=self.site, expected="'word': it is kept by word")

    @property
    def keeps_memory(self) -> bool:
        """Yes: the vocabulary table."""
        return True

    def start(
        self, port: EmbeddingPort, batch: Batch, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return `delta` from noise beside `eta` from the table, in the ball together."""
        if not port.on_words:
            raise ConfigError("tavat", got=f"site {port.site!r}", expected="the words")
        climb = self._climb
        delta, _ = climb.start(port.blank(batch), mask, generator).chunk(2, -1)
        table = self._table(port)
        eta = torch.where(mask.unsqueeze(-1), table[batch["input_ids"]].to(delta.dtype), 0.0)
        size = norms.norm(eta, "l2", "sequence").clamp_min(norms.TINY)
        return climb.inside(delta, eta / size.view(-1, 1, 1), mask)

    def finish(self, port: EmbeddingPort, batch: Batch, z: Tensor, mask: Tensor) -> None:
        """Note the sum of `eta` over the occurrences of each word, and their number."""
        eta = z.chunk(2, -1)[1][mask].float()
        words, place = batch["input_ids"][mask].unique(return_inverse=True)
        total = eta.new_zeros(len(words), eta.shape[-1]).index_add_(0, place, eta)
        seen = torch.zeros_like(words).index_add_(0, place, torch.ones_like(place))
        port.notes.append({"words": words, "total": total, "seen": seen})

    def remember(self, port: EmbeddingPort, notes: Sequence[Mapping[str, Tensor]]) -> None:
        """Move the table's rows to the running mean of `eta` over all occurrences of each word."""
        table, count = self._table(port), port.memory["vocabulary.count"]
        total, seen = torch.zeros_like(table), torch.zeros_like(count)
        for note in filter(None, notes):
            words = note["words"].to(table.device)
            total.index_add_(0, words, note["total"].to(table))
            seen.index_add_(0, words, note["seen"].to(count))
        rows = seen > 0
        after = count + seen
        table[rows] = (table[rows] * count[rows, None] + total[rows]) / after[rows, None]
        count.copy_(after)

    @property
    def _climb(self) -> TokenAware:
        if not isinstance(self.perturbation, TokenAware):
            raise TypeError("TAVAT climbs with TokenAware")
        return self.perturbation

    def _table(self, port: EmbeddingPort) -> Tensor:
        """Return the table, which starts as noise of FreeLB's scale, the same on each process."""
        if "vocabulary.eta" not in port.memory:
            size = int(port.model.config.get_text_config().vocab_size)
            scale = (self._climb.init_scale or 1.0) / port.dim**0.5
            table = torch.empty(size, port.dim)
            drawn = table.uniform_(-scale, scale, generator=torch_generator("cpu", 0, "vocabulary"))
            port.memory["vocabulary.eta"] = drawn
            port.memory["vocabulary.count"] = torch.zeros(size, device=port.device)
        for name in ("vocabulary.eta", "vocabulary.count"):
            port.memory[name] = port.memory[name].to(port.device)
        return port.memory["vocabulary.eta"]
