"""Independent random streams derived from one seed, instead of one global state."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator

import torch

__all__ = ["derive", "preserve_rng", "python_random", "seed_everything", "torch_generator"]


def derive(seed: int, *keys: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and every key, and on nothing else.

    The same seed and keys give the same stream in any process, order or batch width, so a resumed
    run needs no stored random state.

    Example:
        >>> derive(0, "attack", "deepwordbug", 7) == derive(0, "attack", "deepwordbug", 7)
        True
        >>> derive(0, "step", 1) == derive(0, "step", 2)
        False
    """
    message = "\x1f".join([str(int(seed)), *(f"{type(key).__name__}:{key}" for key in keys)])
    digest = hashlib.blake2b(message.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def python_random(seed: int, *keys: str | int) -> random.Random:
    """Return a `random.Random` on the derived stream."""
    return random.Random(derive(seed, *keys))


def torch_generator(device: torch.device | str, seed: int, *keys: str | int) -> torch.Generator:
    """Return a `torch.Generator` on `device`, set to the derived stream."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derive(seed, *keys))
    return generator


def seed_everything(seed: int, *keys: str | int) -> None:
    """Set Torch's global generators (dropout draws from them) to the derived stream."""
    torch.manual_seed(derive(seed, *keys))


@contextlib.contextmanager
def preserve_rng(device: torch.device | str = "cpu") -> Iterator[Callable[[], None]]:
    """Leave Torch's global generators of the CPU and of `device` as they were found.

    Yields:
        A function that rewinds them to that state at any time.
    """
    device = torch.device(device)
    cpu_state = torch.get_rng_state()
    accelerator_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def rewind() -> None:
        torch.set_rng_state(cpu_state)
        if accelerator_state is not None:
            torch.cuda.set_rng_state(accelerator_state, device)

    try:
        yield rewind
    finally:
        rewind()
