"""A toy classifier with exact arithmetic, toy texts, and toy resources of every kind."""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from textadv.attacks import Example
from textadv.whitebox import TextGradient
from textadv.words import Words

CLASSES = 3
_WORDS = """film plot actor scene warm dull bright funny sad slow quick story music ending script
charm boring great awful tender clever weak strong loud quiet happy gloomy fresh stale bold"""
VOCABULARY = _WORDS.split()
FUNCTION_WORDS = ["the", "a", "is", "and", "of"]
ANCHORS = {"the": 0, "and": 1, "of": 2}
INVARIANT = [
    "is",
    "not",
    "isn't",
    "John",
    "Mary",
    "Smith",
    "Paris",
    "Kenya",
    "7",
    "30",
    "2",
    "film",
]

_SYNSETS = {
    "noun": """film plot story,actor scene,music charm,ending script story,film scene music,
        charm plot""",
    "verb": "slow warm,quiet quick,dull slow",
    "adj": """warm tender happy,dull boring slow,bright clever quick,funny happy,sad gloomy dull,
        great strong bold,awful weak stale,loud strong,quiet slow tender,fresh bright,
        very_warm warm""",
    "adv": "quick bright,slow quiet",
}
SYNSETS = {
    name: [group.split() for group in groups.split(",")] for name, groups in _SYNSETS.items()
}
_NOUNS = ["film", "plot", "actor", "scene", "story", "music", "ending", "script", "charm"]
TAGS = dict.fromkeys(_NOUNS, "NN")
TAGS |= dict.fromkeys(["slow", "quick", "dull", "warm", "boring"], "VB")
TAGS |= dict.fromkeys(["the", "a"], "DT") | {"is": "VBZ", "and": "CC", "of": "IN"}
TAGS |= {word: "JJ" for word in VOCABULARY if word not in TAGS}
SEMEMES = {word: [[f"s{at % 7}"], [f"s{at % 5}", "x"]] for at, word in enumerate(VOCABULARY)}


def scores(texts: list[str], scale: float = 1.0, shift: float = 0.0) -> list[list[float]]:
    """Sum a hashed weight per word, pair and class; multiples of 1/8, so sums are exact."""
    return [[scale * total + shift for total in _totals(text)] for text in texts]


def word_vector(word: str) -> list[float]:
    """Return the weight of a word for each class."""
    return [_weight(word, label) / 8 for label in range(CLASSES)]


def steepness(word: str) -> int:
    """Return how much the toy victim says that a word matters."""
    return 1 + zlib.crc32(word.encode()) % 4


def _weight(token: str, label: int) -> int:
    # Words that no attack edits hold some texts in their class.
    anchor = 120 * (ANCHORS.get(token.lower()) == label)
    return zlib.crc32(f"{label}|{token}".encode()) % 33 - 16 + anchor


def _totals(text: str) -> list[float]:
    tokens = text.split()
    pairs = [" ".join(pair) for pair in itertools.pairwise(tokens)]
    totals = []
    for label in range(CLASSES):
        units = sum(_weight(token, label) for token in tokens)
        units += sum(zlib.crc32(f"{label}|{pair}".encode()) % 9 - 4 for pair in pairs)
        totals.append(units / 8)
    return totals


