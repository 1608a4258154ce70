"""What is measured in one project, in this order: its first build, erasures, additions, and an audit that nobody left a trace."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Literal, TypedDict

from bench.erasure.ground import NEWCOMERS, manifest_of, read_manifest
from bench.erasure.meter import Appearance, Spent
from bench.erasure.project import LOADING, Place, say, untouched
from bench.lab.report import STARTED, command_line, processor
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params

AUDITED = 10_000  # private records up to which `audit --rebuild` follows, which builds once more; and for the digits
LEFT = 0.2  # of the people must still be there after an erasure: a project of few is another project
BUILD: Final = "build"
PRETRAIN: Final = "pretrain"
ERASURE: Final = "erasure"
PLAN: Final = "plan --add"
GROWTH: Final = "build of newcomers"
AUDIT: Final = "audit"
What = Literal["build", "pretrain", "erasure", "plan --add", "build of newcomers", "audit"]


class Run(TypedDict):
    """One command measured, or an audit.

    clusters: that were asked for; total: that there were; people: who left or came; warm: beside warm processes.
    effect: wall s from the command's start until the served model left the people out, of an erasure.
    tuning: s of processor of the clusters' own tuning, of an erasure; retrained, records_retrained: clusters and their records.
    steps: wall s by the command's own `timings`; load: of the machine, when it began (1 minute); equal: of the audit.
    """

    data: str
    records: int
    clusters: int
    way: str
    method: str
    what: What
    people: int
    warm: bool
    spent: dict[str, float]
    effect: float | None
    tuning: float | None
    total: int | None
    retrained: int | None
    records_retrained: int | None
    steps: Mapping[str, float]
    equal: bool | None
    load: float
    command: str
    revision: str
    processor: str


class Course:
    """The measurements of one project; each is told when it begins and yielded when it is done."""

    def __init__(
        self,
        place: Place,
        people: Sequence[int],
        modes: Sequence[bool],
        pretrained: dict[tuple[str, int], tuple[Spent, float]] | None = None,
    ) -> None:
        """Args: people: who leave at once, in turn; modes: whether warm; both, or one of them.

        pretrained: what the stage took on public records that other projects of this run have as well, and the load then.
        """
        self.place, self.people, self.modes = place, people, modes
        self._pretrained = {} if pretrained is None else pretrained
        self._loading: float | None = None

    def runs(self) -> Iterator[Run]:
        if not self.place.built:
            self.place.prepare()
            yield from self._build()
        # Those who come, come last: erasures are measured with as many records as the project was made with.
        if False in self.modes:
            yield from self._erasures([])
        if True in self.modes:
            with self.place.warm() as processes:
                self._say("an erasure that warms up, not counted")
                self._forget(1, processes)
                yield from self._erasures(processes)
                yield from self._addition(processes)
        if False in self.modes:
            yield from self._addition([])
        if self.place.ground.records <= AUDITED or self.place.ground.data == "digits":
            yield self._audit()

    def _erasures(self, warm: Sequence[int]) -> Iterator[Run]:
        return (self._erasure(count, warm) for count in self.people if self._enough(count))

    def _say(self, text: str) -> None:
        say(f"{self.place.ground.name}: {text}")

    def _run(self, what: What, people: int, spent: Spent | None, load: float, warm: bool = False, **more: Any) -> Run:
        ground = self.place.ground
        fields: dict[str, Any] = {
            "data": ground.results,
            "records": ground.records,
            "clusters": ground.clusters,
            "way": ground.way,
            "method": ground.method,
            "what": what,
            "people": people,
            "warm": warm,
            "spent": {name: round(value, 3) for name, value in asdict(spent).items()} if spent else {},
            "effect": None,
            "tuning": None,
            "total": None,
            "retrained": None,
            "records_retrained": None,
            "steps": {},
            "equal": None,
            "load": load,
            "command": command_line(),
            "revision": STARTED[0],
            "processor": processor(),
        }
        done: Run = fields | more  # type: ignore[assignment]
        if spent:
            self._say(
                f"{what}, {people} people, {'warm' if warm else 'cold'}: {spent.cpu:.1f} s of processor, {spent.wall:.1f} s"
            )
        return done

    def _build(self) -> Iterator[Run]:
        """From nothing, as a user's first one; and the pretraining that is in it, run once more."""
        self._say("first build")
        load = _load()
        spent, _ = self.place.lmeraser("build")
        self.place.commit("Built")
        self.place.save()
        yield self._run(BUILD, 0, spent, load, total=self._clusters())
        same = self.place.ground.data, self.place.ground.records
        if same not in self._pretrained:
            load = _load()
            with untouched([Layout(self.place.root).backbone]):
                self._pretrained[same] = self.place.run("-m", "stages.pretrain")[0], load
        yield self._run(PRETRAIN, 0, *self._pretrained[same])

    def _enough(self, count: int) -> bool:
        there = len(self.place.everybody())
        if there - self.place.progress.people - count >= LEFT * there:
            return True
        self._say(f"{count} people at once: not measured, too few would be left of {there}")
        return False

    def _forget(self, count: int, warm: Sequence[int]) -> tuple[Spent, dict[str, Any], float | None]:
        people = self.place.take(count)
        with Appearance(Layout(self.place.root).quarantine) as effect:
            spent, answer = self.place.lmeraser("forget", "--subject", *people, warm=warm)
        if answer["state"] != "certified" or not answer["certificate"]:
            raise SystemExit(f"bench.erasure: an erasure ended {answer['state']} and not certified: {answer['problem']}")
        self.place.commit(f"Without {count} people")
        return spent, answer, None if effect.seconds is None else round(effect.seconds, 3)

    def _erasure(self, count: int, warm: Sequence[int]) -> Run:
        self._say(f"{count} people leave at once, {'warm' if warm else 'cold'}")
        load = _load()
        spent, answer, effect = self._forget(count, warm)
        return self._run(
            ERASURE,
            count,
            spent,
            load,
            bool(warm),
            effect=effect,
            tuning=self._tuning(answer["slots_retrained"] or []),
            total=answer["clusters_total"],
            retrained=answer["clusters_retrained"],
            records_retrained=answer["records_retrained"],
            steps=answer["timings"],
        )

    def _tuning(self, slots: Sequence[str]) -> float:
        """Processor seconds of the clusters' own training: their stage once more, less what it takes to load all it needs."""
        layout = Layout(self.place.root)
        if not slots or load_params(layout.params).tune.kind != "sgd":
            return 0.0
        if self._loading is None:
            self._loading = self.place.run("-c", LOADING)[0].cpu
        with untouched([layout.tuned(slot) for slot in slots]):
            spent, _ = self.place.run("-m", "stages.tune", *slots)
        return round(max(0.0, spent.cpu - self._loading), 3)

    def _addition(self, warm: Sequence[int]) -> Iterator[Run]:
        """What newcomers would retrain, and the build with them."""
        if self.place.ground.data == "digits":  # their images come with scikit-learn: nobody can be added
            return
        self._say(f"{NEWCOMERS} new records, {'warm' if warm else 'cold'}")
        with self.place.newcomers() as folder:
            came = read_manifest(manifest_of(folder))["subject"].nunique()
            if self.place.ground.method != "anchors":  # where all may change nothing is planned
                load = _load()
                spent, plan = self.place.lmeraser("plan", "--add", str(folder), warm=warm)
                amounts = {"total": plan["clusters_total"], "retrained": plan["clusters_retrained"]}
                yield self._run(PLAN, came, spent, load, bool(warm), records_retrained=plan["records_retrained"], **amounts)
            self.place.add_newcomers(folder)
        load = _load()
        spent, _ = self.place.lmeraser("build", warm=warm)
        self.place.commit(f"With {NEWCOMERS} new records")
        yield self._run(GROWTH, came, spent, load, bool(warm), total=self._clusters())

    def _clusters(self) -> int:
        return len(json.loads(Layout(self.place.root).sizes.read_bytes()))

    def _audit(self) -> Run:
        self._say("audit --rebuild (not counted)")
        load = _load()
        _, answer = self.place.lmeraser("audit", "--rebuild")
        return self._run(AUDIT, 0, None, load, equal=bool(answer["equal"]))


def _load() -> float:
    return round(os.getloadavg()[0], 1)
