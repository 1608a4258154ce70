"""The pipeline's overhead is what ran no stage: a stage's own end is not counted as overhead, and nothing is counted twice."""

from bench.scale.clusters import Process, Spent, attribute


def usage(process: int, parent: int, module: str, cpu: float, children: float = 0.0) -> Process:
    return {"argv": ["python", "-m", module], "process": process, "parent": parent, "cpu": cpu, "children": children}


DVC = usage(1, 0, "dvc", 2.0, children=9.0)
STAGES = [usage(2, 1, "stages.split", 3.0), usage(3, 1, "stages.tune", 4.0)]


def test_ends_of_stages_are_the_stages_own() -> None:
    assert attribute([*STAGES, DVC], total=11.5) == Spent(outside=2.0, stages=9.0, untold=0.5, ran=2)


def test_what_a_mixed_parent_waited_for_stays_untold() -> None:
    processes = [*STAGES, usage(4, 1, "dvc", 1.0), DVC]
    assert attribute(processes, total=11.5) == Spent(outside=3.0, stages=7.0, untold=1.5, ran=2)
