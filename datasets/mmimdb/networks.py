"""The networks of MM-IMDB: of the plots on word2vec, of the posters on the file's VGG-16 features or on VGG-19."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets.mmimdb.load import MMIMDB, SHAPES
from models.maxout import MaxoutMLP, VGGClassifier
from utils.arrays import read_array
from utils.errors import DataError, UsageError
from utils.extract import Extractor
from utils.files import whole_file
from utils.progress import Progress
from utils.reading import sha256
from utils.results.table import f1_scores
from utils.runs.unimodal import Plan
from utils.seeds import derive_seed
from utils.training.batches import ArraySplit
from utils.training.checkpoints import check_fit, load_state
from utils.training.devices import Compute, autocast
from utils.training.evaluation import predict
from utils.training.loop import ModelTraining, train_and_evaluate
from utils.training.metrics import accuracy, scores

MAPS = ("20", "26", "33", "36")  # of VGG-19's layers, as published: 512 channels each
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POSTERS = 32  # read at once
HIDDEN = {"features": 64, "vgg_features": 256}  # first hidden units; the second layer has twice as many


def load_vgg19(weights: str, verbose: bool) -> tuple[nn.Sequential, str]:
    """Return the layers of torchvision's VGG-19 before its classifier, and what identifies their weights.

    Raises:
        UsageError: the weights cannot be read or downloaded, or are of another network.
    """
    from torchvision.models import VGG19_Weights, vgg19  # only needed here

    source = VGG19_Weights.IMAGENET1K_V1
    if weights == "download":
        try:
            state, checksum = dict(source.get_state_dict(progress=verbose)), source.url
        except OSError as error:
            raise UsageError(f"could not download {source.url} ({error}); name a file with --vgg_weights") from None
    else:
        state, checksum = load_state(Path(weights))
    with torch.device("meta"):  # its own initial weights would take seconds
        network = vgg19().features
    state = {name.removeprefix("features."): x for name, x in state.items() if name.startswith("features.")}
    check_fit(network, state, Path(weights))
    network.load_state_dict(state, assign=True)
    return network, checksum


def poster_features(data: MMIMDB, weights: str, compute: Compute, folder: Path, verbose: bool) -> dict[str, np.ndarray]:
    """Average the maps of VGG-19 over each poster, by split: float32 (N, 4 x 512), one map after another.

    Each split is kept in the folder, so that it is computed once for a file and its weights.
    """
    network, checksum = load_vgg19(weights, verbose)
    extractor = Extractor(network.to(compute.device, torch.float32).requires_grad_(False), MAPS)
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    stat = data.path.stat()
    about = sha256(repr((stat.st_size, stat.st_mtime_ns, checksum, compute.bfloat16)).encode())[:16]
    found = {}
    for split, labels in data.labels.items():
        path = folder / f"vgg19-{about}-{split}.npy"
        if not path.exists():
            parts = []
            batches = Progress(
                data.posters(split, POSTERS),
                desc=f"{split} posters",
                total=-(-len(labels) // POSTERS),
                unit="batch",
                verbose=verbose,
            )
            for images in batches:
                with autocast(compute.device, compute.bfloat16):
                    features, _ = extractor((torch.from_numpy(images) / 255 - mean) / std)
                parts.append(torch.cat(features, dim=1).float().cpu().numpy())
            with whole_file(path) as file:
                np.save(file, np.concatenate(parts))
        found[split] = read_array(path, DataError)
    return found


@dataclasses.dataclass(frozen=True)
class Training:
    """How both networks are trained and judged."""

    plan: Plan
    weight_decay: float
    compute: Compute
    threshold: float  # probability above which a genre is predicted
    verbose: bool


def train(
    name: str, network: nn.Module, rows: Mapping[str, np.ndarray], data: MMIMDB, settings: Training
) -> dict[str, object]:
    """Train a network, which ends with the weights of its best dev epoch, and return its figures."""
    plan, compute = settings.plan, settings.compute
    splits = {
        split: ArraySplit((torch.from_numpy(rows[split]),), torch.from_numpy(labels)).to(compute.device)
        for split, labels in data.labels.items()
    }
    network.to(compute.device)
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=settings.weight_decay, fused=True)
    train_pass = ModelTraining(network, optimizer, network.train, compute.bfloat16)
    reached: list[float] = []
    best: dict[str, Tensor] = {}

    def judged(split: str) -> Tensor:
        return scores(predict(network, splits[split]), settings.threshold)

    epochs = train_and_evaluate(network, splits, plan, train_pass, (name,))
    for _ in Progress(epochs, desc=f"{name} network", total=plan.epochs, unit="epoch", verbose=settings.verbose):
        reached.append(float(accuracy(judged("dev"), splits["dev"].labels)))
        if reached[-1] > max(reached[:-1], default=-1.0):
            best = copy.deepcopy(network.state_dict())
    network.load_state_dict(best)
    figures = {split: f1_scores(judged(split), splits[split].labels) for split in ("dev", "test")}
    shown = ", ".join(f"{split} {100 * f1['weighted']:.2f} %" for split, f1 in figures.items())
    print(f"{name} network, weighted F1 at {settings.threshold:g}: {shown}")
    return {"best_epoch": reached.index(max(reached)), "dev_weighted_f1": reached, **figures}


def build(kind: str, classes: int, seed: int) -> tuple[nn.Module, Sequence[str]]:
    """Make the network of a kind of input, and name the modules whose outputs are its features."""
    torch.manual_seed(derive_seed(seed, f"{kind} network"))
    if kind == "images":
        return VGGClassifier(classes), [f"stages.{i}" for i in range(len(MAPS))]
    return MaxoutMLP(SHAPES[kind][0], classes, HIDDEN[kind]), ("maxout1", "maxout2")
