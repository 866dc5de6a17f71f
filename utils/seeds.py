"""Seeds derived from the run's seed and from where in the run they are used, so that no state needs saving."""

import zlib

import numpy as np
import torch


def derive_seed(seed: int, *where: int | str) -> int:
    """A 63-bit seed for one place of a run, e.g. `derive_seed(seed, "shuffle", step, epoch)`.

    In one script a name is always followed by equally many numbers: trailing zeros alone do not tell places apart.
    """
    words = [zlib.crc32(w.encode()) if isinstance(w, str) else w for w in where]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, *where: int | str) -> torch.Generator:
    """A CPU generator seeded for one place of a run."""
    return torch.Generator().manual_seed(derive_seed(seed, *where))
