"""Wall and processor seconds of a run, for every model, beside a plain PyTorch loop.

The plain loop is what a notebook does: a torch LSTM over packed sequences on the same folds, one
after another, each pretrained anew, in one process, with `DataLoader` and torch's own choice of
threads.

    python benchmarks/training.py [--task human] [--models …] [--protocol quick] [--runs N]
                                  [--plain-runs N] [--jobs N] [--device cuda]

The published transfer protocol is `--models bilstm-attention finetune joint`; the row `all` is of
the models that both ways were timed for. It writes benchmarks/results/training-<task>.md (with
the device behind the task, if it is not the cpu) and prints it.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch
from imblearn.over_sampling import SMOTE
from joblib.externals.loky import get_reusable_executor
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, TensorDataset

import crosspatch
from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.evaluation.protocols import PROTOCOLS, TASKS, protocol_named
from crosspatch.evaluation.splits import make_folds
from crosspatch.evaluation.task_cohorts import load_cohorts
from crosspatch.models.registry import MODEL_NAMES, model_entry
from crosspatch.models.sequence import FamilyEncoder, LinearHead, SequenceSettings
from crosspatch.models.sequence_inputs import SequenceInputs
from crosspatch.models.validation import validation_split

PLAIN = ("bilstm", "bilstm-attention", "bilstm-attention-smote", "finetune", "joint")

Batch = tuple[Tensor, ...]


@dataclass
class Cost:
    """What a piece of work took."""

    wall: float
    cpu: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def of(self, times: float) -> Cost:
        """What so many times the work takes."""
        return Cost(self.wall * times, self.cpu * times)


def of_run(whose: str, cost: Cost, runs: int) -> dict[str, float]:
    """Columns of a cost."""
    return {f"{whose}s/run": cost.wall / runs, f"{whose}processor s/run": cost.cpu / runs}


def ratios(ours: Cost, plain: Cost) -> dict[str, float]:
    """How many times what the plain loop takes is of what ours takes."""
    return {"wall ratio": plain.wall / ours.wall, "processor ratio": plain.cpu / ours.cpu}


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


class PlainEncoder(FamilyEncoder):
    """The encoder of `SequenceClassifier` with the LSTM left to torch."""

    def forward(self, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Encoding and attention; present families are moved to the front."""
        order = torch.argsort((~present).to(torch.uint8), dim=1, stable=True)[..., None]
        values = self.norm(values.masked_fill(~present[..., None], 0.0))
        front = values.gather(1, order.expand_as(values))
        count = present.sum(1).clamp(min=1)  # SMOTE makes cells without any family
        packed = pack_padded_sequence(front, count.cpu(), batch_first=True, enforce_sorted=False)
        outputs = pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=values.shape[1]
        )[0]
        places = torch.arange(values.shape[1], device=values.device)
        if not self.settings.attention:
            weights = (places == count[:, None] - 1).to(outputs.dtype)
        else:
            scores = self.score(outputs).squeeze(-1)
            weights = torch.softmax(
                scores.masked_fill(places >= count[:, None], float("-inf")), dim=1
            )
        return (weights[..., None] * outputs).sum(1), weights


