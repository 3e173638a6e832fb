"""Random subsets that depend on the seed alone, in the order of the rows."""

from __future__ import annotations

import numpy as np

from textadv.seeding import derive

__all__ = ["sample", "stratified_sample"]


def sample(count: int, size: int, seed: int, key: str) -> np.ndarray:
    """Return `min(size, count)` sorted positions out of `count`, drawn without replacement."""
    if size >= count:
        return np.arange(count)
    generator = np.random.default_rng(derive(seed, "sample", key))
    return np.sort(generator.choice(count, size, replace=False))


def stratified_sample(strata: np.ndarray, size: int, seed: int, key: str) -> np.ndarray:
    """Return `size` sorted positions that hold every stratum in its share, to within one row.

    Shares are rounded by largest remainder, so a rare stratum may be left out.

    Args:
        strata: `(N,)` integers.
        size: How many positions, in `[0, N]`.
        seed: Seed.
        key: Name of the sample.
    """
    values, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    share = counts * (size / len(strata))
    quota = np.floor(share).astype(np.int64)
    # Largest remainders first; ties go to the larger stratum, then to the lower value.
    order = np.lexsort((values, -counts, -(share - quota)))
    quota[order[: size - quota.sum()]] += 1
    generator = np.random.default_rng(derive(seed, "sample", key))
    chosen = [
        generator.choice(np.flatnonzero(inverse == index), quota[index], replace=False)
        for index in range(len(values))
    ]
    return np.sort(np.concatenate(chosen))
