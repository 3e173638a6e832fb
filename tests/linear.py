"""A mean-pooled linear classifier, on which every optimum is known."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn


class MeanPooledLinear(nn.Module):
    """Logits W mean(e) over attended tokens, in float64."""

    def __init__(self, dim=6, num_labels=2, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.word = nn.Embedding(96, dim, dtype=torch.float64)
        self.head = nn.Linear(dim, num_labels, bias=False, dtype=torch.float64)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)
        self.config = SimpleNamespace(
            problem_type="single_label_classification",
            num_labels=num_labels,
            vocab_size=96,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        self.config.get_text_config = lambda: self.config

    def forward(self, input_ids, attention_mask):
        weights = attention_mask.double() / attention_mask.sum(1, keepdim=True)
        pooled = (self.word(input_ids) * weights.unsqueeze(-1)).sum(1)
        return SimpleNamespace(logits=self.head(pooled))


def margin_loss(labels):
    """Return a loss on two-class logits: the other logit minus the gold one."""

    def loss(logits):
        gold = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        return logits.sum(1) - 2 * gold

    return loss
