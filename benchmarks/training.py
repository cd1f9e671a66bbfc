"""Seconds a run and cores used, for every model, beside a plain PyTorch loop.

The plain loop is what a notebook does: the same network and the same folds, one after another, in
one process, with `DataLoader` and torch's own choice of threads.

    python benchmarks/training.py [--task human] [--models …] [--protocol quick] [--jobs N]

writes benchmarks/results/training-<task>.md and prints it.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch
from imblearn.over_sampling import SMOTE
from joblib.externals.loky import get_reusable_executor
from sklearn.metrics import f1_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import crosspatch
from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.evaluation.protocols import PROTOCOLS, TASKS
from crosspatch.evaluation.splits import make_folds
from crosspatch.evaluation.task_cohorts import load_cohorts
from crosspatch.models.registry import MODEL_NAMES, model_entry
from crosspatch.models.sequence import FamilyEncoder, SequenceSettings, linear_head
from crosspatch.models.sequence_inputs import SequenceInputs
from crosspatch.models.validation import validation_split

PLAIN = ("bilstm", "bilstm-attention", "bilstm-attention-smote", "finetune")


@dataclass
class Cost:
    """What a piece of work took."""

    wall: float
    cpu: float


def measured(work: Callable[[], float]) -> tuple[Cost, float]:
    """Time some work, worker processes included."""
    get_reusable_executor().shutdown(wait=True)
    before, started = cpu_seconds(), time.perf_counter()
    score = work()
    wall = time.perf_counter() - started
    get_reusable_executor().shutdown(wait=True)  # only ended processes are counted
    return Cost(wall, cpu_seconds() - before), score


def cpu_seconds() -> float:
    """Processor time of this process and of those it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


class PlainNetwork(nn.Module):
    """The network of `SequenceClassifier`."""

    def __init__(self, widths: list[int], n_classes: int, attention: bool):
        super().__init__()
        settings = SequenceSettings(attention=attention)
        self.encoder = FamilyEncoder(widths, settings)
        self.head = linear_head(self.encoder.size, n_classes, settings)

    def forward(self, values: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.head(self.encoder(values, present)[0])
        return logits


def plain_data(
    cells: Cells, codes: np.ndarray, rows: np.ndarray, seed: int
) -> tuple[SequenceInputs, TensorDataset, TensorDataset]:
    """Standardised training and validation cells."""
    train, held = validation_split(codes[rows], cells.donors[rows], 0.2, seed)
    inputs = SequenceInputs(cells.layout).fit(cells.X[rows[train]])
    sets = []
    for part in (rows[train], rows[held]):
        values, present = inputs.sequences(cells.X[part])
        sets.append(
            TensorDataset(
                torch.from_numpy(values), torch.from_numpy(present), torch.from_numpy(codes[part])
            )
        )
    return inputs, sets[0], sets[1]


def plain_smote(data: TensorDataset, seed: int) -> TensorDataset:
    """Oversample flattened sequences."""
    values, present, y = (tensor.numpy() for tensor in data.tensors)
    flat = np.hstack([values.reshape(len(y), -1), present])
    flat, y = SMOTE(random_state=seed).fit_resample(flat, y)
    n = present.shape[1]
    values = flat[:, :-n].reshape(len(y), *values.shape[1:]).astype(np.float32)
    present = flat[:, -n:] > 0.999
    return TensorDataset(torch.from_numpy(values), torch.from_numpy(present), torch.from_numpy(y))


def plain_train(
    network: nn.Module,
    data: TensorDataset,
    validation: TensorDataset,
    rate: float,
    epochs: int = 50,
    parameters: Iterator[nn.Parameter] | None = None,
) -> None:
    """The loop of a notebook."""
    counts = torch.bincount(data.tensors[2]).float()
    weight = 1 / counts
    loss_of = nn.CrossEntropyLoss(weight=weight * len(weight) / weight.sum())
    trained = list(parameters or network.parameters())
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=1e-4)
    best, state, waited = -1.0, None, 0
    for _ in range(epochs):
        network.train()
        for values, present, y in DataLoader(data, batch_size=64, shuffle=True):
            loss = loss_of(network(values, present), y)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(trained, 2.0)
            optimizer.step()
        network.eval()
        predicted, truth = [], []
        with torch.no_grad():
            for values, present, y in DataLoader(validation, batch_size=256):
                predicted.append(network(values, present).argmax(1).numpy())
                truth.append(y.numpy())
        score = f1_score(np.concatenate(truth), np.concatenate(predicted), average="macro")
        if score > best:
            best, state, waited = score, copy.deepcopy(network.state_dict()), 0
        else:
            waited += 1
            if waited >= 7:
                break
    if state is not None:
        network.load_state_dict(state)


