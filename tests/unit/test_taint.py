"""What is condemned: everything that depends on an erased record, nothing that is live, nothing that a clean run made."""

from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from lmeraser.erase.taint import Condemned, Named, StageRun, _path_edges, condemn

PRIVATE, EMBED, CLUSTER = "artifacts/split/private", "artifacts/embed", "artifacts/cluster"


def version(origin: str, data: str, erased: bool) -> tuple[list[StageRun], dict[str, dict[str, str]]]:
    """A dvc.lock: one part changes with the subject, the other does not. `data` names the source, so other data differ."""
    a = f"{data}-part-a{'-without' if erased else ''}"
    b = f"{data}-part-b"
    manifests = {
        f"private({a},{b}).dir": {"a.parquet": a, "b.parquet": b},
        f"embed({a}).dir": {"leaves": f"leaves({a})"},
        f"embed({b}).dir": {"leaves": f"leaves({b})"},
        f"cluster({a},{b}).dir": {"members/c0": f"c0({a})", "members/c1": f"c1({b})"},
    }
    whole = f"all-embeds({a},{b}).dir"  # a dep and no out: no manifest, no object
    told = frozenset({origin})
    stages = [
        StageRun((("source", f"source-{data}"),), ((PRIVATE, f"private({a},{b}).dir"),), told),
        StageRun(((f"{PRIVATE}/a.parquet", a), ("code", "code")), ((f"{EMBED}/a", f"embed({a}).dir"),), told),
        StageRun(((f"{PRIVATE}/b.parquet", b), ("code", "code")), ((f"{EMBED}/b", f"embed({b}).dir"),), told),
        StageRun(((EMBED, whole),), ((CLUSTER, f"cluster({a},{b}).dir"),), told),
        StageRun(((CLUSTER, f"cluster({a},{b}).dir"),), (("passed.json", "passed"),), told),
        StageRun(((f"{CLUSTER}/members/c0", f"c0({a})"), ("passed.json", "passed")), (("tune/c0", f"tune({a})"),), told),
        StageRun(((f"{CLUSTER}/members/c1", f"c1({b})"), ("passed.json", "passed")), (("tune/c1", f"tune({b})"),), told),
        StageRun(((EMBED, whole), ("passed.json", "passed")), (("head", f"head({a},{b})"),), told),
    ]
    return stages, manifests


def names(stages: list[StageRun]) -> set[str]:
    return {md5 for stage in stages for _, md5 in (*stage.deps, *stage.outs)}


def cached(stages: list[StageRun], tag: str) -> list[StageRun]:
    return [StageRun(stage.deps, stage.outs, run_entry=f"{tag}{number}") for number, stage in enumerate(stages)]


OLD, OLD_MANIFESTS = version("old", "x", erased=False)
NEW, NEW_MANIFESTS = version("new", "x", erased=True)
OTHER, OTHER_MANIFESTS = version("branch", "y", erased=True)
MANIFESTS = OLD_MANIFESTS | NEW_MANIFESTS | OTHER_MANIFESTS
RAW = {"x-part-a"}
TAINTED = {
    "x-part-a",
    "private(x-part-a,x-part-b).dir",
    "embed(x-part-a).dir",
    "leaves(x-part-a)",
    "all-embeds(x-part-a,x-part-b).dir",
    "cluster(x-part-a,x-part-b).dir",
    "c0(x-part-a)",
    "tune(x-part-a)",
    "head(x-part-a,x-part-b)",
}


def test_what_depended_on_the_subject_goes_and_nothing_else() -> None:
    condemned = condemn([*OLD, *NEW, *OTHER], MANIFESTS, RAW, names(NEW))
    assert condemned == Condemned(frozenset(TAINTED), frozenset())


def test_run_entries_of_tainted_stages_go_and_clean_ones_stay() -> None:
    condemned = condemn([*OLD, *NEW, *cached(OLD, "old"), *cached(NEW, "new")], MANIFESTS, RAW, names(NEW))
    # split names the old parts; embed@b, passed.json's stage of the new version and tune@c1 never met the subject
    assert condemned.run_entries == {"old0", "old1", "old3", "old4", "old5", "old7"}
    assert condemned.objects == TAINTED


