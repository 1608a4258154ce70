"""What `evaluate` remembers: the numbers are those of no memory, whatever lies there; it holds what is needed now and no more."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import contents, png
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import SafetensorError

from flows.purge.leftovers import clear_remembered
from lmeraser.core.digest import sha256
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.data.records import PRIVATE, TEST, Record, read_images, read_records, record_id, write_records
from lmeraser.data.tensors import read_note
from lmeraser.learn.backbone import Backbone
from lmeraser.learn.cluster_model import load_cluster_model, save_cluster_model
from lmeraser.prove.scan import scan
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.serve import looking, remembered
from lmeraser.sources import splitting
from lmeraser.stores.folder import FolderStore
from stages import evaluate as stage
from stages.evaluate import evaluate
from unit.test_exact_heads import built, everybody

PART = "p00"
CHANGES: dict[str, Any] = {"evaluate.linear_head": False, "serve.nearest": 1, "cluster.n_max": 6, "cluster.n_min": 0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Params]:
    """Never change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "check_table", lambda *_: 0)  # Great Expectations takes seconds to import
        return built(tmp_path_factory.mktemp("remembered") / "project", everybody(), CHANGES)


@pytest.fixture(autouse=True)
def _without_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "draw_overview", lambda *_: b"a function of the numbers")


class Project:
    """A copy to change, and what the network was asked."""

    def __init__(self, origin: tuple[Layout, Params], folder: Path) -> None:
        self.layout, self.params = Layout(folder / "project"), origin[1]
        shutil.copytree(origin[0].root, self.layout.root)
        self.bare = Layout(folder / "bare")  # the same artifacts, and no memory
        self.bare.root.mkdir()
        self.bare.artifacts.symlink_to(self.layout.artifacts)

    def evaluate(self, remember: bool = True) -> int:
        """How many images went through the network."""
        evaluation = self.params.evaluate.model_copy(update={"remember": remember})
        params = self.params.model_copy(update={"evaluate": evaluation})
        with passes() as asked:
            evaluate(self.layout, params, [])
        return sum(asked)

    @property
    def numbers(self) -> dict[str, bytes]:
        return contents(self.layout.metrics)

    def expected(self) -> dict[str, bytes]:
        """What a project without any memory tells."""
        params = self.params.model_copy(update={"evaluate": self.params.evaluate.model_copy(update={"remember": False})})
        evaluate(self.bare, params, [])
        return contents(self.bare.metrics)

    @property
    def files(self) -> list[Path]:
        return sorted(self.layout.remembered.iterdir()) if self.layout.remembered.is_dir() else []

    @property
    def slots(self) -> list[str]:
        """Those that answer."""
        return [path.name.partition(".")[0] for path in self.files if not path.name.startswith(remembered.PLAIN)]

    def tests(self) -> list[Record]:
        return [record for part in self.params.parts for record in read_records(self.layout.part(part), TEST)]

    def retune(self, slot: str, seed: int, frame_too: bool) -> None:
        path = self.layout.tuned(slot)
        model = load_cluster_model(path)
        assert model is not None
        rng = np.random.default_rng(seed)
        frame = rng.normal(size=model.frame.shape).astype(np.float32) if frame_too else model.frame
        path.unlink()
        save_cluster_model(path, replace(model, frame=frame, bias=rng.normal(size=model.bias.shape).astype("f4")), self.params)

    def rewrite(self, part: str, keep: Callable[[Record], bool], more: list[tuple[Record, bytes]]) -> None:
        path = self.layout.part(part)
        records = read_records(path)
        images = read_images(path, {record.id: record.sha256 for record in records})
        write_records(path, [(record, images[record.id]) for record in records if keep(record)] + more)

    def forget_tests(self, subject: str) -> None:
        for part in self.params.parts:
            self.rewrite(part, lambda record: record.subject != subject or record.split != TEST, [])

    def add_test(self, seed: int) -> None:
        image = png(seed)
        subject, digest = f"new-{seed % 3}", sha256(image)
        record = Record(record_id(digest, subject, "one", PRIVATE, TEST), digest, "one", subject, TEST)
        self.rewrite(PART, lambda other: other.id != record.id, [(record, image)])


@pytest.fixture
def project(whole: tuple[Layout, Params], tmp_path: Path) -> Project:
    return Project(whole, tmp_path)


