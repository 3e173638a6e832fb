"""Masked language models and sentence encoders that attacks are served by, from local paths."""

from __future__ import annotations

import functools
import itertools
import json
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textadv.errors import ResourceError, shown
from textadv.ragged import default_batch_tokens, length_batches, padded_batch
from textadv.resources import find
from textadv.rounding import near_edge, rounded

__all__ = ["COSINE_GRID", "MaskedLM", "SentenceEncoder", "load_encoder", "load_masked_lm"]

CACHED = 8192
MAX_PIECES = 12
PIECE_CHOICES = 4
COMBINATIONS = 24
# Logits and perplexities are rounded to this, so that what differs in the last bits alone is tied.
LOGIT_GRID = 2.0**-9
# Steps of a cosine that may decide something, and most that batches move it (measured: 7e-7).
COSINE_GRID = 2.0**-12
COSINE_NOISE = 2.0**-19


class _Model:
    """A model with its tokenizer, in evaluation mode, fed ragged batches."""

    def __init__(self, folder: Path, kind: str, loader: str) -> None:
        import transformers

        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=False
            )
            model = getattr(transformers, loader).from_pretrained(
                str(folder), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
        except Exception as error:  # whatever it is, the user gets one line
            raise ResourceError(
                f"{kind} {shown(str(folder))}",
                got=shown((str(error).strip().splitlines() or [""])[0], 200),
                expected="a model directory with safetensors weights and a tokenizer",
            ) from error
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any = model.to(self.device).eval()
        positions = getattr(self.model.config, "max_position_embeddings", None) or 512
        # RoBERTa-like models start counting positions behind the padding index.
        spare = 2 if self.model.config.model_type in ("roberta", "xlm-roberta", "mpnet") else 0
        self.max_length = int(min(self.tokenizer.model_max_length, positions - spare))
        self.batch_tokens = default_batch_tokens(self.device)
        self._cache: OrderedDict[Hashable, Any] = OrderedDict()

    def batches(
        self, rows: Sequence[dict[str, Any]]
    ) -> Iterable[tuple[list[int], dict[str, Tensor]]]:
        """Yield row numbers and the padded tensors of each batch."""
        fills = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": 0}
        for batch in length_batches([len(row["input_ids"]) for row in rows], self.batch_tokens):
            yield batch, padded_batch([rows[at] for at in batch], fills, device=self.device)

    def encode(self, texts: Sequence[str], **options: Any) -> list[dict[str, Any]]:
        """Tokenise without padding, cut to what the model reads."""
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_length, **options
        )
        names = [n for n in ("input_ids", "token_type_ids", "offset_mapping") if n in encoded]
        return [{name: encoded[name][at] for name in names} for at in range(len(texts))]

    def cached(self, keys: Sequence[Hashable], compute: Any) -> list[Any]:
        """Return what is remembered for each key, and compute the rest in one call."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._cache]
        fresh = dict(zip(missing, compute(missing), strict=True)) if missing else {}
        found = [fresh[key] if key in fresh else self._cache[key] for key in keys]
        self._cache.update(fresh)
        while len(self._cache) > CACHED:
            self._cache.popitem(last=False)
        return found


class MaskedLM(_Model):
    """Propose words for gaps and for places of a text.

    Every gap and every text goes through the model alone, so that what is proposed for it depends
    on no other: which of two words is before the other is often a matter of the last bits.

    Args:
        folder: A directory that `AutoModelForMaskedLM` reads.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "masked-lm", "AutoModelForMaskedLM")
        if self.tokenizer.mask_token_id is None:
            raise ResourceError(f"masked-lm {folder}", got="no mask token", expected="one")
        vocabulary = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        marked = [name[:1] in ("Ġ", "▁") for name in vocabulary]
        prefixed = sum(marked) > len(vocabulary) // 10
        self._words: dict[int, str] = {
            at: word
            for at, name in enumerate(vocabulary)
            if (word := name[1:] if marked[at] else name).isalpha()
            and (marked[at] or not prefixed)
            and at not in self.tokenizer.all_special_ids
        }

    def fill(self, gaps: Sequence[tuple[str, str]], top_k: int) -> list[list[tuple[str, float]]]:
        """Return for each gap the words among the `top_k` tokens, with their probabilities."""
        keys = [(left, right, top_k) for left, right in gaps]
        return self.cached(keys, lambda missing: [self._fill(*key) for key in missing])

    def guess(
        self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]], top_k: int
    ) -> list[list[list[str]]]:
        """Return other words for each span of each text, as `textadv.attacks.requests.Guess`."""
        return [self._guess(text, spans, top_k) for text, spans in texts]

    def _guess(self, text: str, spans: Sequence[tuple[int, int]], top_k: int) -> list[list[str]]:
        (row,) = self.encode([text], return_offsets_mapping=True)
        places = [_inside(row["offset_mapping"], span) for span in spans]
        wanted = sorted({at for own in places for at in own})
        (scores,) = self._logits([row], [wanted])
        row_of = dict(zip(wanted, scores, strict=True))
        answers: list[list[str]] = []
        combos: list[tuple[list[list[int]], list[str]]] = []
        for own in places:
            answers.append([])
            if len(own) == 1:
                best = _top(row_of[own[0]], top_k)
                answers[-1] += [self._words[at] for at in best if at in self._words]
            elif 1 < len(own) <= MAX_PIECES:
                choices = [_top(row_of[at], PIECE_CHOICES) for at in own]
                chosen = itertools.islice(itertools.product(*choices), COMBINATIONS)
                combos.append(([list(ids) for ids in chosen], answers[-1]))
        self._rank_pieces(combos)
        return answers

    def _fill(self, left: str, right: str, top_k: int) -> list[tuple[str, float]]:
        row, place = self._masked(left, right)
        (scores,) = self._logits([row], [[place]])
        chances = scores[0].softmax(dim=0)
        best = _top(scores[0], top_k)
        return [(self._words[at], float(chances[at])) for at in best if at in self._words]

    def _masked(self, left: str, right: str) -> tuple[dict[str, Any], int]:
        """Tokenise around a mask; drop context from both ends until the mask is read."""
        mask = self.tokenizer.mask_token_id
        while True:
            row = self.encode([f"{left}{self.tokenizer.mask_token}{right}"])[0]
            if mask in row["input_ids"]:
                return row, row["input_ids"].index(mask)
            left = left[(len(left) + 1) // 2 :]

    @torch.inference_mode()
    def _logits(
        self, rows: Sequence[dict[str, Any]], wanted: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """Return the logits `(P, V)` at the P wanted places of each row, and compute no others."""
        plain = [{k: v for k, v in row.items() if k != "offset_mapping"} for row in rows]
        found: dict[int, Tensor] = {}
        head = self.model.get_output_embeddings()
        for batch, inputs in self.batches(plain):
            at = [(row, place) for row, index in enumerate(batch) for place in wanted[index]]
            if not at:
                found |= {index: torch.empty(0, 0) for index in batch}
                continue
            select = torch.tensor(at, device=self.device).T

            def only_wanted(module: Any, args: Any, select: Tensor = select) -> Any:
                return (args[0][select[0], select[1]], *args[1:])

            handle = head.register_forward_pre_hook(only_wanted)
            try:
                scores = self.model(**inputs).logits.float().cpu()
            finally:
                handle.remove()
            scores = rounded(scores, LOGIT_GRID)
            sizes = [len(wanted[index]) for index in batch]
            found |= dict(zip(batch, scores.split(sizes), strict=True))
        return [found[at] for at in range(len(rows))]

    def _rank_pieces(self, combos: Sequence[tuple[list[list[int]], list[str]]]) -> None:
        """Fill in the words that combinations of pieces make, the least perplexing first."""
        flat = [ids for many, _ in combos for ids in many]
        rows = [{"input_ids": ids} for ids in flat]
        logits = self._logits(rows, [range(len(ids)) for ids in flat])
        losses = iter(
            float(torch.nn.functional.cross_entropy(scores, torch.tensor(ids)))
            for scores, ids in zip(logits, flat, strict=True)
        )
        for many, answer in combos:
            ranked = sorted((round(next(losses) / LOGIT_GRID), at) for at in range(len(many)))
            for _, at in ranked:
                names = self.tokenizer.convert_ids_to_tokens(many[at])
                word = self.tokenizer.convert_tokens_to_string(names).strip()
                if word.isalpha() and word not in answer:
                    answer.append(word)


class SentenceEncoder(_Model):
    """Compare sentences by the cosine of their pooled, normalised hidden states.

    Args:
        folder: A sentence-transformers directory, or any directory that `AutoModel` reads; the
            mean over tokens is taken unless `1_Pooling/config.json` says the first token.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "encoder", "AutoModel")
        pooling = _read_json(folder / "1_Pooling" / "config.json")
        modes = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on]
        self.first_token = modes == ["pooling_mode_cls_token"]
        if modes not in ([], ["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
            raise ResourceError(
                f"encoder {folder}", got=f"pooling {modes}", expected="mean or first-token pooling"
            )
        limit = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        self.max_length = min(self.max_length, limit or self.max_length)

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the cosine of each pair.

        Rounded to `COSINE_GRID` they depend on no other pair: where the batch could move one over
        an edge, its texts are encoded alone.
        """
        if not pairs:
            return []
        found = self._cosines(pairs, self._encode)
        near = near_edge(torch.tensor(found, dtype=torch.float64), COSINE_GRID, COSINE_NOISE)
        for at in near.nonzero()[:, 0].tolist():
            (found[at],) = self._cosines([pairs[at]], self._encode_alone, "alone")
        return found

    def _cosines(self, pairs: Sequence[tuple[str, str]], encode: Any, how: str = "") -> list[float]:
        keys = [(how, text) for pair in pairs for text in pair]
        vectors = self.cached(keys, lambda missing: encode([text for _, text in missing]))
        return [float(a @ b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]

    def _encode_alone(self, texts: Sequence[str]) -> list[Tensor]:
        return [vector for text in texts for vector in self._encode([text])]

    @torch.inference_mode()
    def _encode(self, texts: Sequence[str]) -> list[Tensor]:
        vectors: list[Tensor] = [torch.empty(0)] * len(texts)
        for batch, inputs in self.batches(self.encode(texts)):
            hidden = self.model(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"][..., None]
            pooled = hidden[:, 0] if self.first_token else (hidden * mask).sum(1) / mask.sum(1)
            unit = torch.nn.functional.normalize(pooled, dim=-1).cpu()
            for at, vector in zip(batch, unit, strict=True):
                vectors[at] = vector.clone()
        return vectors


def load_masked_lm(path: str | None = None) -> MaskedLM:
    """Open a masked language model, once per place; see `textadv.resources.find`."""
    return _load_masked_lm(find("masked-lm", path))


def load_encoder(path: str | None = None) -> SentenceEncoder:
    """Open a sentence encoder, once per place; see `textadv.resources.find`."""
    return _load_encoder(find("encoder", path))


@functools.cache
def _load_masked_lm(folder: Path) -> MaskedLM:
    return MaskedLM(folder)


@functools.cache
def _load_encoder(folder: Path) -> SentenceEncoder:
    return SentenceEncoder(folder)


def _top(scores: Tensor, count: int) -> list[int]:
    """Return the places of the largest values, largest first, ties by place."""
    count = min(count, len(scores))
    limit = scores.topk(count).values[-1]
    places = (scores >= limit).nonzero()[:, 0]
    order = sorted(zip((-scores[places]).tolist(), places.tolist(), strict=True))
    return [place for _, place in order[:count]]


def _inside(offsets: Sequence[tuple[int, int]], span: tuple[int, int]) -> list[int]:
    return [at for at, (start, end) in enumerate(offsets) if start < span[1] and end > span[0]]


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return values
