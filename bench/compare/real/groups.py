"""Peers who train on features by SGD or in groups: the paper's clustering, SISA's shards, one head for all."""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.compare.real.chosen import fit
from bench.compare.real.outcome import Outcome, spent
from bench.compare.real.stand import Stand
from bench.lab.changes import changed
from lmeraser.clusters.files import Cluster, Member
from lmeraser.clusters.global_head import GlobalHead, solve
from lmeraser.clusters.quantisation import squared_distances
from lmeraser.core.digest import number_from, seed_for
from lmeraser.data.units import unit_of
from lmeraser.learn.anchors import cluster_by_anchors
from lmeraser.learn.augmentation import draws, epoch_order
from lmeraser.learn.embedding import exact_sums
from lmeraser.learn.tuning import batch_size, rate_at

SHARDS = 16
REPLAYS = 2  # people whose deletion replays the paper's clustering


def paper(stand: Stand) -> Outcome:
    """Xu et al. 2024: private anchors, average linkage, hard routing; a discriminant of a cluster's own sums instead of a prompt.

    Its prototypes are means of private features: a deletion replays the clustering and solves again the clusters that it changed.
    """
    params, records = stand.params, stand.train.records
    cluster_params = changed(params, {"cluster.method": "anchors"}).cluster
    labels = np.array(stand.train.labels, dtype=object)
    members = [Member(record.id, record.sha256, record.label, unit_of(record, params.cluster.unit), 0, "") for record in records]
    row_of = {record.id: row for row, record in enumerate(records)}

    def clusters(rows: NDArray[np.int64]) -> list[Cluster]:
        return cluster_by_anchors([members[row] for row in rows], stand.quantised[rows], cluster_params, params.slots)

    def head(cluster: Cluster) -> GlobalHead:
        rows = np.array([row_of[member.id] for member in cluster.members], dtype=np.int64)
        return solve([exact_sums(stand.summands[rows], labels[rows].tolist())], stand.rule)

    made, clustering = spent(lambda: clusters(np.arange(len(records))))
    heads, solving = spent(lambda: [head(cluster) for cluster in made])
    before = {_ids(cluster) for cluster in made}
    seconds = []
    for person in stand.leavers(REPLAYS):
        kept = np.setdiff1d(np.arange(len(records)), stand.rows_of[person])
        after, replaying = spent(partial(clusters, kept))
        again = 0
        for cluster in after:
            if _ids(cluster) not in before:
                again += len(cluster.members)
        seconds.append(replaying + solving * again / len(records))
    known = sorted(set(stand.train.labels))
    test = stand.skeleton.summand(stand.test_quantised, params.projection.levels)
    nearest = squared_distances(stand.test_quantised, np.array([cluster.prototype for cluster in made])).argmin(1)
    answer = np.zeros((len(test), len(known)))
    for place, own in enumerate(heads):
        rows = np.flatnonzero(nearest == place)
        answer[np.ix_(rows, np.array([known.index(label) for label in own.labels]))] = own.probabilities(test[rows])
    storage = sum(own.weight.nbytes + own.bias.nbytes for own in heads) + sum(cluster.prototype.nbytes for cluster in made)
    largest = max(len(cluster.members) for cluster in made)
    return Outcome(
        answer, known, clustering + solving, float(np.mean(seconds)), len(records) - stand.own, storage,
        chosen={"clusters": len(made), "largest": largest},
    )  # fmt: skip


def _ids(cluster: Cluster) -> frozenset[str]:
    return frozenset(member.id for member in cluster.members)


def shards(stand: Stand) -> Outcome:
    """SISA (Bourtoule et al. 2021, arXiv:1912.03817): people at random in shards, one logistic regression each, averaged."""
    place = np.array([number_from("shard", person) % SHARDS for person in stand.train.people])
    train, test = stand.deep(stand.train), stand.deep(stand.test)
    labels = np.array(stand.train.labels, dtype=object)
    known = sorted(set(labels))
    penalty = stand.deep_penalty
    answer = np.zeros((len(test), len(known)))
    seconds, storage, used = 0.0, 0, 0
    for shard in sorted(set(place.tolist())):
        rows = np.flatnonzero(place == shard)
        own = sorted(set(labels[rows]))
        used += 1
        if len(own) < 2:
            answer[:, known.index(own[0])] += 1
            continue
        model, taken = spent(partial(fit, train[rows], labels[rows].tolist(), penalty))
        seconds += taken
        storage += model.storage
        answer[:, [known.index(label) for label in model.labels]] += model.probabilities(test)
    again = len(train) / used - stand.own
    return Outcome(answer / used, known, seconds, seconds / used, max(again, 0.0), storage, chosen={"penalty": penalty})


def tuned_head(stand: Stand) -> Outcome:
    """One linear head by SGD on all private records with the preset's schedule; a deletion trains it again."""
    tune = stand.params.tune
    rows = torch.from_numpy(stand.deep(stand.train))
    known = sorted(set(stand.train.labels))
    target = torch.tensor([known.index(label) for label in stand.train.labels])
    ids = [record.id for record in stand.train.records]
    seed = seed_for(stand.params.seed, "tune")

    def train() -> nn.Linear:
        head = nn.Linear(rows.shape[1], len(known))
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        optimiser = torch.optim.SGD(head.parameters(), lr=tune.head_rate, momentum=tune.momentum, weight_decay=tune.head_decay)
        batch = batch_size(len(rows), tune)
        per_epoch = -(-len(rows) // batch)
        steps = per_epoch * tune.epochs
        for step in range(steps):
            epoch, place = divmod(step, per_epoch)
            if not place:
                order = epoch_order(draws(ids, epoch, seed))
            chosen = torch.from_numpy(order[place * batch : (place + 1) * batch])
            for group in optimiser.param_groups:
                group["lr"] = tune.head_rate * rate_at(step, steps, tune.warmup)
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(head(rows[chosen]), target[chosen]).backward()
            optimiser.step()
        return head

    head, seconds = spent(train)
    with torch.no_grad():
        answer = torch.softmax(head(torch.from_numpy(stand.deep(stand.test))).double(), 1).numpy()
    storage = 4 * (head.weight.numel() + head.bias.numel())
    return Outcome(answer, known, seconds, seconds, len(rows) - stand.own, storage)
