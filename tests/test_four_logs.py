"""Four logs in the shapes of public ones: checked, trained, exported and served, and no worse than a linear model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MaxAbsScaler

from serving.server import Server
from tests.records import write_records
from tfctr.client import RankingClient
from tfctr.data.check import check_dataset
from tfctr.data.sources import split_files
from tfctr.export.saved_model import export_model
from tfctr.features import FeatureFile
from tfctr.metrics.reference import auc
from tfctr.training.evaluate import predict
from tfctr.training.experiment import Experiment
from tfctr.training.workspace import finished_run, train_in_workspace

pytestmark = pytest.mark.e2e

Row = dict[str, Any]
ALLOWED_GAP = 0.005
SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}
TIME = 1_750_000_000


@dataclass(frozen=True)
class Log:
    """Rows in the order of time, with the feature file and the experiment that a user would write for them."""

    rows: list[Row]
    features: dict[str, Any]
    experiment: dict[str, Any]


def _clicks(rng: np.random.Generator, logit: Any, rate: float) -> Any:
    """Clicks of that rate in the mean, whatever the mean of the logits."""
    low, high = -30.0, 30.0
    for _ in range(60):
        shift = (low + high) / 2
        low, high = (shift, high) if np.mean(1 / (1 + np.exp(-logit - shift))) < rate else (low, shift)
    return (rng.random(len(logit)) < 1 / (1 + np.exp(-logit - shift))).astype(int)


def rating_log(rng: np.random.Generator) -> Log:
    """Users rate films in the order of time; the last 20 ratings are the history."""
    count, users, items = 40_000, 150, 120
    user, item = rng.integers(users, size=count), (items * rng.beta(1, 3, count)).astype(int)
    taste, quality, lean = rng.normal(size=(users, 4)), rng.normal(size=(items, 4)), rng.normal(size=items)
    bias = rng.normal(size=users)
    liked = _clicks(rng, 1.2 * lean[item] + bias[user] + 0.6 * np.sum(taste[user] * quality[item], -1), 0.55)
    past: dict[int, list[tuple[int, int]]] = {}
    rows = []
    for i in range(count):
        history = past.setdefault(int(user[i]), [])
        newest = history[::-1][:20]
        rows.append(
            {
                "label": int(liked[i]),
                "user_id": int(user[i]),
                "item_id": int(item[i]),
                "timestamp": TIME + 60 * i,
                "history_item_id": [one for one, _ in newest],
                "history_time": [time for _, time in newest],
            }
        )
        history.append((int(item[i]), TIME + 60 * i))
    features = {
        "group": "user_id",
        "timestamp": "timestamp",
        "user": {"user_id": {"dtype": "int64"}},
        "candidate": {"item_id": {"dtype": "int64"}},
        "sequences": {
            "history": {
                "max_length": 20,
                "fields": {"history_item_id": {"share": "item_id"}, "history_time": {"kind": "event_time"}},
            }
        },
    }
    return Log(rows, features, {"preset": "fm", "model": {"embedding_l2": 1e-4}})


def rare_click_log(rng: np.random.Generator) -> Log:
    """Advertisements on sites, clicked once in two hundred impressions. Nothing is known of a user."""
    count = 120_000
    columns = {name: rng.integers(size, size=count) for name, size in {"ad": 80, "campaign": 12, "site": 60}.items()}
    columns["device"] = rng.integers(4, size=count)
    logit = sum(rng.normal(0, 1.0, 100)[values] for values in columns.values())
    label = _clicks(rng, logit + rng.normal(0, 1.5, (4, 12))[columns["device"], columns["campaign"]], 0.005)
    rows = [
        {"label": int(label[i]), "timestamp": TIME + i, **{name: str(values[i]) for name, values in columns.items()}}
        for i in range(count)
    ]
    text: Row = {"dtype": "string"}
    features = {
        "timestamp": "timestamp",
        "candidate": {"ad": text, "campaign": text},
        "context": {"site": text, "device": text},
    }
    return Log(rows, features, {"preset": "mlp", "training": {"learning_rate": 0.001}})


def table_log(rng: np.random.Generator) -> Log:
    """Counts with long tails and gaps, and hashed categories, as in Criteo's logs: no user, no time, no history."""
    count = 24_000
    counts = rng.geometric(0.15, size=(count, 6)) ** 2
    categories = rng.integers(0, [8, 20, 50, 100, 200, 400], size=(count, 6))
    missing = rng.random(counts.shape) < 0.2
    logit = (np.where(missing, 0.0, np.log1p(counts) - 3.2) * [0.6, -0.5, 0.4, 0.2, 0.0, 0.0]).sum(-1)
    logit += sum(rng.normal(0, 0.6, 400)[values] for values in categories.T)
    label = _clicks(rng, logit + rng.normal(0, 0.5, (8, 20))[categories[:, 0], categories[:, 1]], 0.25)
    rows = []
    for i in range(count):
        row: Row = {"label": int(label[i])}
        row |= {f"I{k}": int(counts[i, k]) for k in range(6) if not missing[i, k]}
        row |= {f"C{k}": f"{categories[i, k] * 2654435761 % 2**32:08x}" for k in range(6)}
        rows.append(row)
    number: Row = {"kind": "numeric", "dtype": "int64", "transform": "log1p"}
    features = {
        "candidate": {f"I{k}": number for k in range(6)}
        | {f"C{k}": {"dtype": "string", "vocabulary": {"type": "learned", "min_count": 2}} for k in range(6)}
    }
    return Log(rows, features, {"preset": "deepfm", "model": {"embedding_l2": 1e-5}})


