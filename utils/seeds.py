"""Derive seeds from the run's seed and their place in the run, so that no generator state needs saving."""

import zlib

import numpy as np
import torch


def derive_seed(seed: int, *where: int | str) -> int:
    """Derive a 63-bit seed for one place in a run, e.g. `derive_seed(seed, "shuffle", step, epoch)`.

    Within a script, the same name must always be followed by the same number of integers, because trailing zeros do not
    change the seed.
    """
    words = [zlib.crc32(w.encode()) if isinstance(w, str) else w for w in where]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, *where: int | str) -> torch.Generator:
    """Create a CPU generator for one place in a run."""
    return torch.Generator().manual_seed(derive_seed(seed, *where))