def plain_protocol(model: str, target: Cells, source: Cells | None, runs: int, task: str) -> float:
    """All folds of all runs, one after another; mean macro-F1."""
    widths = [len(columns) for columns in target.layout.columns.values()]
    classes, codes = np.unique(target.y, return_inverse=True)
    scores = []
    for run in range(runs):
        for fold in make_folds(target.y, target.donors, PROTOCOLS["donor"], TASKS[task], run, 0):
            torch.manual_seed(fold.seed)
            inputs, data, validation = plain_data(target, codes, fold.train, fold.seed)
            network = PlainNetwork(widths, len(classes), attention=model != "bilstm")
            if model == "finetune" and source is not None:
                theirs = np.searchsorted(classes, source.y)
                _, pre, pre_held = plain_data(source, theirs, np.arange(len(theirs)), fold.seed)
                plain_train(network, pre, pre_held, 1e-3)
                network.head = linear_head(
                    network.encoder.size, len(classes), network.encoder.settings
                )
                plain_train(network, data, validation, 1e-3, 5, network.head.parameters())
                plain_train(network, data, validation, 5e-4)
            else:
                if model == "bilstm-attention-smote":
                    data = plain_smote(data, fold.seed)
                plain_train(network, data, validation, 1e-3)
            values, present = inputs.sequences(target.X[fold.test])
            with torch.no_grad():
                predicted = network(torch.from_numpy(values), torch.from_numpy(present)).argmax(1)
            scores.append(f1_score(codes[fold.test], predicted, average="macro"))
    return float(np.mean(scores))


def our_protocol(
    model: str, cohorts: dict[str, anndata.AnnData], chosen: argparse.Namespace
) -> float:
    """The same with `crosspatch.benchmark`."""
    result = crosspatch.benchmark(
        cohorts, tasks=[chosen.task], models=[model], protocol=chosen.protocol, jobs=chosen.jobs
    )
    return float(result.summary["macro_f1_mean"].iloc[0])


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--task", default="transfer", choices=list(TASKS))
    parser.add_argument("--models", nargs="+", default=list(MODEL_NAMES), choices=MODEL_NAMES)
    parser.add_argument("--protocol", default="quick", choices=["quick", "donor"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--data-dir")
    chosen = parser.parse_args()

    cohorts = load_cohorts(["allen"], "shared", [chosen.task], chosen.data_dir)
    task, runs = TASKS[chosen.task], PROTOCOLS[chosen.protocol].runs
    reading = "hodge2019" if task.aligned else None
    target = cells_of(cohorts[task.species], reading)
    source = cells_of(cohorts[task.source], reading) if task.source else None
    rows = []
    for name in chosen.models:
        if model_entry(name).needs_source and source is None:
            continue
        cost, score = measured(partial(our_protocol, name, cohorts, chosen))
        row = {
            "model": name,
            "s/run": cost.wall / runs,
            "cores": cost.cpu / cost.wall,
            "macro-F1": score,
        }
        if name in PLAIN:
            cost, score = measured(partial(plain_protocol, name, target, source, runs, chosen.task))
            row |= {
                "plain s/run": cost.wall / runs,
                "plain cores": cost.cpu / cost.wall,
                "plain macro-F1": score,
                "speed-up": cost.wall / runs / float(row["s/run"]),
            }
        rows.append(row)
        print(row, flush=True)
    frame = pd.DataFrame(rows)
    lines = [
        f"# Training: task {chosen.task}, protocol {chosen.protocol} ({runs} runs of 5 folds)",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, {chosen.jobs} worker processes, "
        f"Python {platform.python_version()}, torch {torch.__version__}. A run is 5 folds; cores "
        "is processor time over wall time, start of the workers included.",
        "",
        "| " + " | ".join(frame.columns) + " |",
        "|---" * len(frame.columns) + "|",
    ]
    for values in frame.itertuples(index=False):
        cells = [
            value if isinstance(value, str) else "" if value != value else f"{value:.3g}"
            for value in values
        ]
        lines.append("| " + " | ".join(cells) + " |")
    out = Path(__file__).parent / "results" / f"training-{chosen.task}.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
