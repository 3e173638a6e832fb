"""Small tokenizers, and model directories on disk."""

from __future__ import annotations

from pathlib import Path

from textadv.testing import tiny_model

FILLERS = "the a of and is was very quite this that film plot actor scene story"
PRAISE = "good great fine superb lovely"
BLAME = "bad awful poor dull boring"
WORDS = f"{FILLERS} {PRAISE} {BLAME} one two three four five".split()


def make_tokenizer():
    """Return a word-level tokenizer whose ids fit the tiny models."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}
    vocabulary |= {word: 4 + i for i, word in enumerate(WORDS)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )


def save_tiny_model(folder: Path, architecture: str = "bert", **config) -> Path:
    """Write a tiny classifier and its tokenizer, and return the directory."""
    tiny_model(architecture, **config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def sentiment_rows(count: int, seed: int = 0) -> list[dict]:
    """Return separable toy reviews: text and label."""
    import random

    source = random.Random(seed)
    rows = []
    for _ in range(count):
        label = source.randrange(2)
        tone = (PRAISE if label else BLAME).split()
        words = source.choices(FILLERS.split(), k=source.randrange(3, 12))
        words.insert(source.randrange(len(words)), source.choice(tone))
        rows.append({"text": " ".join(words), "label": label})
    return rows