class passes:  # noqa: N801  (used as a function)
    """Counts the images of each call of the network."""

    def __enter__(self) -> list[int]:
        asked: list[int] = []
        usual = Backbone.features

        def counted(self: Backbone, pixels: NDArray[np.uint8], *given: Any) -> NDArray[np.float32]:
            asked.append(len(pixels))
            return usual(self, pixels, *given)

        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(Backbone, "features", counted)
        return asked

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


# Histories: what may happen between two evaluations.


def truncated(path: Path, draw: int) -> None:
    path.write_bytes(path.read_bytes()[: draw % max(1, path.stat().st_size)])


def flipped(path: Path, draw: int) -> None:
    data = bytearray(path.read_bytes() or b"0")
    data[draw % len(data)] ^= 1 << draw % 8
    path.write_bytes(data)


def swapped(path: Path, draw: int) -> None:
    """Another slot's file in its place."""
    others = sorted(path.parent.iterdir())
    path.write_bytes(others[draw % len(others)].read_bytes())


def said_to_be_this(path: Path, draw: int) -> None:
    """Another slot's rows under this one's key."""
    own = read_note(path)
    others = [other for other in sorted(path.parent.iterdir()) if other != path and remembered.PLAIN not in other.name]
    if own["frame"] == remembered.PLAIN or not others:
        return truncated(path, draw)
    other = others[draw % len(others)]
    path.write_bytes(other.read_bytes().replace(read_note(other)["frame"].encode(), own["frame"].encode()))
    return None


