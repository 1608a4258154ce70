"""The live model across erasures: nothing from before a quarantine answers once it stands, whatever else goes wrong."""

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from builders import refused
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from served import ServedProject, photos, version_of

import lmeraser
from lmeraser.core.errors import NotReadyError, ParamsError, ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.data.tensors import read_tensors, write_tensors
from lmeraser.serve import live as live_module
from lmeraser.serve.live import LiveModel
from lmeraser.serve.quarantine import lift

SHARED_FIXTURE = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


# erasures


def is_refused(model: LiveModel) -> str:
    return refused(NotReadyError, lambda: model.predict(photos(1)))


def test_version_from_before_a_quarantine_answers_neither_under_it_nor_after_it(served_project: ServedProject) -> None:
    model, slots = served_project.live(), served_project.slots
    before = version_of(model)
    served_project.quarantine(slots[:1], "withheld")
    withheld = model.predict(photos(20)).parts
    assert withheld.left_out.clusters == (slots[0],)
    assert withheld.left_out.global_head == "withheld"
    assert withheld.weight == 1
    assert slots[0] not in withheld.nearest
    served_project.quarantine(slots[:1], "interim")
    assert version_of(model) == withheld.model_version, "it leaves out no less: it answers until the new one is read"
    model._read()
    interim = model.predict(photos(20)).parts
    assert interim.left_out.global_head == "answers"
    served_project.erase("anna-1")
    served_project.retrain()
    assert version_of(model) == interim.model_version, "while the workspace changes the copy answers"
    lift(served_project.layout)
    after = version_of(model)
    assert len({before, withheld.model_version, interim.model_version, after}) == 4


def test_cancelled_request_leaves_the_version_that_was(served_project: ServedProject) -> None:
    model = served_project.live()
    before = version_of(model)
    served_project.quarantine(served_project.slots[:1], "withheld")
    assert version_of(model) != before
    lift(served_project.layout)
    assert version_of(model) == before


def test_version_says_what_may_answer_and_not_where_it_lies(served_project: ServedProject, steady: LiveModel) -> None:
    model = served_project.live()
    assert version_of(model) == version_of(steady)
    served_project.quarantine([], "whole")
    assert version_of(model) == version_of(steady), "a quarantine that leaves nobody out changes nothing"
    assert version_of(served_project.live(batch=4)) != version_of(steady)


def break_pointer(project: ServedProject) -> None:
    write_atomically(project.layout.quarantine, b"CANARY")


def break_copy(project: ServedProject) -> None:
    project.quarantine(project.slots[:1], "whole")
    copy = project.layout.quarantine_copies / "one" / "artifacts" / "head" / "head.safetensors"
    copy.unlink()


def withhold(project: ServedProject) -> None:
    project.quarantine([], "withheld", withheld=True)


def leave_nothing(project: ServedProject) -> None:
    project.quarantine(project.slots, "withheld")


def forget_halfway(project: ServedProject) -> None:
    """Somebody is on the list (as git brings it), and nothing was built since."""
    project.erase("anna-1")


def break_list(project: ServedProject) -> None:
    project.layout.erased.write_text("CANARY")


def check_out_an_older_branch(project: ServedProject) -> None:
    """Its list and its artifacts fit each other; this machine remembers more."""
    older = project.layout.erased.read_bytes()
    project.erase("anna-1")
    write_atomically(project.layout.erased, older)


BREAKS: list[Callable[[ServedProject], None]] = [
    break_pointer,
    break_copy,
    withhold,
    leave_nothing,
    forget_halfway,
    break_list,
    check_out_an_older_branch,
]


@pytest.mark.parametrize("happens", BREAKS, ids=lambda happens: happens.__name__)
def test_what_was_read_before_does_not_answer_where_the_new_state_cannot_be_read(
    served_project: ServedProject, happens: Callable[[ServedProject], None]
) -> None:
    model = served_project.live()
    model.current()
    happens(served_project)
    assert model.present() is None
    is_refused(model)
    refused(NotReadyError, served_project.live().current)


def test_model_withheld_answers_again_when_it_is_solved_at_once(served_project: ServedProject) -> None:
    model = served_project.live()
    leave_nothing(served_project)
    assert "retry in a moment" in is_refused(model)
    served_project.quarantine(served_project.slots, "interim")
    assert model.predict(photos(3)).parts.weight == 0


