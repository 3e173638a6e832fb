"""Tiny random models and batches, made from configs: for tests and examples, without a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from textadv.errors import unknown_name
from textadv.seeding import preserve_rng

__all__ = ["ARCHITECTURES", "tiny_batch", "tiny_model"]

_VOCAB, _PAD, _BOS, _EOS = 96, 0, 1, 2
_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
_DECODER = {**_ENCODER, "num_key_value_heads": 2}

# model_type: overrides of its config.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": _ENCODER,
    "roberta": {**_ENCODER, "max_position_embeddings": 66},
    "distilbert": {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": 64,
    },
    "albert": {**_ENCODER, "embedding_size": 16},
    "electra": {**_ENCODER, "embedding_size": 16},
    "deberta-v2": {
        **_ENCODER,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    },
    "mpnet": {**_ENCODER, "max_position_embeddings": 66},
    "modernbert": {**_ENCODER, "global_attn_every_n_layers": 2, "local_attention": 16},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "llama": _DECODER,
    "qwen2": _DECODER,
    "qwen3": {**_DECODER, "head_dim": 8},
    "gemma": {**_DECODER, "head_dim": 8},
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "max_position_embeddings": 64,
    },
    "bart": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 64,
        "decoder_start_token_id": _EOS,
        "forced_eos_token_id": None,
    },
    "t5": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": _PAD,
    },
}


def tiny_model(
    architecture: str = "bert", *, num_labels: int = 3, seed: int = 0, **config: Any
) -> Any:
    """Return a random two-layer sequence classifier of an architecture, in eval mode.

    Args:
        architecture: A key of `ARCHITECTURES` (Transformers' `model_type`).
        num_labels: Outputs of the head.
        seed: Seed of the weights.
        config: Further overrides of the model's config.

    Example:
        >>> tiny_model("albert").config.embedding_size
        16
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    if architecture not in ARCHITECTURES:
        raise unknown_name("architecture", architecture, ARCHITECTURES)
    settings: dict[str, Any] = {
        "vocab_size": _VOCAB,
        "pad_token_id": _PAD,
        "bos_token_id": _BOS,
        "eos_token_id": _EOS,
        **ARCHITECTURES[architecture],
        "num_labels": num_labels,
        **config,
    }
    if architecture == "modernbert":
        settings |= {"cls_token_id": _BOS, "sep_token_id": _EOS}
    with preserve_rng():
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(
            AutoConfig.for_model(architecture, **settings)
        )
        # The default initialisation is so small that tiny models answer alike to everything.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.25)
    return model.eval()


def tiny_batch(
    model: Any, lengths: tuple[int, ...] = (9, 4, 6), *, padding_side: str = "right", seed: int = 0
) -> dict[str, Tensor]:
    """Return a ragged labelled batch: start token, words, end token, padding."""
    generator = torch.Generator().manual_seed(seed)
    size = (len(lengths), max(lengths))
    ids = torch.full(size, _PAD)
    attention, special = torch.zeros(size, dtype=torch.long), torch.ones(size, dtype=torch.long)
    for row, length in enumerate(lengths):
        begin = 0 if padding_side == "right" else size[1] - length
        end = begin + length
        ids[row, begin:end] = torch.randint(4, _VOCAB, (length,), generator=generator)
        ids[row, begin], ids[row, end - 1] = _BOS, _EOS
        attention[row, begin:end] = 1
        special[row, begin + 1 : end - 1] = 0
    labels = torch.randint(model.config.num_labels, (len(lengths),), generator=generator)
    return {
        "input_ids": ids,
        "attention_mask": attention,
        "special_tokens_mask": special,
        "labels": labels,
    }
