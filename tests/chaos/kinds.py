"""Requests of every kind about real people, mixed with each other, while `lmeraser resume` is killed again and again.

    python tests/chaos/kinds.py --each 20 --seed 0            # needs the image packs (LMERASER_SHARED_DATA)

One project of sign digits and MNIST writers, with a remote and git history. Rounds of requests, several at a time, then kills of
whatever carries them out, at step boundaries and at random times. In the end every request is certified, or rejected with a
reason, the chain verifies, a rebuild is equal and the stores are clean, and the outs are those of a project that had the final
records from the first day. Prints one line a round and one JSON object at the end.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import pandas as pd
import preloading
from campaign import Tally, one_kill
from interruptions import git
from sandbox import CANARY, Sandbox, make_project

from bench.lab.sources import laid_out
from lmeraser.core.digest import sha256
from lmeraser.data.records import PRIVATE, PUBLIC, TEST, TRAIN
from lmeraser.pipeline.locks import read_outs
from lmeraser.sources import drafting
from lmeraser.sources.base import COLUMNS

PACKS = ("signdigits64_q85", "mnist10k_writers")
KINDS = ("person", "image", "label", "subject", "added", "feed", "held", "withdrawn")
IMAGES = 8  # of a person, at most
PUBLIC_PEOPLE, TEST_PEOPLE = 10, 5  # of each pack
AT_ONCE = (8, 14)  # requests between two times that all of them are carried out
KILLS = (2, 3)  # a round
GRACE = 25.0  # s
TRIES = 3  # of a request of each kind, where some are refused because of what is open
PARAMS: dict[str, Any] = {
    "parts": ["p00", "p01", "p02", "p03"],
    "shards": 2,
    "slots": [f"c{slot:02}" for slot in range(8)],
    "skeleton": {"leaves": 8},
    "cluster": {"n_max": 160},
    "evaluate": {"linear_head": False},
    "service": {"grace_s": GRACE, "attempts": 1000},
}


@dataclass(frozen=True)
class Row(drafting.Row):
    """A row of the manifest. Attributes: digest: of its image."""

    digest: str


def lay_out(stock: Path, private: int) -> list[Row]:
    """People of both packs, and their images in a folder outside of any project. Args: private: how many of each pack."""
    (stock / "images").mkdir(parents=True)
    rows: list[Row] = []
    for pack in PACKS:
        with laid_out(["--private", pack]) as folder:
            table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
            learnt, asked = (sorted(table.loc[table["split"] == split, "subject"].unique()) for split in (TRAIN, TEST))
            visible = set(learnt[:PUBLIC_PEOPLE])
            chosen = {*learnt[: PUBLIC_PEOPLE + private], *asked[:TEST_PEOPLE]}
            for row in table[table["subject"].isin(chosen)].groupby("subject").head(IMAGES).itertuples():
                image = (folder / str(row.path)).read_bytes()
                path = f"images/{CANARY}-{pack[:4]}-{row.Index:05}{Path(str(row.path)).suffix}"
                (stock / path).write_bytes(image)
                visibility = PUBLIC if row.subject in visible else PRIVATE
                subject, label = f"{CANARY}-{row.subject}", f"{pack[:4]} {row.label}"
                rows.append(Row(path, label, subject, visibility, str(row.split), sha256(image)))
    times = Counter(row.digest for row in rows)
    return [row for row in rows if times[row.digest] == 1]  # whose an image is, is then said by the image


def write(stock: Path, rows: Sequence[Row], folder: Path) -> None:
    """A source as people have it: images and manifest.csv."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for row in rows:
        if not (folder / row.path).exists():
            shutil.copyfile(stock / row.path, folder / row.path)
    pd.DataFrame([vars(row) for row in rows])[list(COLUMNS)].to_csv(folder / "manifest.csv", index=False)


def built(folder: Path, stock: Path, rows: Sequence[Row]) -> Sandbox:
    project = make_project(folder, write=lambda people: write(stock, rows, people))
    project.set_params(**PARAMS)
    done = project.lmeraser("build")
    if done.returncode:
        raise SystemExit(done.stderr)
    return project


