"""A small file in the layout of multimodal_imdb.hdf5, whose plots and posters each show some of the genres."""

import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

GENRES = ("Drama", "Comedy", "Romance", "Thriller", "Crime", "Action")
COUNTS = {"train": 240, "dev": 80, "test": 100}
SOURCES = ("features", "vgg_features", "images", "genres", "imdb_ids")


def write_mmimdb(path: Path, counts: Mapping[str, int] = COUNTS, images: bool = True, seed: int = 0) -> Path:
    """Write all datasets and attributes of the published file that are documented, for films by split."""
    rng = np.random.default_rng(seed)
    count = sum(counts.values())
    genres = (rng.random((count, len(GENRES))) < (0.5, 0.35, 0.3, 0.3, 0.2, 0.2)).astype(np.int32)
    half = len(GENRES) // 2
    patterns = rng.normal(size=(len(GENRES), 300)), np.maximum(rng.normal(size=(len(GENRES), 4096)), 0)
    with h5py.File(path, "w") as file:
        plots = genres[:, :half] @ patterns[0][:half] / 10 + 0.1 * rng.normal(size=(count, 300))
        file["features"] = plots.astype(np.float32)
        posters = genres[:, half:] @ patterns[1][half:] + np.abs(rng.normal(size=(count, 4096)))
        file["vgg_features"] = posters.astype(np.float32)
        file["imdb_ids"] = np.array([f"{i:07d}" for i in range(count)], dtype="S7")
        file["genres"] = genres
        file["genres"].attrs["target_names"] = json.dumps(GENRES)
        if images:  # blue, green and red without their means
            pixels = rng.integers(0, 256, (count, 3, 256, 160)) - np.array([104, 117, 124])[:, None, None]
            file["images"] = pixels.astype(np.int32)
        kinds = [("split", "S5"), ("source", "S12"), ("start", "i8"), ("stop", "i8"), ("indices", h5py.ref_dtype)]
        kinds += [("available", "?"), ("comment", "S1")]
        ends = np.cumsum([0, *counts.values()])
        rows = [
            (split, source, start, stop, h5py.Reference(), True, ".")
            for split, start, stop in zip(counts, ends, ends[1:], strict=False)
            for source in SOURCES
        ]
        file.attrs["split"] = np.array(rows, dtype=kinds)
    return path