def other_numbers(path: Path, draw: int) -> None:
    """Features of nobody, in a file that is whole otherwise."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")  # of the arrays, features first (safetensors' header)
    images = 65 * len(remembered._images(path))
    count = (len(data) - start - images) // 4
    data[start : len(data) - images] = np.random.default_rng(draw).normal(0, 9, count).astype("<f4").tobytes()
    path.write_bytes(data)


def emptied(path: Path, _: int) -> None:
    path.write_bytes(b"")


def gone(path: Path, _: int) -> None:
    path.unlink()


def a_folder(path: Path, _: int) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = (other_numbers, truncated, flipped, swapped, said_to_be_this, emptied, gone)
steps = st.lists(
    st.tuples(st.sampled_from(("retune", "head", "leave", "come", "damage", "off", "nothing")), st.integers(0, 10_000)),
    min_size=1,
    max_size=4,
)


def take(project: Project, kind: str, draw: int) -> None:
    """One step of a history, before the next evaluation."""
    slots, files = project.slots, project.files
    if kind in ("retune", "head") and slots:
        project.retune(slots[draw % len(slots)], draw, frame_too=kind == "retune")
    elif kind == "leave" and project.tests():
        project.forget_tests(project.tests()[draw % len(project.tests())].subject)
    elif kind == "come":
        project.add_test(draw)
    elif kind == "damage" and files:
        for count in range(1 + draw % 3):
            with suppress(ProjectError, SafetensorError, OSError):  # one that was damaged already
                DAMAGES[(draw + count) % len(DAMAGES)](files[(draw // 7 + count) % len(files)], draw + count)
    elif kind == "off":
        project.evaluate(remember=False)


@pytest.mark.slow
@given(history=st.lists(steps, min_size=1, max_size=3))
def test_numbers_are_those_without_a_memory_after_any_history(
    whole: tuple[Layout, Params], tmp_path_factory: pytest.TempPathFactory, history: list[list[tuple[str, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("history")
    project = Project(whole, folder)
    project.evaluate()
    for changes in history:
        for kind, draw in changes:
            take(project, kind, draw)
        project.evaluate()
        assert project.numbers == project.expected()
        assert remembered.superseded(project.layout, project.params) == []
    shutil.rmtree(folder)


def test_an_unchanged_project_asks_the_network_nothing(project: Project) -> None:
    tests = len(project.tests())
    assert project.evaluate() == 2 * tests, "plain, and through the frame of the nearest cluster"
    before = contents(project.layout.remembered)
    assert project.evaluate() == 0
    assert contents(project.layout.remembered) == before
    assert project.evaluate(remember=False) == 2 * tests


def test_a_changed_frame_is_asked_about_its_own_images_alone(project: Project) -> None:
    project.evaluate()
    answered = {slot: len(read_rows(project, slot)) for slot in project.slots}
    assert len(answered) > 1
    for slot, images in answered.items():
        project.retune(slot, 1, frame_too=True)
        assert project.evaluate() == images
        assert project.numbers == project.expected()


def test_a_changed_head_over_the_same_frame_asks_nothing(project: Project) -> None:
    project.evaluate()
    project.retune(project.slots[0], 1, frame_too=False)
    before = project.numbers
    assert project.evaluate() == 0
    assert project.numbers == project.expected() != before


def test_a_new_image_is_asked_once_plain_and_once_through_its_frame(project: Project) -> None:
    project.evaluate()
    project.add_test(5)
    assert project.evaluate() == 2
    assert project.numbers == project.expected()


def test_records_of_one_image_are_one_row_and_it_stays_while_one_is_left(project: Project) -> None:
    project.evaluate()
    tests = project.tests()
    known = tests[0]
    image = next(images[known.id] for part in project.params.parts if (images := read_known(project, part, known)))
    twin = Record(record_id(known.sha256, "twin", "one", PRIVATE, TEST), known.sha256, "one", "twin", TEST)
    project.rewrite(PART, lambda _: True, [(twin, image)])
    assert project.evaluate() == 0
    project.forget_tests("twin")
    assert project.evaluate() == 0
    assert known.sha256 in read_rows(project, remembered.PLAIN)


def read_known(project: Project, part: str, record: Record) -> dict[str, bytes]:
    there = any(other.id == record.id for other in read_records(project.layout.part(part)))
    return read_images(project.layout.part(part), {record.id: record.sha256}) if there else {}


def read_rows(project: Project, slot: str) -> list[str]:
    return remembered._images(remembered.file_of(project.layout, slot))


def test_metrics_have_the_same_bytes_with_yardsticks_and_picture_too(
    whole: tuple[Layout, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    project = Project(whole, tmp_path)
    project.params = project.params.model_copy(
        update={"evaluate": project.params.evaluate.model_copy(update={"linear_head": True})}
    )
    project.evaluate()
    project.retune(project.slots[0], 3, frame_too=True)
    project.evaluate()
    assert project.numbers == project.expected()
    assert {"metrics.json", "classes.csv", "clusters.csv", "overview.png"} == {*project.numbers}


# What may not be used


@pytest.mark.parametrize("damage", [*DAMAGES, a_folder], ids=lambda damage: damage.__name__)
def test_damaged_memory_is_told_in_one_line_and_built_again(
    project: Project, damage: Callable[[Path, int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    project.evaluate()
    whole_memory = contents(project.layout.remembered)
    damage(project.files[-1], 999)
    capfd.readouterr()
    project.evaluate()
    lines = [line for line in capfd.readouterr().err.splitlines() if "remembered" in line]
    assert len(lines) == (0 if damage in (gone, swapped) else 1), "of another frame, or not there: the usual case"
    assert project.numbers == project.expected()
    project.evaluate()  # a folder makes way, and its file is kept from the next time on
    assert contents(project.layout.remembered) == whole_memory


@pytest.mark.parametrize("what", ["environment", "code", "params"])
def test_memory_of_another_environment_code_or_params_is_not_used(
    project: Project, what: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = project.evaluate()
    usual = remembered.key_of
    other = {what: "0" * 16}
    monkeypatch.setattr(looking, "key_of", lambda *given: replace(usual(*given), **other))
    capfd.readouterr()
    assert project.evaluate() == first
    assert "of other code, params or another environment" in capfd.readouterr().err
    assert project.numbers == project.expected()


def test_every_param_that_decides_features_is_in_the_key(project: Project) -> None:
    key = remembered.key_of(project.layout, project.params, {})
    moved = [
        project.params.model_copy(update={"image": project.params.image.model_copy(update={"crop": 0.9})}),
        project.params.model_copy(update={"features": project.params.features.model_copy(update={"grid": 1})}),
        project.params.model_copy(update={"embed": project.params.embed.model_copy(update={"batch": 16})}),
        project.params.model_copy(update={"device": "cuda"}),
    ]
    assert len({key, *(remembered.key_of(project.layout, params, {}) for params in moved)}) == 5
    other = project.params.model_copy(update={"evaluate": project.params.evaluate.model_copy(update={"min_group": 9})})
    assert remembered.key_of(project.layout, other, {}) == key
    assert remembered.key_of(project.layout, project.params, {"machine": "another"}) != key


def test_memory_of_another_project_is_not_used(project: Project, whole: tuple[Layout, Params], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Project(whole, tmp_path / "other")
    other.evaluate()
    for slot in other.slots:
        project.retune(slot, 8, frame_too=True)
    for record in project.tests()[:5]:
        project.forget_tests(record.subject)
    shutil.copytree(other.layout.remembered, project.layout.remembered)
    project.evaluate()
    assert project.numbers == project.expected()
    images = {record.sha256 for record in project.tests()}
    assert all(images.issuperset(read_rows(project, path.name.partition(".")[0])) for path in project.files)


def test_a_full_disk_makes_it_slow_and_never_fails(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    project.evaluate()
    slot = project.slots[0]
    project.retune(slot, 4, frame_too=True)
    monkeypatch.setattr(remembered, "write", full)
    project.evaluate()
    assert "not kept (No space left on device)" in capfd.readouterr().err
    assert project.numbers == project.expected()
    assert slot not in project.slots, "what is superseded goes all the same"


# Whose it is


def test_memory_is_its_owner_s_alone_and_goes_where_it_is_switched_off(project: Project) -> None:
    before = os.umask(0)
    try:
        project.evaluate()
    finally:
        os.umask(before)
    assert stat.S_IMODE(project.layout.remembered.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in project.files} == {0o600}
    project.evaluate(remember=False)
    assert not project.layout.remembered.exists()


def test_nothing_of_a_person_or_of_a_frame_of_before_is_left_by_evaluate(project: Project) -> None:
    project.evaluate()
    person = project.tests()[0]
    slot = project.slots[0]
    (project.layout.remembered / ".draft-of-a-killed-write").write_text(person.sha256)
    before = read_note(remembered.file_of(project.layout, slot))["frame"]
    assert found(project, person.sha256)
    project.forget_tests(person.subject)
    project.retune(slot, 2, frame_too=True)
    project.evaluate()
    assert not found(project, person.sha256)
    assert before.encode() not in b"".join(contents(project.layout.remembered).values())


def found(project: Project, digest: str) -> bool:
    """Whether the scan of a purge finds an image's digest in the private folder."""
    (project.layout.private_state / "stage.lock").touch()  # a scan of nothing is refused
    store = FolderStore("ledger, keys and logs", project.layout.private_state)
    reports = scan([store], SearchTerms(texts=frozenset({digest})), lambda _: False)
    return any(report.residue for report in reports)