class ToyVictim:
    """The toy classifier, with slopes that are made up but repeat."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        self.scale, self.shift = scale, shift

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        return torch.tensor(scores([" ".join(text) for text in texts], self.scale, self.shift))

    def gradients(
        self, texts: Sequence[tuple[str, ...]], labels: Sequence[int]
    ) -> list[TextGradient]:
        found = []
        for text, label, row in zip(texts, labels, self.logits(texts), strict=True):
            others = [value if at != label else -torch.inf for at, value in enumerate(row.tolist())]
            slope = [0.0] * CLASSES
            slope[label], slope[others.index(max(others))] = self.scale, -self.scale
            tokens, words = [], []
            for column, part in enumerate(text):
                start = 0
                for word in part.split(" "):
                    tokens.append((column, start, start + len(word)))
                    words.append(word)
                    start += len(word) + 1
            gradient = [[steepness(word) * value for value in slope] for word in words]
            embedding = self.word_vectors(words)
            found.append(TextGradient(row, tokens, torch.tensor(gradient), embedding))
        return found

    def word_vectors(self, words: Sequence[str]) -> Tensor:
        return torch.tensor([word_vector(word) for word in words])


def victim(scale: float = 1.0, shift: float = 0.0) -> ToyVictim:
    return ToyVictim(scale, shift)


def texts_and_labels(
    count: int = 40, seed: int = 5, vocabulary: Sequence[str] = VOCABULARY
) -> tuple[list[str], list[int]]:
    """Return texts with the predicted label, every seventh with another one."""
    rng = random.Random(seed)
    texts, labels = [], []
    for row in range(count):
        words = [
            rng.choice(FUNCTION_WORDS) if rng.random() < 0.2 else rng.choice(vocabulary)
            for _ in range(rng.randint(1, 9))
        ]
        words[0] = words[0].capitalize() if row % 3 == 0 else words[0]
        text = " ".join(words)
        values = scores([text])[0]
        label = values.index(max(values))
        texts.append(text)
        labels.append((label + 1) % CLASSES if row % 7 == 0 else label)
    return texts, labels


def examples(
    count: int = 40, seed: int = 5, vocabulary: Sequence[str] = VOCABULARY
) -> list[Example]:
    pairs = zip(*texts_and_labels(count, seed, vocabulary), strict=True)
    return [
        Example(id=str(row), words=Words.of(text), label=label)
        for row, (text, label) in enumerate(pairs)
    ]


def examples_for(attack: str, count: int) -> list[Example]:
    """Return texts that an attack has something to do on."""
    return examples(count, vocabulary=INVARIANT if attack == "checklist" else VOCABULARY)


def write_vectors(folder: Path) -> Path:
    """Write a small matrix and its words; most of the vocabulary has near neighbours."""
    words = [*VOCABULARY, "Movie", "tale", "dreary", "lively"]
    matrix = np.random.default_rng(0).normal(size=(len(words), 4)).astype(np.float16)
    np.save(folder / "vectors.npy", matrix)
    (folder / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder / "vectors.npy"


def write_wordnet(folder: Path, synsets: dict[str, list[list[str]]] = SYNSETS) -> Path:
    """Write a database of a few synsets in WordNet's file format."""
    for name, groups in synsets.items():
        data = "  1 licence\n"
        index: dict[str, list[int]] = {}
        for lemmas in groups:
            offset = len(data.encode())
            words = " ".join(f"{lemma} 0" for lemma in lemmas)
            data += f"{offset:08d} 00 {name[0]} {len(lemmas):02x} {words} 000 | gloss\n"
            for lemma in lemmas:
                index.setdefault(lemma.partition("(")[0].lower(), []).append(offset)
        lines = [
            f"{lemma} {name[0]} {len(at)} 1 @ {len(at)} 0 "
            + " ".join(f"{o:08d}" for o in at)
            + "  "
            for lemma, at in sorted(index.items())
        ]
        (folder / f"data.{name}").write_text(data)
        (folder / f"index.{name}").write_text("  1 licence\n" + "\n".join(lines) + "\n")
        (folder / f"{name}.exc").write_text("")
    return folder


def write_tagger(folder: Path) -> Path:
    """Write a tagger that knows the vocabulary; others are nouns, adjectives after a determiner."""
    weights = {"bias": {"NN": 1.0}, "i-1 tag DT": {"JJ": 2.0}}
    parts = {"tagdict": TAGS, "weights": weights, "classes": sorted(set(TAGS.values()))}
    for part, values in parts.items():
        (folder / f"toy.{part}.json").write_text(json.dumps(values))
    return folder


def write_sememes(folder: Path) -> Path:
    (folder / "sememes.json").write_text(json.dumps(SEMEMES))
    return folder / "sememes.json"


def write_stopwords(folder: Path) -> Path:
    (folder / "english").write_text("\n".join(FUNCTION_WORDS) + "\n")
    return folder


def _tokenizer() -> object:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    whole = [word for word in VOCABULARY if word not in ("boring", "ending", "gloomy", "script")]
    pieces = ["bor", "end", "gl", "scr", "##ing", "##oomy", "##ipt", "##er", "##ly", ".", "very"]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FUNCTION_WORDS, *whole, *pieces]
    vocabulary = {word: at for at, word in enumerate(names)}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.decoder = decoders.WordPiece()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def write_language_model(folder: Path, kind: str) -> Path:
    """Write a tiny random masked language model or encoder with a word-piece tokenizer."""
    import transformers

    tokenizer = _tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),  # type: ignore[arg-type]
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=0.6,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = getattr(transformers, kind)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder
