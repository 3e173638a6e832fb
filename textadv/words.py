"""Immutable text as words and the gaps between them, edited without reading the text again."""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

__all__ = ["Words", "word_spans"]

_JOINERS = {0x200C, 0x200D}
_MARK = "\u0300"
_WORD = re.compile(rf"\w[\w{_MARK}]*(?:['’\-_*@]+[\w{_MARK}]+)*")


class _Marks(dict[int, str]):
    """Translation that turns combining marks and joiners into one mark `_WORD` knows."""

    def __missing__(self, code: int) -> str:
        mark = code in _JOINERS or unicodedata.category(chr(code)).startswith("M")
        self[code] = _MARK if mark else chr(code)
        return self[code]


_marks = _Marks()


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return `(start, end)` of every word: letters, digits and marks, with inner ' - _ * @.

    Example:
        >>> [("It's well-made, isn't it?")[a:b] for a, b in word_spans("It's well-made, isn't it?")]
        ["It's", 'well-made', "isn't", 'it']
    """
    shadow = text if text.isascii() else text.translate(_marks)
    return [match.span() for match in _WORD.finditer(shadow)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    """Hold the words of one text, or of several columns, and what became of each original word.

    Every edit returns a new value and keeps the alignment with the original text, so the number of
    modified words stays right after insertions and deletions. Build one with `Words.of`.

    Args:
        words: All words, column after column.
        gaps: What follows each word up to the next one or the end of its column.
        leads: What precedes the first word of each column.
        columns: The column of each word.
        origins: The index of each word in the original text, -1 for an inserted word.
        editable: Whether each word may be edited.
        original: The words of the original text.

    Example:
        >>> text = Words.of("A fine, warm film.")
        >>> text.replace(1, "bad").delete(2).texts
        ('A bad, film.',)
        >>> text.replace(1, "bad").delete(2).num_modified
        2
    """

    words: tuple[str, ...]
    gaps: tuple[str, ...]
    leads: tuple[str, ...]
    columns: tuple[int, ...]
    origins: tuple[int, ...]
    editable: tuple[bool, ...]
    original: tuple[str, ...]

    @classmethod
    def of(
        cls,
        texts: str | Sequence[str],
        *,
        editable: Collection[int] | None = None,
        split: Callable[[str], Iterable[tuple[int, int]]] = word_spans,
    ) -> Words:
        """Split one text, or one text per column, into words.

        Args:
            texts: A text, or a sequence such as `(premise, hypothesis)`.
            editable: The columns whose words may be edited; all by default.
            split: Where the words are: increasing, non-overlapping spans of a text.
        """
        words: list[str] = []
        gaps: list[str] = []
        leads: list[str] = []
        columns: list[int] = []
        for column, text in enumerate((texts,) if isinstance(texts, str) else texts):
            spans = list(split(text))
            stops = [start for start, _ in spans[1:]] + [len(text)]
            leads.append(text[: spans[0][0]] if spans else text)
            for (start, end), stop in zip(spans, stops if spans else [], strict=True):
                words.append(text[start:end])
                gaps.append(text[end:stop])
                columns.append(column)
        return cls(
            words=tuple(words),
            gaps=tuple(gaps),
            leads=tuple(leads),
            columns=tuple(columns),
            origins=tuple(range(len(words))),
            editable=tuple(editable is None or column in editable for column in columns),
            original=tuple(words),
        )

    def __len__(self) -> int:
        return len(self.words)

    @functools.cached_property
    def texts(self) -> tuple[str, ...]:
        """The text of each column; right after `of`, exactly what was given."""
        parts: list[list[str]] = [[lead] for lead in self.leads]
        for column, word, gap in zip(self.columns, self.words, self.gaps, strict=True):
            parts[column] += (word, gap)
        return tuple("".join(part) for part in parts)

    @functools.cached_property
    def spans(self) -> tuple[tuple[int, int, int], ...]:
        """Column, start and end of each word in `texts`."""
        ends = [len(lead) for lead in self.leads]
        found = []
        for column, word, gap in zip(self.columns, self.words, self.gaps, strict=True):
            start = ends[column]
            found.append((column, start, start + len(word)))
            ends[column] = start + len(word) + len(gap)
        return tuple(found)

    def window(self, index: int, size: int | None = None) -> str:
        """Return the words around the word at `index` and what is between them.

        The window stays in the word's column and is moved inwards at its ends.

        Args:
            index: The word in the middle.
            size: Number of words; None for the whole column.

        Example:
            >>> Words.of("one, two; three four").window(0, 2)
            'one, two'
        """
        self._check(index)
        column = self.columns[index]
        if size is None:
            return self.texts[column]
        places = [at for at, other in enumerate(self.columns) if other == column]
        first = max(0, min(places.index(index) - size // 2, len(places) - size))
        chosen = places[first : first + size]
        gaps = [*(self.gaps[at] for at in chosen[:-1]), ""]
        return "".join(self.words[at] + gap for at, gap in zip(chosen, gaps, strict=True))

    @property
    def editable_positions(self) -> tuple[int, ...]:
        """The positions of the words that may be edited."""
        return tuple(index for index, editable in enumerate(self.editable) if editable)

    def position(self, origin: int) -> int | None:
        """Return where original word `origin` is now, or None when it was deleted."""
        return self.origins.index(origin) if origin in self.origins else None

    def protect(self, positions: Collection[int]) -> Words:
        """Return the same text with the words at `positions` no longer editable."""
        flags = (flag and index not in positions for index, flag in enumerate(self.editable))
        return dataclasses.replace(self, editable=tuple(flags))

    def replace(self, index: int, word: str) -> Words:
        """Return the text with the word at `index` replaced."""
        self._check(index)
        return self._with_words((*self.words[:index], word, *self.words[index + 1 :]))

    def replace_many(self, changes: Mapping[int, str]) -> Words:
        """Return the text with the words at several positions replaced."""
        words = list(self.words)
        for index, word in changes.items():
            self._check(index)
            words[index] = word
        return self._with_words(tuple(words))

    def delete(self, index: int) -> Words:
        """Return the text without the word at `index` and without the space it leaves over."""
        self._check(index)
        column = self.columns[index]
        first = index == 0 or self.columns[index - 1] != column
        last = index + 1 == len(self) or self.columns[index + 1] != column
        before = self.leads[column] if first else self.gaps[index - 1]
        after = self.gaps[index]
        if before[-1:].isspace() and (after or last):
            before = before[:-1]
        elif not before and first and after[:1].isspace():
            after = after[1:]
        gaps, leads = list(self.gaps), list(self.leads)
        if first:
            leads[column] = before + after
        else:
            gaps[index - 1] = before + after
        del gaps[index]
        return dataclasses.replace(
            self,
            words=(*self.words[:index], *self.words[index + 1 :]),
            gaps=tuple(gaps),
            leads=tuple(leads),
            columns=(*self.columns[:index], *self.columns[index + 1 :]),
            origins=(*self.origins[:index], *self.origins[index + 1 :]),
            editable=(*self.editable[:index], *self.editable[index + 1 :]),
        )

    def insert_before(self, index: int, word: str) -> Words:
        """Return the text with `word` and a space put before the word at `index`."""
        self._check(index)
        return self._insert(index, word, self.columns[index], self.gaps, " ")

    def insert_after(self, index: int, word: str) -> Words:
        """Return the text with a space and `word` put right after the word at `index`."""
        self._check(index)
        gaps = (*self.gaps[:index], " ", *self.gaps[index + 1 :])
        return self._insert(index + 1, word, self.columns[index], gaps, self.gaps[index])

    @property
    def modified_positions(self) -> tuple[int, ...]:
        """The positions of words that were replaced or inserted."""
        pairs = enumerate(zip(self.words, self.origins, strict=True))
        return tuple(i for i, (word, at) in pairs if at < 0 or word != self.original[at])

    @property
    def num_deleted(self) -> int:
        """The number of original words that are gone."""
        return len(self.original) - sum(origin >= 0 for origin in self.origins)

    @property
    def num_modified(self) -> int:
        """The number of words replaced, inserted or deleted, by alignment with the original."""
        return len(self.modified_positions) + self.num_deleted

    @property
    def modified_rate(self) -> float:
        """Modified words divided by original words; 0 for a text without words."""
        return self.num_modified / len(self.original) if self.original else 0.0

    def _insert(self, index: int, word: str, column: int, gaps: tuple[str, ...], gap: str) -> Words:
        return dataclasses.replace(
            self,
            words=(*self.words[:index], word, *self.words[index:]),
            gaps=(*gaps[:index], gap, *gaps[index:]),
            columns=(*self.columns[:index], column, *self.columns[index:]),
            origins=(*self.origins[:index], -1, *self.origins[index:]),
            editable=(*self.editable[:index], True, *self.editable[index:]),
        )

    def _with_words(self, words: tuple[str, ...]) -> Words:
        """Change words in place; the hot path, so without `dataclasses.replace`."""
        return Words(
            words=words,
            gaps=self.gaps,
            leads=self.leads,
            columns=self.columns,
            origins=self.origins,
            editable=self.editable,
            original=self.original,
        )

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self.words):
            raise IndexError(f"word {index} of a text of {len(self.words)} words")
