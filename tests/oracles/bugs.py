"""Slow, literal attacks that misspell."""

from __future__ import annotations

import random
import string

from tests.oracles.slow import Slow, Tokens, cased, is_stop, lattice, oracle, with_word
from tests.oracles.swaps import Proposals, by_deletion, climb, filtered, put


def _bugs(word: str, rng: random.Random) -> list[str]:
    found = []
    if 2 <= len(word) <= 5:
        cut = rng.randrange(1, len(word))
        found.append(word[:cut] + " " + word[cut:])
    if len(word) >= 3:
        cut = rng.randrange(1, len(word) - 1)
        found.append(word[:cut] + word[cut + 1 :])
    if len(word) >= 5:
        swapped = []
        for at in range(1, len(word) - 2):
            if word[at] != word[at + 1]:
                swapped.append(word[1:at] + word[at + 1] + word[at] + word[at + 2 : -1])
        if swapped:
            found.append(word[0] + rng.choice(swapped) + word[-1])
    like = dict(zip(string.ascii_lowercase, _LOOKALIKES, strict=True))
    found += [word[:at] + like[c] + word[at + 1 :] for at, c in enumerate(word) if c in like]
    return [bug for bug in dict.fromkeys(found) if bug != word]


_LOOKALIKES = "ɑЬϲԁе𝚏ɡհіϳ𝒌ⅼｍոорԛⲅѕ𝚝սѵԝ×уᴢ"


@oracle
def textbugger(o: Slow) -> None:
    positions = [at for at, word in enumerate(o.words) if not is_stop(word)]
    if not positions:
        raise LookupError
    names = lattice(o.text, o.fields)

    def propose(tokens: Tokens, at: int) -> Proposals:
        word, origin = tokens[at]
        near = [cased(name, word) for name in names.get(origin, [])]
        texts = [put(tokens, at, bug) for bug in dict.fromkeys([*_bugs(word, o.rng), *near])]
        return filtered(
            o, tokens, at, texts, {"pos": "any", "reference": "original", "window": None}
        )

    climb(o, by_deletion(o, positions), propose)


@oracle
def pruthi(o: Slow) -> str | None:
    words, margin = list(o.words), o.clean
    for round_ in range(o.fields["max_words"]):
        texts = []
        for at, word in enumerate(words):
            if word == o.words[at] and len(word) >= 4 and not is_stop(word):
                texts += [with_word(words, at, slip) for slip in _slips(word, o.rng)]
        if not texts and not round_:
            raise LookupError
        margins = o.try_all(texts)
        best = min(range(len(texts)), key=lambda row: margins[row], default=None)
        if best is None or margins[best] >= margin:
            return None
        words, margin = texts[best].split(" "), margins[best]
    return None


def _slips(word: str, rng: random.Random) -> list[str]:
    inner = word[1:-1]
    found = [
        inner[:at] + inner[at + 1] + inner[at] + inner[at + 2 :]
        for at in range(len(inner) - 1)
        if inner[at] != inner[at + 1]
    ]
    found += [inner[:at] + inner[at + 1 :] for at in range(len(inner))]
    for at in range(len(inner) + 1):
        found.append(inner[:at] + rng.choice(string.ascii_lowercase) + inner[at:])
    for at, letter in enumerate(inner):
        found += [inner[:at] + new + inner[at + 1 :] for new in _KEYS[letter]]
    return [w for w in dict.fromkeys(word[0] + f + word[-1] for f in found) if w != word]


# Beside, above and below on the keyboard, written out.
_KEYS = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj",
    "i": "uojk", "o": "ipkl", "p": "ol", "a": "sqwz", "s": "adwezx", "d": "sferxc",
    "f": "dgrtcv", "g": "fhtyvb", "h": "gjyubn", "j": "hkuinm", "k": "jliom", "l": "kop",
    "z": "xas", "x": "zcsd", "c": "xvdf", "v": "cbfg", "b": "vngh", "n": "bmhj", "m": "njk",
}  # fmt: skip