def test_old_whole_model_answers_while_a_build_replaces_artifacts(served_project: ServedProject) -> None:
    model, layout = served_project.live(), served_project.layout
    before = version_of(model)
    head = layout.head.read_bytes()
    write_atomically(layout.head, b"half")
    assert version_of(model) == before
    layout.params.write_text(layout.params.read_text() + "\n")  # something moved: it is tried again
    assert version_of(model) == before
    assert "build" in is_refused(served_project.live())
    write_atomically(layout.head, head)
    served_project.retrain()
    model._read()
    assert version_of(model) != before


@pytest.mark.parametrize("stage", ["split", "cluster", "validate", "head"])
def test_stages_of_two_states_are_no_model(served_project: ServedProject, stage: str) -> None:
    layout = served_project.layout
    served_project.erase("anna-1")
    layout.part("p00").write_bytes(layout.part("p00").read_bytes() + b" ")
    for path in (layout.sums("p00"), layout.router):
        tensors, note = read_tensors(path)
        write_tensors(path, dict(tensors), dict(note) | {"another": "state"})
    served_project.record(left=[stage])
    assert "build" in refused(NotReadyError, served_project.live().current)


def test_call_that_was_computed_by_a_model_that_fell_meanwhile_is_computed_anew(served_project: ServedProject) -> None:
    model = served_project.live()
    before, passes = version_of(model), model.current().passes
    features = passes.features

    def fall(*given: object) -> object:
        if not served_project.layout.quarantine.exists():
            served_project.quarantine(served_project.slots[:1], "withheld")
        return features(*given)  # type: ignore[arg-type]

    passes.features = fall  # type: ignore[method-assign, assignment]
    prediction = model.predict(photos(3))
    assert prediction.parts.model_version != before
    assert prediction.parts.left_out.clusters == (served_project.slots[0],)


def test_what_may_not_answer_is_dropped_though_nobody_calls(served_project: ServedProject) -> None:
    with served_project.live() as model:
        model.current()
        model.follow()
        withhold(served_project)
        deadline = time.monotonic() + 5
        while model._loaded is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        lift(served_project.layout)
        while model._loaded is None:
            assert time.monotonic() < deadline, "and read again when it may"
            time.sleep(0.01)
    is_refused(model)