def test_a_cached_run_that_no_lock_version_explains_is_not_trusted() -> None:
    """The old dvc.lock was never committed: only the run cache knows it, and nothing tells what `all-embeds` held."""
    condemned = condemn([*NEW, *cached(OLD, "old")], MANIFESTS, RAW, names(NEW))
    assert condemned.objects == TAINTED
    assert "old7" in condemned.run_entries


def test_members_of_a_folder_that_nobody_can_read_any_more_go_with_it() -> None:
    known = {name: members for name, members in MANIFESTS.items() if not name.startswith("cluster(x-part-a,")}
    condemned = condemn([*OLD, *NEW], known, RAW, names(NEW))
    assert {"c0(x-part-a)", "tune(x-part-a)"} <= condemned.objects
    assert not condemned.objects & {"tune(x-part-b)", "tune(x-part-a-without)"}


def test_a_branch_with_other_data_loses_nothing() -> None:
    condemned = condemn([*OLD, *NEW, *OTHER, *cached(OTHER, "other")], MANIFESTS, RAW, names(NEW))
    kept = names(OTHER) | {md5 for members in OTHER_MANIFESTS.values() for md5 in members.values()}
    assert not condemned.objects & kept
    assert not condemned.run_entries


def test_a_branch_of_the_same_data_that_never_had_the_subject_loses_nothing() -> None:
    """It is not live: only its clean lineage saves what it shares with the tainted one (here `passed`)."""
    condemned = condemn([*OLD, *NEW, *OTHER], MANIFESTS, RAW, names(OTHER))
    assert condemned.objects == TAINTED


def test_suspects_go_unless_a_clean_stage_made_them() -> None:
    known = MANIFESTS | {"orphan.dir": {"x": "its member", "y": "leaves(x-part-b)"}}
    condemned = condemn([*OLD, *NEW], known, RAW, names(NEW) - {"tune(x-part-b)"}, {"orphan.dir", "tune(x-part-b)"})
    assert condemned.objects == TAINTED | {"orphan.dir", "its member"}


def test_raw_content_goes_even_if_a_clean_stage_made_it() -> None:
    """split depends on the source alone, so it counts as clean; the parts that it made still hold the subject."""
    assert condemn(OLD, MANIFESTS, RAW, names(NEW)).objects == TAINTED, "and `passed`, which only the old stage made, is live"