def long_history_log(rng: np.random.Generator) -> Log:
    """Users with up to 1,000 events; what they do with an item depends on how often its category is among them."""
    count, users, items, categories = 12_000, 60, 100, 8
    of_item = rng.integers(categories, size=items)
    shares = rng.dirichlet(np.full(categories, 0.4), users)
    histories = []
    for share in shares:
        weight = share[of_item] / share[of_item].sum()
        histories.append(rng.choice(items, size=rng.integers(200, 1000), p=weight))
    user, item = rng.integers(users, size=count), rng.integers(items, size=count)
    lean = rng.normal(0, 0.8, items)
    label = _clicks(rng, lean[item] + 6 * shares[user, of_item[item]], 0.3)
    rows = [
        {
            "label": int(label[i]),
            "user_id": int(user[i]),
            "item_id": int(item[i]),
            "category": int(of_item[item[i]]),
            "seen_item_id": histories[user[i]].tolist(),
            "seen_category": of_item[histories[user[i]]].tolist(),
        }
        for i in range(count)
    ]
    features = {
        "group": "user_id",
        "user": {"user_id": {"dtype": "int64"}},
        "candidate": {"item_id": {"dtype": "int64"}, "category": {"dtype": "int64"}},
        "sequences": {
            "seen": {
                "max_length": 1000,
                "fields": {"seen_item_id": {"share": "item_id"}, "seen_category": {"share": "category"}},
            }
        },
    }
    return Log(rows, features, {"preset": "mlp", "training": {"batch_size": 128, "learning_rate": 0.001}})


def write(log: Log, directory: Path) -> dict[str, list[Row]]:
    """Writes the splits in the order of the rows, and returns them."""
    splits, first = {}, 0
    for split, share in SHARES.items():
        last = first + round(share * len(log.rows))
        splits[split], first = log.rows[first:last], last
        write_records(directory / split / "rows.tfrecord", splits[split])
    return splits


def linear_auc(splits: Mapping[str, list[Row]], file: FeatureFile) -> float:
    """scikit-learn's logistic regression on the same columns: one-hot, counts of a history's values, log counts."""
    numbers = {feature.name for feature in file.features if feature.kind.kind == "numeric"}
    left_out = {"label", file.timestamp, "history_time"}

    def columns(row: Row) -> Row:
        found: Row = {}
        for name, value in row.items():
            if name in left_out:
                continue
            if name in numbers:
                found[name] = np.log1p(value)
            elif isinstance(value, list):
                unique, counts = np.unique(value, return_counts=True)
                found |= {f"{name}={one}": n / len(value) for one, n in zip(unique, counts, strict=True)}
            else:
                found[f"{name}={value}"] = 1.0
        return found

    vectorizer, scaler = DictVectorizer(), MaxAbsScaler()
    train = scaler.fit_transform(vectorizer.fit_transform(map(columns, splits["train"])))
    test = scaler.transform(vectorizer.transform(map(columns, splits["test"])))
    labels = {split: np.array([row["label"] for row in rows]) for split, rows in splits.items()}
    model = LogisticRegression(max_iter=1000).fit(train, labels["train"])
    return float(auc(labels["test"], model.decision_function(test)))


@pytest.mark.parametrize("make", [rating_log, rare_click_log, table_log, long_history_log])
def test_a_log_from_check_to_a_served_score(make: Callable[[np.random.Generator], Log], tmp_path: Path) -> None:
    log = make(np.random.default_rng(7))
    data = tmp_path / "data"
    splits = write(log, data)
    content = {"labels": {"click": "label"}, "embedding_dimension": 8, **log.features}
    file = FeatureFile.model_validate(yaml.safe_load(yaml.safe_dump(content)))
    assert check_dataset(data, file) == ({split: len(rows) for split, rows in splits.items()}, [])

    training = {"batch_size": 512, "learning_rate": 0.003, "epochs": 8, "jit_compile": False}
    training |= log.experiment.get("training", {})
    experiment = Experiment.model_validate({**log.experiment, "training": training})
    train_in_workspace(file, experiment, data, tmp_path / "run")
    run = finished_run(tmp_path / "run")
    directory = export_model(run.model, run.assets, run.experiment, tmp_path / "served" / "1", history=run.history)
    predictions = predict(directory, file, split_files(data, "test"))
    reached, linear = float(auc(predictions.labels, predictions.scores)), linear_auc(splits, file)
    print(f"{make.__name__}: AUC {reached:.4f}, logistic regression {linear:.4f}")
    assert linear > 0.55
    assert reached >= linear - ALLOWED_GAP

    sides: dict[str, set[str]] = {"user": set(), "candidate": set(), "context": set()}
    for feature in file.features:
        sides[feature.side].add(feature.name)
    with Server(directory.parent, "ranking") as server, RankingClient(server.address, timeout_seconds=60) as client:
        for row, expected in zip(splits["test"][:3], predictions.scores, strict=False):
            user, candidate, context = ({n: v for n, v in row.items() if n in names} for names in sides.values())
            [ranked] = client.rank(user, [candidate], context, k=1)
            assert ranked.probability == pytest.approx(expected, abs=1e-6)