def test_failing_state_is_not_read_at_every_call(served_project: ServedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    model = served_project.live()
    withhold(served_project)
    reads: list[int] = []

    def read(*_: object) -> None:
        reads.append(1)
        raise ProjectError("withheld")

    monkeypatch.setattr(live_module, "read", read)
    for _ in range(20):
        is_refused(model)
    assert len(reads) == 1


def test_no_answer_from_before_while_calls_and_quarantines_cross(served_project: ServedProject) -> None:
    """Eight callers; requests come and go. Each answer's version must be one that stood at some time during its call."""
    slots, stood, seen = served_project.slots, [(0.0, "whole")], []
    over = threading.Event()
    problems: list[str] = []
    with served_project.live() as model:
        names = {version_of(model): "whole"}
        model.follow()

        def ask(number: int) -> None:
            while not over.is_set():
                begun = time.monotonic()
                try:
                    parts = model.predict(photos(2, number)).parts
                except NotReadyError:
                    continue
                seen.append((begun, time.monotonic(), parts.left_out.clusters))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for turn in range(12):
            time.sleep(0.05)
            asked = tuple(sorted({slots[turn % len(slots)], slots[turn // 3 % len(slots)]}))
            served_project.quarantine(asked, ("withheld", "interim")[turn % 2], folder=f"copy{turn}")
            stood.append((time.monotonic(), ",".join(asked)))
        time.sleep(0.1)
        over.set()
        for thread in threads:
            thread.join()
    assert names
    for begun, _, clusters in seen:
        # The last quarantine that stood before the call began, and all that came later, may have been answered by.
        first = max(place for place, (at, _) in enumerate(stood) if at <= begun)
        allowed = {name for _, name in stood[first:]}
        if (",".join(clusters) or "whole") not in allowed:
            problems.append(f"{clusters} at {first}")
    assert problems == []
    assert len({clusters for *_, clusters in seen}) > 3, "answers followed"


STEPS = ("accept", "solve", "remove", "certify", "cancel", "ask", "ask", "damage")


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(st.sampled_from(STEPS), min_size=4, max_size=14), followed=st.booleans())
@example(actions=["ask", "accept", "solve", "remove", "certify", "ask"], followed=False)
@example(actions=["ask", "accept", "damage", "ask", "remove", "certify", "ask"], followed=False)
def test_no_course_of_requests_brings_a_version_from_before_an_erasure_back(
    served_template: ServedProject, tmp_path: Path, actions: list[str], followed: bool
) -> None:
    """Nobody asks between some actions: what is served must not depend on who looked when."""
    project = served_template.copy(Path(tempfile.mkdtemp(dir=tmp_path)) / "project")
    waiting: list[str] = []  # slots of open requests
    removed, requests = False, 0
    whole: set[str] = set()  # versions that answered while nobody was left out
    gone: set[str] = set()  # those of them from before an erasure
    with project.live() as model:
        if followed:
            model.follow()
        for action in [*actions, "ask"]:
            if action == "accept" and not removed and len({*waiting}) < 3:  # one cluster answers in any case
                requests += 1
                waiting.append(project.slots[requests % len(project.slots)])
                project.quarantine(waiting, "withheld", folder=f"copy{requests}")
            elif action == "solve" and waiting and not removed:
                project.quarantine(waiting, "interim", folder=f"copy{requests}")
            elif action == "remove" and waiting and not removed:
                removed = True
                project.erase(f"anna-{requests}")
                write_atomically(project.layout.head, b"half")
            elif action == "certify" and removed:
                copied = project.layout.quarantine_copies / f"copy{requests}" / "artifacts" / "head" / "head.safetensors"
                write_atomically(project.layout.head, copied.read_bytes())
                project.retrain()
                lift(project.layout)
                gone |= whole
                waiting, removed = [], False
            elif action == "cancel" and waiting and not removed:
                waiting = []
                lift(project.layout)
            elif action == "damage" and waiting and not removed:
                break_pointer(project)
                is_refused(model)
                project.quarantine(waiting, "withheld", folder=f"copy{requests}")
            elif action == "ask":
                parts = model.predict(photos(1)).parts
                assert parts.model_version not in gone
                if waiting:
                    assert {*waiting} <= {*parts.left_out.clusters}
                    assert parts.model_version not in whole
                else:
                    whole.add(parts.model_version)


# bad surroundings


def test_folder_without_a_project_and_a_project_without_a_build_are_refused(
    served_project: ServedProject, tmp_path: Path
) -> None:
    (tmp_path / "CANARY").mkdir()
    assert "no project" in refused(ProjectError, lambda: lmeraser.load(tmp_path / "CANARY"))
    served_project.layout.head.unlink()
    assert "head.safetensors is missing" in refused(NotReadyError, lambda: lmeraser.load(served_project.layout.root))
    served_project.layout.lock.unlink()
    assert "nothing was built" in refused(NotReadyError, lambda: lmeraser.load(served_project.layout.root))


def test_model_of_two_environments_is_refused(served_project: ServedProject) -> None:
    path = served_project.layout.tuned(served_project.slots[0])
    tensors, note = read_tensors(path)
    write_tensors(path, dict(tensors), dict(note) | {"environment": note["environment"] | {"numpy": "0.1"}})
    served_project.record()
    assert "2 environments" in refused(NotReadyError, served_project.live().current)


def test_cluster_that_is_missing_is_told_and_quarantine_serves_the_rest(served_project: ServedProject) -> None:
    slot = served_project.slots[0]
    served_project.layout.tuned(slot).unlink()
    assert f"{slot}.safetensors is missing" in refused(NotReadyError, served_project.live().current)


def test_batch_in_which_rows_depend_on_each_other_is_refused(
    served_project: ServedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmeraser.learn import backbone

    def refuse(*_: object) -> None:
        raise ParamsError("params.yaml: bits differ; set embed.batch to 1")

    monkeypatch.setattr(backbone, "require_own_rows", refuse)
    refused(NotReadyError, served_project.live(batch=3).current)
    served_project.live().current()


def test_device_that_fails_refuses_from_then_on(served_project: ServedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmeraser.core.errors import StepFailedError
    from lmeraser.learn.backbone import Backbone

    def lost(*_: object) -> None:
        raise RuntimeError("CANARY: CUDA error: device-side assert")

    model = served_project.live()
    loaded = model.current()
    monkeypatch.setattr(Backbone, "features", lost)
    refused(StepFailedError, lambda: model.predict(photos(1)))
    assert not model.lost, "a processor is there the next time"
    gpu = replace(loaded, model=replace(loaded.model, params=loaded.model.params.model_copy(update={"device": "cuda"})))
    model._loaded = gpu
    refused(StepFailedError, lambda: model.predict(photos(1)))
    assert "device failed" in is_refused(model)
    assert model.present() is None
