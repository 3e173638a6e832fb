"""TA-VAT: FreeLB with a perturbation per token that is remembered by word."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from textadv import norms
from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.objectives.freelb import FreeLB
from textadv.perturb import Perturbation, TokenAware

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
    over the batch; the table keeps a running mean of `eta`, where the code adds without bound.
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
        table = self._table(port, generator)
        eta = torch.where(mask.unsqueeze(-1), table[batch["input_ids"]].to(delta.dtype), 0.0)
        size = norms.norm(eta, "l2", "sequence").clamp_min(norms.TINY)
        return climb.inside(delta, eta / size.view(-1, 1, 1), mask)

    def finish(self, port: EmbeddingPort, batch: Batch, z: Tensor, mask: Tensor) -> None:
        """Move the table's rows to the running mean of `eta` over all occurrences of each word."""
        eta = z.chunk(2, -1)[1][mask].float()
        ids = batch["input_ids"][mask]
        table, count = port.memory["vocabulary.eta"], port.memory["vocabulary.count"]
        total = torch.zeros_like(table).index_add_(0, ids, eta)
        seen = torch.zeros_like(count).index_add_(0, ids, torch.ones_like(ids, dtype=count.dtype))
        rows = seen > 0
        after = count + seen
        table[rows] = (table[rows] * count[rows, None] + total[rows]) / after[rows, None]
        count.copy_(after)

    @property
    def _climb(self) -> TokenAware:
        if not isinstance(self.perturbation, TokenAware):
            raise TypeError("TAVAT climbs with TokenAware")
        return self.perturbation

    def _table(self, port: EmbeddingPort, generator: torch.Generator) -> Tensor:
        """Return the table, which starts as noise of FreeLB's scale per token."""
        if "vocabulary.eta" not in port.memory:
            size = int(port.model.config.get_text_config().vocab_size)
            scale = (self._climb.init_scale or 1.0) / port.dim**0.5
            table = torch.empty(size, port.dim, device=port.device)
            port.memory["vocabulary.eta"] = table.uniform_(-scale, scale, generator=generator)
            port.memory["vocabulary.count"] = torch.zeros(size, device=port.device)
        for name in ("vocabulary.eta", "vocabulary.count"):
            port.memory[name] = port.memory[name].to(port.device)
        return port.memory["vocabulary.eta"]