@dataclass(frozen=True)
class World:
    stage_runs: tuple[StageRun, ...]
    manifests: dict[str, dict[str, str]]
    raw: frozenset[str]
    live: frozenset[str]
    sources: frozenset[str]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Random versions of a random pipeline: outs are functions of (stage, deps), as the exactness contract has it."""
    width = draw(st.integers(1, 3))
    manifests: dict[str, dict[str, str]] = {}
    stage_runs: list[StageRun] = []
    versions: list[set[str]] = []
    shape = [
        (draw(st.lists(st.integers(0, stage + width - 1), min_size=1, max_size=3)), draw(st.sampled_from(["f", "dir", "const"])))
        for stage in range(draw(st.integers(1, 6)))
    ]
    for number in range(draw(st.integers(1, 4))):
        files = [(f"part/{place}", f"part{place}v{draw(st.integers(0, 2))}") for place in range(width)]
        named = set()
        for stage, (deps, kind) in enumerate(shape):
            taken = tuple(sorted({files[dep] for dep in deps}))
            made = "const" if kind == "const" else f"s{stage}({','.join(md5 for _, md5 in taken)})"
            if kind == "dir":
                manifests[f"{made}.dir"] = {"one": f"{made}/one", "same": f"same{stage}"}
                made = f"{made}.dir"
            out = (f"out/{stage}", made)
            origin, entry = draw(st.sampled_from([(f"v{number}", ""), ("", f"run{number}-{stage}")])) if number else ("v0", "")
            stage_runs.append(StageRun(taken, (out,), frozenset(filter(None, [origin])), entry))
            named |= {md5 for _, md5 in (*taken, out)}
            files.append(out)
        versions.append(named)
    sources = frozenset(f"part{place}v{v}" for place in range(width) for v in range(3))
    raw = frozenset(draw(st.sets(st.sampled_from(sorted(sources)))))
    return World(tuple(stage_runs), manifests, raw, frozenset(draw(st.sampled_from(versions))), sources)


def decide(world: World, raw: frozenset[str] | None = None) -> Condemned:
    return condemn(world.stage_runs, world.manifests, world.raw if raw is None else raw, world.live)


def members(world: World, md5: str) -> set[str]:
    return {md5, *world.manifests.get(md5, {}).values()}


def live_of(world: World) -> set[str]:
    return {member for md5 in world.live for member in members(world, md5)}


@given(worlds())
def test_nothing_live_is_condemned(world: World) -> None:
    assert not decide(world).objects & live_of(world)


@given(worlds())
def test_all_that_depends_on_the_records_and_has_no_clean_lineage_goes(world: World) -> None:
    """By a second, naive way: content is clean if a run over clean content alone made it, grown from the sources up."""
    clean = (set(world.sources) - world.raw) | live_of(world)
    grown = True
    while grown:
        new = {
            member
            for run in world.stage_runs
            if all(md5 in clean for _, md5 in run.deps)
            for _, md5 in run.outs
            for member in members(world, md5)
        }
        grown, clean = not new <= clean, clean | new
    derived = {member for run in world.stage_runs for _, md5 in run.outs for member in members(world, md5)}
    condemned = decide(world)
    assert derived - clean <= condemned.objects | (set() if world.raw - live_of(world) else derived)
    assert not condemned.objects & (clean - world.raw)


@given(worlds())
def test_deciding_again_condemns_nothing_more(world: World) -> None:
    condemned = decide(world)
    assert decide(world, world.raw | condemned.objects) == condemned


@given(worlds(), st.data())
def test_more_records_never_condemn_less(world: World, data: st.DataObject) -> None:
    fewer = frozenset(data.draw(st.sets(st.sampled_from(sorted(world.raw))))) if world.raw else frozenset()
    less, more = decide(world, fewer), decide(world)
    assert less.objects <= more.objects
    assert less.run_entries <= more.run_entries


@given(worlds(), st.randoms(use_true_random=False))
def test_order_of_facts_does_not_matter(world: World, random: Random) -> None:
    mixed = list(world.stage_runs)
    random.shuffle(mixed)
    manifests = dict(sorted(world.manifests.items(), reverse=True))
    assert condemn(mixed, manifests, sorted(world.raw, reverse=True), world.live) == decide(world)


@given(worlds())
def test_versions_that_share_a_stage_decide_together_as_each_by_itself(world: World) -> None:
    together: dict[tuple[Named, Named, str], frozenset[str]] = {}
    for run in world.stage_runs:
        key = run.deps, run.outs, run.run_entry
        together[key] = together.get(key, frozenset()) | run.origins
    shared = [StageRun(deps, outs, origins, entry) for (deps, outs, entry), origins in together.items()]
    assert condemn(shared, world.manifests, world.raw, world.live) == decide(world)
    versions = {origin for run in world.stage_runs for origin in run.origins}
    edges: dict[str, set[str]] = {}
    for version in versions:
        alone = [run for run in world.stage_runs if version in run.origins]
        for out, deps in _path_edges(alone, world.manifests).items():
            edges[out] = edges.get(out, set()) | deps
    assert _path_edges(shared, world.manifests) == edges, "no edge leads from one version into another"


@given(worlds())
def test_without_records_nothing_goes(world: World) -> None:
    assert decide(world, frozenset()) == Condemned(frozenset(), frozenset())