@dataclass
class Mix:
    """Requests of one project.

    Attributes: rows: as they are to be when all is carried out; source: as the manifest has them; newcomers: people who are not
    there yet; on_hold: ids of requests; refused: lines, with how often.
    """

    project: Sandbox
    stock: Path
    rows: list[Row]
    newcomers: list[str]
    of_newcomers: dict[str, list[Row]]
    dice: random.Random
    tally: Tally = field(default_factory=Tally)
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    on_hold: list[str] = field(default_factory=list)
    asked_at: float = 0.0

    def __post_init__(self) -> None:
        self.source = list(self.rows)

    # Commands

    def told(self, *arguments: str) -> dict[str, Any] | None:
        """What a command answers; None if it refused."""
        done = self.project.lmeraser(*arguments, "--json")
        self.tally.check(CANARY not in done.stdout + done.stderr, f"{arguments[0]} names somebody")
        self.asked_at = time.monotonic()
        if done.returncode == 0:
            answer: dict[str, Any] = json.loads(done.stdout)
            return answer
        line = next((line for line in done.stderr.splitlines() if line.startswith("error:")), done.stderr[-300:])
        self.tally.check(done.returncode in (2, 3), f"{arguments[0]}: exit status {done.returncode}: {line}")
        self.refused[f"{arguments[0]}: {line[:90]}"] += 1
        return None

    def person(self) -> str:
        return self.dice.choice(sorted({row.subject for row in self.private()}))

    def private(self) -> list[Row]:
        return [row for row in self.rows if (row.visibility, row.split) == (PRIVATE, TRAIN)]

    def drop(self, gone: Callable[[Row], bool]) -> None:
        self.rows = [row for row in self.rows if not gone(row)]

    def submit(self, *names: str) -> str | None:
        """The request's id, if it is accepted."""
        answer = self.told("submit", *names)
        return str(answer["request_id"]) if answer else None

    def named(self, row: Row) -> tuple[str, str]:
        """A record's image, as one may name it."""
        ways = {"--sha256": row.digest, "--path": row.path, "--image": str(self.stock / row.path)}
        return self.dice.choice(sorted(ways.items()))

    # One request of each kind; returns whether it was accepted

    def ask(self, kind: str) -> bool:
        accepted: bool = getattr(self, f"_{kind}")()
        self.done[kind] += accepted
        return accepted

    def _person(self) -> bool:
        person = self.person()
        accepted = self.submit("--subject", person) is not None
        if accepted:
            self.drop(lambda row: row.subject == person)
        return accepted

    def _image(self) -> bool:
        row = self.dice.choice(self.private())
        accepted = self.submit(*self.named(row)) is not None
        if accepted:
            self.drop(lambda other: other == row)
        return accepted

    def _corrected(self, row: Row, option: str, value: str, new: Row) -> bool:
        accepted = self.told("correct", *self.named(row), option, value) is not None
        if accepted:
            self.rows[self.rows.index(row)] = new
        return accepted

    def _label(self) -> bool:
        row = self.dice.choice(self.private())
        labels = {other.label for other in self.private() if other.label.split()[0] == row.label.split()[0]}
        label = self.dice.choice(sorted(labels - {row.label}))
        return self._corrected(row, "--label", label, replace(row, label=label))

    def _subject(self) -> bool:
        row, person = self.dice.choice(self.private()), self.person()
        return row.subject != person and self._corrected(row, "--subject", person, replace(row, subject=person))

    def _feed(self) -> bool:
        person, feed = self.person(), self.stock / "withdrawn.csv"
        feed.write_text(f"subject\n{person}\n")
        proposed = (self.told("propose", "--feed", str(feed)) or {"proposed": []})["proposed"]
        accepted = bool(proposed) and self.told("approve", *proposed, "--by", "A. Officer") is not None
        if accepted:
            self.drop(lambda row: row.subject == person)
        return accepted

    def _held(self) -> bool:
        person = self.person()
        request = self.submit("--subject", person)
        if request is None:
            return False
        self.drop(lambda row: row.subject == person)
        until = (date.today() + timedelta(days=30)).isoformat()
        held = self.told("hold", request, "--until", until, "--reason", "a case") is not None
        self.on_hold += [request] if held else []
        return held

    def _withdrawn(self) -> bool:
        person = self.person()
        request = self.submit("--subject", person)
        if request is None:
            return False
        withdrawn = self.told("withdraw", request) is not None
        if not withdrawn:  # its grace was over
            self.drop(lambda row: row.subject == person)
        return withdrawn

    def _added(self) -> bool:
        person = self.newcomers.pop()
        self.rows += self.of_newcomers[person]
        self.source += self.of_newcomers[person]
        write(self.stock, self.source, self.project.root / "people")
        return True

    # Rounds

    def round(self, kinds: Sequence[str]) -> list[str]:
        """Ask, in this order, and have all of it carried out while it is killed. Returns the kinds that were refused."""
        refused = [kind for kind in kinds if kind != "added" and not self.ask(kind)]
        if added := kinds.count("added"):
            for _ in range(added):
                self.ask("added")
            self.told("build")
        for request in [request for request in self.on_hold if self.dice.random() < 0.5]:
            self.release(request)
        time.sleep(max(0.0, self.asked_at + GRACE + 1 - time.monotonic()))
        for _ in range(self.dice.randint(*KILLS)):
            one_kill(self.project, self.dice, self.tally, longest=60.0)
        self.finish()
        if self.dice.random() < 0.5:  # as people do
            git(self.project, "add", "--all")
            git(self.project, "commit", "-q", "--allow-empty", "-m", "a round")
            self.project.dvc("push", "--quiet")
        return refused

    def release(self, request: str) -> None:
        self.on_hold.remove(request)
        self.tally.check(self.told("release", request) is not None, "a hold was not released")

    def finish(self) -> None:
        done = self.project.lmeraser("resume")
        self.tally.check(done.returncode == 0, f"resume: {done.stderr[-300:]}")

    # The end

    def falsehoods(self, fresh: Sandbox) -> Iterator[str]:
        """What is not as it must be. Args: fresh: a project that had the final records from the first day."""
        requests = self.project.json("status")["requests"]
        states = Counter(request["state"] for request in requests)
        if odd := states.keys() - {"certified", "rejected"}:
            yield f"requests are left {sorted(odd)}"
        if any(request["state"] == "rejected" and not request["reason"] for request in requests):
            yield "a request is rejected without a reason"
        folder = self.project.root / "certificates"
        files = sorted(map(str, folder.glob("*.json")))
        if len(files) != states["certified"]:
            yield f"{len(files)} certificates for {states['certified']} certified requests"
        verified = self.project.lmeraser("verify", *files, "--head", str(folder / "HEAD"))
        if verified.returncode:
            yield f"the chain: {verified.stderr[-300:]}"
        audit = self.project.lmeraser("audit", "--rebuild", "--stores", "--json")
        if audit.returncode:
            yield f"the audit: {audit.stdout[-600:]} {audit.stderr[-300:]}"
        here, there = (read_outs(project.root / "dvc.lock") for project in (self.project, fresh))
        if differing := sorted(path for path in {*here, *there} if here.get(path) != there.get(path)):
            yield f"{len(differing)} of {len(here)} outs are not those of the first day: {differing[:5]}"