@pytest.mark.parametrize("switched_off", [False, True])
def test_purge_deletes_what_is_superseded_though_evaluate_did_not_run(project: Project, switched_off: bool) -> None:
    project.evaluate()
    assert clear_remembered(project.layout) == 0
    person, slot = project.tests()[0], project.slots[-1]
    project.forget_tests(person.subject)
    project.retune(slot, 2, frame_too=True)
    (project.layout.remembered / "c99.safetensors").mkdir()
    if switched_off:
        text = project.layout.params.read_text()
        project.layout.params.write_text(text.replace("remember: true", "remember: false"))
    assert clear_remembered(project.layout) > 1
    assert not found(project, person.sha256)
    assert slot not in project.slots
    assert not switched_off or project.files == []
    project.evaluate()
    assert project.numbers == project.expected()


def test_purge_deletes_all_of_it_where_nothing_tells_what_is_of_now(project: Project) -> None:
    project.evaluate()
    project.layout.part(PART).unlink()
    clear_remembered(project.layout)
    assert project.files == []


def test_a_link_in_the_folder_s_place_is_not_followed(project: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("another's")
    project.layout.private_state.mkdir(exist_ok=True)
    project.layout.remembered.symlink_to(elsewhere)
    project.evaluate()
    assert not project.layout.remembered.is_symlink()
    assert contents(elsewhere) == {"kept": b"another's"}
    shutil.rmtree(project.layout.remembered)
    project.layout.remembered.symlink_to(elsewhere)
    assert clear_remembered(project.layout) == 1
    assert contents(elsewhere) == {"kept": b"another's"}


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)