class PlainNetwork(nn.Module):
    """The network of `SequenceClassifier`."""

    def __init__(self, encoder: PlainEncoder, n_classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = LinearHead(encoder.size, n_classes, encoder.settings)

    def forward(self, values: Tensor, present: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.encoder(values, present)[0])
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


def loader(data: TensorDataset) -> DataLoader[Batch]:
    """Shuffled batches."""
    return DataLoader(data, batch_size=64, shuffle=True)


def plain_loss(data: TensorDataset, network: nn.Module, device: str) -> Callable[[Batch], Tensor]:
    """Cross-entropy of a batch, classes weighted by inverse frequency."""
    weight = 1 / torch.bincount(data.tensors[2]).float()
    loss_of = nn.CrossEntropyLoss(weight=(weight * len(weight) / weight.sum()).to(device))

    def loss(batch: Batch) -> Tensor:
        values, present, y = (part.to(device) for part in batch)
        found: Tensor = loss_of(network(values, present), y)
        return found

    return loss


def plain_train(
    network: nn.Module,
    batches: Callable[[], Iterable[Batch]],
    loss_of: Callable[[Batch], Tensor],
    validation: TensorDataset,
    rate: float,
    device: str,
    epochs: int = 50,
    trained: Iterable[nn.Parameter] | None = None,
) -> None:
    """The loop of a notebook."""
    parameters = list(trained or network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    best, state, waited = -1.0, None, 0
    for _ in range(epochs):
        network.train()
        for batch in batches():
            loss = loss_of(batch)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(parameters, 2.0)
            optimizer.step()
        network.eval()
        predicted, truth = [], []
        with torch.no_grad():
            for values, present, y in DataLoader(validation, batch_size=256):
                logits = network(values.to(device), present.to(device))
                predicted.append(logits.argmax(1).cpu().numpy())
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


def plain_joint(
    network: PlainNetwork,
    data: TensorDataset,
    validation: TensorDataset,
    source: TensorDataset,
    device: str,
) -> None:
    """Both species at once, the smaller again and again; a head for each."""
    n_classes = len(torch.bincount(data.tensors[2]))
    other = PlainNetwork(network.encoder, n_classes).to(device)
    ours, theirs = plain_loss(data, network, device), plain_loss(source, other, device)
    again = chain.from_iterable(loader(data) for _ in repeat(None))
    plain_train(
        network,
        lambda: ((*one, *two) for one, two in zip(again, loader(source), strict=False)),
        lambda both: ours(both[:3]) + 0.5 * theirs(both[3:]),
        validation,
        5e-4,
        device,
        trained=[*network.parameters(), *other.head.parameters()],
    )


def plain_protocol(
    model: str, target: Cells, source: Cells | None, task: str, chosen: argparse.Namespace
) -> float:
    """All folds of the runs, one after another; mean macro-F1."""
    widths = [len(columns) for columns in target.layout.columns.values()]
    classes, codes = np.unique(target.y, return_inverse=True)
    protocol, device, scores = PROTOCOLS[chosen.protocol], chosen.device, []
    settings = SequenceSettings(attention=model != "bilstm")
    folds = (
        fold
        for run in range(chosen.plain_runs)
        for fold in make_folds(target.y, target.donors, protocol, TASKS[task], run, 0)
    )
    for fold in folds:
        torch.manual_seed(fold.seed)
        inputs, data, validation = plain_data(target, codes, fold.train, fold.seed)
        network = PlainNetwork(PlainEncoder(widths, settings), len(classes)).to(device)
        train = partial(plain_train, network, device=device)
        rate = 1e-3
        if source is not None and model in ("finetune", "joint"):
            theirs = np.searchsorted(classes, source.y)
            _, pre, held = plain_data(source, theirs, np.arange(len(theirs)), fold.seed)
            if model == "joint":
                plain_joint(network, data, validation, pre, device)
                rate = 3e-4
            else:
                train(partial(loader, pre), plain_loss(pre, network, device), held, 1e-3)
                head = LinearHead(network.encoder.size, len(classes), settings)
                network.head = head.to(device)
                warm = plain_loss(data, network, device)
                some = head.parameters()
                train(partial(loader, data), warm, validation, 1e-3, epochs=5, trained=some)
                rate = 5e-4
        elif model == "bilstm-attention-smote":
            data = plain_smote(data, fold.seed)
        train(partial(loader, data), plain_loss(data, network, device), validation, rate)
        values, present = map(torch.from_numpy, inputs.sequences(target.X[fold.test]))
        with torch.no_grad():
            predicted = network(values.to(device), present.to(device)).argmax(1).cpu()
        scores.append(f1_score(codes[fold.test], predicted, average="macro"))
    return float(np.mean(scores))


def our_protocol(
    model: str, cohorts: dict[str, anndata.AnnData], chosen: argparse.Namespace
) -> float:
    """The same with `crosspatch.benchmark`."""
    result = crosspatch.benchmark(
        cohorts,
        tasks=[chosen.task],
        models=[model],
        protocol=chosen.protocol,
        jobs=chosen.jobs,
        device=chosen.device,
    )
    return float(result.summary["macro_f1_mean"].iloc[0])


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--task", default="transfer", choices=list(TASKS))
    parser.add_argument("--models", nargs="+", default=list(MODEL_NAMES), choices=MODEL_NAMES)
    parser.add_argument("--protocol", default="quick", choices=list(PROTOCOLS))
    parser.add_argument("--runs", type=int, help="fewer runs than the protocol has")
    parser.add_argument("--plain-runs", type=int, help="fewer runs for the plain loop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--data-dir")
    chosen = parser.parse_args()

    cohorts = load_cohorts(["allen"], "shared", [chosen.task], chosen.data_dir)
    PROTOCOLS[chosen.protocol] = protocol_named(chosen.protocol, chosen.runs)
    task, runs = TASKS[chosen.task], PROTOCOLS[chosen.protocol].runs
    chosen.plain_runs = min(chosen.plain_runs or runs, runs)
    where, machine = "", f"{platform.machine()}, {os.cpu_count()} cores"
    if chosen.device != "cpu":
        torch.zeros(1, device=chosen.device)  # it starts before anything is timed
        where, machine = f"-{chosen.device}", f"{torch.cuda.get_device_name()}, {machine}"
    reading = "hodge2019" if task.aligned else None
    target = cells_of(cohorts[task.species], reading)
    source = cells_of(cohorts[task.source], reading) if task.source else None
    rows: list[dict[str, object]] = []
    ours, plain = Cost(0, 0), Cost(0, 0)
    for name in chosen.models:
        if model_entry(name).needs_source and source is None:
            continue
        cost, score = measured(partial(our_protocol, name, cohorts, chosen))
        row = {"model": name, **of_run("", cost, runs), "macro-F1": score}
        if name in PLAIN:
            work = partial(plain_protocol, name, target, source, chosen.task, chosen)
            other, score = measured(work)
            other = other.of(runs / chosen.plain_runs)
            row |= {**of_run("plain ", other, runs), "plain macro-F1": score} | ratios(cost, other)
            ours, plain = ours + cost, plain + other
        rows.append(row)
        print(row, flush=True)
    if plain.wall:
        total = {**of_run("", ours, runs), **of_run("plain ", plain, runs)} | ratios(ours, plain)
        rows.append({"model": "all", **total})
    frame = pd.DataFrame(rows)
    lines = [
        f"# Training: task {chosen.task}, protocol {chosen.protocol} ({runs} runs of 5 folds)",
        "",
        f"{machine}, load {os.getloadavg()[0]:.1f}, {chosen.jobs} worker processes, device "
        f"{chosen.device}, Python {platform.python_version()}, torch {torch.__version__}. A run is "
        f"5 folds, start of the workers included, the plain loop's seconds the mean of "
        f"{chosen.plain_runs}; ratios are plain over ours.",
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
    out = Path(__file__).parent / "results" / f"training-{chosen.task}{where}.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
