"""Derive seeds from the run's seed and their place in the run, so that no generator state needs saving."""

import zlib

import numpy as np


def derive_seed(*place: int | str) -> int:
    """Derive a 63-bit seed from the run's seed and a place in the run: `derive_seed(seed, "shuffle", step, epoch)`.

    Within a script, the same name must always be followed by the same number of integers, because trailing zeros do not
    change the seed.
    """
    words = [zlib.crc32(word.encode()) if isinstance(word, str) else word for word in place]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