def kinds(each: int, seed: int) -> dict[str, Any]:
    """So many requests of each kind; returns what was seen."""
    dice, began = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lmeraser-kinds-") as name:
        folder = Path(name)
        rows = lay_out(folder / "stock", private=2 * each + 15)
        people = sorted({row.subject for row in rows if (row.visibility, row.split) == (PRIVATE, TRAIN)})
        newcomers = dice.sample(people, each)
        of_newcomers = {person: [row for row in rows if row.subject == person] for person in newcomers}
        first = [row for row in rows if row.subject not in of_newcomers]
        project = built(folder / "project", folder / "stock", first)
        project.dvc("remote", "add", "--quiet", "--default", "disk", str(folder / "remote"))
        git(project, "add", "--all")
        git(project, "commit", "-q", "-m", "the first day")
        project.dvc("push", "--quiet")
        print(f"built with {len(first)} records in {time.monotonic() - began:.0f} s", flush=True)
        mix = Mix(project, folder / "stock", first, newcomers, of_newcomers, dice)
        rounds = _rounds(mix, each)
        for request in list(mix.on_hold):
            mix.release(request)
        mix.finish()
        for problem in mix.falsehoods(built(folder / "fresh", folder / "stock", mix.rows)):
            mix.tally.check(False, problem)
    return {
        "requests": dict(mix.done),
        "rounds": rounds,
        "kills": mix.tally.kills.total(),
        "by": dict(sorted(mix.tally.kills.items())),
        "refused": dict(mix.refused),
        "problems": mix.tally.problems,
        "seconds": round(time.monotonic() - began),
        "seed": seed,
    }


def _rounds(mix: Mix, each: int) -> int:
    """Rounds until so many requests of each kind were accepted. Returns how many it took."""
    waiting = [kind for kind in KINDS for _ in range(each)]
    mix.dice.shuffle(waiting)
    left = TRIES * len(waiting)
    rounds = 0
    while waiting and left > 0:
        size = mix.dice.randint(*AT_ONCE)
        now, waiting = waiting[:size], waiting[size:]
        waiting += mix.round(now)
        left -= len(now)
        rounds += 1
        counts = f"{mix.done.total()} requests, {mix.tally.kills.total()} kills, {len(mix.tally.problems)} problems"
        print(f"round {rounds}: {counts}", flush=True)
    mix.tally.check(not waiting, f"{len(waiting)} requests were refused again and again")
    return rounds


def main() -> int:
    parser = argparse.ArgumentParser(description="Requests of every kind, mixed with kills, on a project of real people.")
    parser.add_argument("--each", type=int, default=20, help="requests of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, preloading.server(Path(folder)):
        report = kinds(options.each, options.seed)
    print(json.dumps(report, indent=2))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
