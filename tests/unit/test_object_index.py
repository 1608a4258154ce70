"""The index of what was looked at: a scan that leaves out what it knows finds what a scan of everything finds, whatever happened
to the stores or to the index; and the index names nobody.
"""

import gzip
import hashlib
import io
import json
import os
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import make_record, png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_store import MemoryStore

from lmeraser.data.records import write_records
from lmeraser.erase.erased import SubjectKey
from lmeraser.prove import object_index as indexing
from lmeraser.prove import reading
from lmeraser.prove.finder import Finder
from lmeraser.prove.object_index import ObjectIndex, forget_contents
from lmeraser.prove.reading import Reading
from lmeraser.prove.scan import StoreReport, scan
from lmeraser.prove.search_terms import SearchTerms, excerpts
from lmeraser.stores import folder
from lmeraser.stores.base import Entry
from lmeraser.stores.folder import FolderStore

KEY = SubjectKey(bytes(range(32)))
PEOPLE = [f"kanarienvogel-{number:03d}" for number in range(5)]
LARGE = {person: hashlib.shake_256(person.encode()).digest(9000) for person in PEOPLE}
IMAGES = {person: [png(number), LARGE[person]] for number, person in enumerate(PEOPLE)}
RECORDS = {person: [(make_record(person, image=image), image) for image in IMAGES[person]] for person in PEOPLE}


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def key_of(md5: str) -> str:
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def terms_of(people: Sequence[str]) -> SearchTerms:
    """What a scan looks for after an erasure of these."""
    records = [record for person in people for record, _ in RECORDS[person]]
    return SearchTerms(
        objects=frozenset({"0" * 32}),
        ids=frozenset(record.id for record in records),
        texts=frozenset(record.sha256 for record in records),
        names=frozenset(people),
        images=frozenset(piece for person in people for image in IMAGES[person] for piece in excerpts(image)),
    )


@dataclass
class Stamped(MemoryStore):
    """A store that tells when a file changed, as folders and buckets do, and counts what was opened."""

    versions: dict[str, int] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    clock: int = 0

    def entries(self) -> Iterator[Entry]:
        for key, content in self.files.items():
            yield Entry(key, len(content), stamp=str(self.versions[key]))

    def put(self, key: str, content: bytes) -> None:
        self.clock += 1
        self.files[key], self.versions[key] = content, self.clock

    def add(self, content: bytes) -> str:
        """As an object that is named by its content."""
        self.put(key_of(md5_of(content)), content)
        return md5_of(content)

    def open(self, key: str) -> BinaryIO:
        self.opened.append(key)
        return super().open(key)


def part(people: Sequence[str], folder: Path) -> bytes:
    path = folder / "part.parquet"
    write_records(path, [pair for person in people for pair in RECORDS[person]])
    return path.read_bytes()


def parquet(compression: str = "NONE", **columns: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression=compression, use_dictionary=False)
    return stream.getvalue()


def members(people: Sequence[str]) -> bytes:
    records = [record for person in people for record, _ in RECORDS[person]]
    return parquet(id=[record.id for record in records], unit=[record.subject for record in records])


OTHERS: dict[str, Callable[[Sequence[str]], bytes]] = {
    "weights": lambda people: random.Random(str(people)).randbytes(5000),
    "json": lambda people: json.dumps({"who": list(people)}).encode(),
    "utf-16": lambda people: " ".join(people).upper().encode("utf-16-le"),
    "folded": lambda people: "\n".join("".join(chr(ord(letter) + 0xFEE0) for letter in name) for name in people).encode(),
    "archive": lambda people: gzip.compress(" ".join(people).encode(), mtime=0),
    "compressed": lambda people: parquet("ZSTD", remark=list(people)),
    "binary ids": lambda people: parquet(sha256=[hashlib.sha256(IMAGES[person][0]).digest() for person in people]),
    "images": lambda people: b"..".join(image for person in people for image in IMAGES[person]),
    "ids": lambda people: "a".join(record.id for person in people for record, _ in RECORDS[person]).encode(),
    "members": members,
    "manifest": lambda people: json.dumps([{"md5": md5_of(str(people).encode()), "relpath": "x"}]).encode(),
}


def reading_of(path: Path, erased: Sequence[str], key: SubjectKey = KEY, trusting: bool = True) -> Reading:
    return Reading(ObjectIndex(path, key), frozenset(map(key.pseudonym, erased)), trusting)


def look(stores: Sequence[MemoryStore | FolderStore], erased: Sequence[str], reading: Reading | None = None) -> list[StoreReport]:
    return scan(stores, terms_of(erased), lambda name: name in erased, reading)


def found(reports: Sequence[StoreReport]) -> object:
    return [(report.store, report.residue, set(report.where), set(report.unreadable)) for report in reports]


def damage(path: Path, how: str, dice: random.Random, old: dict[str, bytes]) -> None:
    """Do something to an index that nobody should do."""
    if how == "lost" or not path.exists():
        path.unlink(missing_ok=True)
    elif how == "bytes":
        raw = bytearray(path.read_bytes())
        for _ in range(dice.randint(1, 60)):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        path.write_bytes(bytes(raw))
    elif how == "cut":
        path.write_bytes(path.read_bytes()[: dice.randrange(path.stat().st_size)])
    elif how == "restored":
        path.write_bytes(old.setdefault("first", path.read_bytes()))
    else:
        _tamper(path, how)


def _tamper(path: Path, how: str) -> None:
    commands = {
        "emptied": ["UPDATE contents SET traces = x''"],
        "swapped": [
            "UPDATE contents SET traces = (SELECT traces FROM contents ORDER BY length(traces) LIMIT 1),"
            " seal = (SELECT seal FROM contents ORDER BY length(traces) LIMIT 1)"
        ],
        "stamps": ["UPDATE copies SET stamp = CAST(stamp + 1 AS TEXT)"],
        "types": ["UPDATE copies SET size = 'many'", "UPDATE contents SET traces = 7"],
    }
    connection = sqlite3.connect(path)
    try:
        for command in commands[how]:
            connection.execute(command)
        connection.commit()
    except sqlite3.DatabaseError:  # it was damaged before, or refuses
        pass
    finally:
        connection.close()


DAMAGES = ["lost", "bytes", "cut", "restored", "emptied", "swapped", "stamps", "types"]
SOME = st.lists(st.sampled_from(PEOPLE), min_size=0, max_size=3, unique=True)
STEPS = st.one_of(
    st.tuples(st.just("part"), st.integers(0, 1), SOME),
    st.tuples(st.sampled_from(sorted(OTHERS)), st.integers(0, 1), SOME),
    st.tuples(st.just("file"), st.integers(0, 1), SOME),
    st.tuples(st.sampled_from([f"written once: {kind}" for kind in sorted(OTHERS)]), st.integers(0, 1), SOME),
    st.tuples(st.sampled_from(["copy", "half of a copy"]), st.integers(0, 1), st.integers(0, 99)),
    st.tuples(st.sampled_from(["flip", "replace", "remove"]), st.integers(0, 1), st.integers(0, 99)),
    st.tuples(st.just("erase"), st.integers(0, 4), st.just(0)),
    st.tuples(st.just("damage"), st.sampled_from(DAMAGES), st.integers(0, 99)),
    st.tuples(st.sampled_from(["other key", "other release"]), st.just(0), st.just(0)),
)


class History:
    """Two stores, an index, and what is done to them; each scan is compared with one that knows nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "objects.index"
        self.stores, self.erased = [Stamped(name="cache"), Stamped(name="remote")], [PEOPLE[0]]
        self.old: dict[str, bytes] = {}
        self.stores[0].put("a file", b"nothing")

    def step(self, what: str, where: object, given: object) -> None:
        if what == "damage":
            damage(self.path, str(where), random.Random(int(str(given))), self.old)
        elif what == "erase":
            self.erased = sorted({*self.erased, PEOPLE[int(str(where))]})
        elif what.startswith("other"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(indexing, "code_version", lambda: "another")
                key = SubjectKey(b"k" * 32) if what == "other key" else KEY
                look(self.stores, self.erased, reading_of(self.path, self.erased, key))
        else:
            self.change(what, self.stores[int(str(where))], given)

    def change(self, what: str, store: Stamped, given: object) -> None:
        if what in ("flip", "replace", "remove"):
            keys = sorted(store.files.keys() - {"a file"})
            if not keys:
                return
            key = keys[int(str(given)) % len(keys)]
            if what == "remove":
                del store.files[key]
            else:
                content = bytearray(store.files[key] or b"x")
                content[int(str(given)) % len(content)] ^= 1
                store.put(key, bytes(content) if what == "flip" else b"of " + PEOPLE[1].encode())
            return
        if "copy" in what:  # of an object, under a name that says nothing of it
            objects = sorted(key for each in self.stores for key in each.files if key.startswith("files/md5/"))
            if objects:
                key = objects[int(str(given)) % len(objects)]
                whole = next(each.files[key] for each in self.stores if key in each.files)
                store.put(f"copy-{given}", whole[: len(whole) // (1 if what == "copy" else 2)])
            return
        people: Sequence[str] = given  # type: ignore[assignment]
        if what == "part":
            store.add(part(people, self.folder))
        elif what == "file":
            store.put(f"notes-{len(people)}", " ".join(people).encode())
        elif what.startswith("written once: "):
            kind = what.partition(": ")[2]
            store.put(f"{kind}.safetensors", OTHERS[kind](people or PEOPLE[:1]))
        elif people or what in ("weights", "json"):
            store.add(OTHERS[what](people))

    def compare(self) -> None:
        known = look(self.stores, self.erased, reading_of(self.path, self.erased))
        assert found(known) == found(look(self.stores, self.erased))
        for report, store in zip(known, self.stores, strict=True):
            assert report.objects + report.known == len(store.files)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=1, max_size=14))
def test_a_scan_that_leaves_out_what_it_knows_finds_what_a_scan_of_everything_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object, object]]
) -> None:
    history = History(tmp_path_factory.mktemp("history"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LEAST", 1)
        for step in steps:
            history.step(*step)
            history.compare()


@pytest.mark.parametrize("kind", ["part", *OTHERS])
def test_whatever_was_read_before_is_found_once_its_people_go(tmp_path: Path, kind: str) -> None:
    store, path = Stamped(name="cache"), tmp_path / "objects.index"
    store.add(part(PEOPLE[:2], tmp_path) if kind == "part" else OTHERS[kind](PEOPLE[:2]))
    for erased in (PEOPLE[4:], PEOPLE[1:2]):
        reports = look([store], erased, reading_of(path, erased))
        assert found(reports) == found(look([store], erased))
    assert bool(reports[0].residue) == (kind not in ("weights", "manifest"))


def filled(tmp_path: Path) -> Stamped:
    store = Stamped(name="cache")
    for people in (PEOPLE[1:3], PEOPLE[3:4]):
        store.add(part(people, tmp_path))
    for make in (OTHERS["weights"], OTHERS["members"], OTHERS["json"]):
        store.add(make(PEOPLE[2:4]))
    store.put("a file", b"of nobody")
    return store


def test_what_was_read_and_holds_nothing_is_not_read_again(tmp_path: Path) -> None:
    store, path = filled(tmp_path), tmp_path / "objects.index"
    first = look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))[0]
    assert (first.objects, first.known) == (6, 0)
    store.opened.clear()
    second = look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))[0]
    assert store.opened == ["a file"]
    assert (second.objects, second.known, second.bytes) == (1, 5, 9)
    new = store.add(part(PEOPLE[4:], tmp_path))
    store.opened.clear()
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    assert store.opened == ["a file", key_of(new)]


def test_objects_that_may_hold_the_people_are_read_and_no_others(tmp_path: Path) -> None:
    store, path = filled(tmp_path), tmp_path / "objects.index"
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    store.opened.clear()
    report = look([store], PEOPLE[1:2], reading_of(path, PEOPLE[1:2]))[0]
    assert store.opened == [key_of(md5_of(part(PEOPLE[1:3], tmp_path))), "a file"]
    assert report.residue


def test_a_copy_of_what_was_read_whole_is_known_by_its_digest_until_a_byte_of_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LEAST", 1)
    store, path, workspace = filled(tmp_path), tmp_path / "objects.index", Stamped(name="workspace")
    content = part(PEOPLE[1:3], tmp_path)
    workspace.put("p00.parquet", content)
    for objects in (6, 1):  # at first the object is read, and its copy is known by the same scan already
        reports = look([workspace, store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
        assert [(report.store, report.objects, report.known) for report in reports] == [
            ("workspace", 0, 1),
            ("cache", objects, 6 - objects),
        ]
    assert look([workspace, store], PEOPLE[1:2], reading_of(path, PEOPLE[1:2]))[0].residue
    reports = look([workspace, store], PEOPLE[:1], reading_of(path, PEOPLE[:1], trusting=False))
    assert [report.known for report in reports] == [0, 0]
    workspace.put("p00.parquet", content.replace(PEOPLE[1].encode(), PEOPLE[0].encode()))
    reports = look([workspace, store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    assert reports[0].residue
    assert (reports[0].objects, reports[0].known) == (1, 0)


@pytest.mark.parametrize("kind", ["part", *OTHERS])
def test_a_file_that_no_store_names_is_known_by_its_bytes_until_its_people_go(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LEAST", 1)
    store, path = Stamped(name="workspace"), tmp_path / "objects.index"
    content = part(PEOPLE[1:3], tmp_path) if kind == "part" else OTHERS[kind](PEOPLE[1:3])
    store.put("x.safetensors", content)
    answerable = kind not in ("archive", "compressed", "folded", "utf-16", "binary ids")
    for known in (0, answerable):
        assert [report.known for report in look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))] == [known]
    store.put("moved.parquet", store.files.pop("x.safetensors"))
    assert look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))[0].known == answerable
    assert bool(look([store], PEOPLE[1:2], reading_of(path, PEOPLE[1:2]))[0].residue) == (kind not in ("weights", "manifest"))


def test_a_file_that_no_store_names_is_forgotten_once_it_is_gone_but_not_while_its_turn_is_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LEAST", 1)
    store, path = filled(tmp_path), tmp_path / "objects.index"
    store.put("x.safetensors", b"weights of somebody")
    digest = md5_of(b"weights of somebody")
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    waiting = reading_of(path, PEOPLE[:1], trusting=False)
    waiting.has_turn = lambda name: name != "x.safetensors"
    assert look([store], PEOPLE[:1], waiting)[0].waiting == 1
    assert ObjectIndex(path, KEY).has_whole(digest)
    del store.files["x.safetensors"]
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    assert not ObjectIndex(path, KEY).has_whole(digest)


def test_everything_is_read_where_nothing_is_trusted(tmp_path: Path) -> None:
    store, path = filled(tmp_path), tmp_path / "objects.index"
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    report = look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1], trusting=False))[0]
    assert (report.objects, report.known) == (6, 0)


def test_a_term_that_leaves_no_traces_makes_everything_be_read_and_is_told(tmp_path: Path) -> None:
    store, path = filled(tmp_path), tmp_path / "objects.index"
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    reading = reading_of(path, PEOPLE[:1])
    terms = SearchTerms(texts=frozenset({"Zoë"}))
    assert scan([store], terms, lambda _: False, reading)[0].known == 0
    assert [note for note in reading.notes if "no index can answer" in note]


def test_a_condemned_object_is_read_though_it_is_known(tmp_path: Path) -> None:
    store, path = filled(tmp_path), tmp_path / "objects.index"
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    md5 = md5_of(part(PEOPLE[1:3], tmp_path))
    store.opened.clear()
    reading = reading_of(path, PEOPLE[:1])
    report = scan([store], SearchTerms(objects=frozenset({md5})), lambda _: False, reading)[0]
    assert {finding.kind for finding in report.residue} == {"condemned object"}
    assert key_of(md5) in store.opened


def test_people_in_columns_are_found_by_the_list_alone(tmp_path: Path) -> None:
    """As an audit must, which knows no names; and of a name too short to be looked for in bytes."""
    store, path, terms = filled(tmp_path), tmp_path / "objects.index", SearchTerms(objects=frozenset({"0" * 32}))
    short = store.add(parquet(subject=["bob", "eve"]))
    for erased in ([PEOPLE[0]], [PEOPLE[3]], ["bob"]):
        store.opened.clear()
        report = scan([store], terms, erased.__contains__, reading_of(path, erased))[0]
        assert {finding.kind for finding in report.residue} == ({"subject"} if erased != [PEOPLE[0]] else set())
    assert store.opened == ["a file", key_of(short)]


def test_a_stamp_that_somebody_wrote_into_the_index_is_not_believed(tmp_path: Path) -> None:
    store, path = filled(tmp_path), tmp_path / "objects.index"
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    key = key_of(md5_of(part(PEOPLE[3:4], tmp_path)))
    size = len(store.files[key])
    store.put(key, f"of {PEOPLE[0]}".ljust(size).encode())
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE copies SET stamp = ? WHERE key = ?", (str(store.versions[key]), key))
    connection.close()
    assert look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))[0].residue


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_index_is_told_and_made_anew(tmp_path: Path, how: str) -> None:
    store, path = filled(tmp_path), tmp_path / "objects.index"
    old = {"first": b"SQLite format 3\0" + bytes(300)}
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    damage(path, how, random.Random(3), old)
    reading = reading_of(path, PEOPLE[:1])
    look([store], PEOPLE[:1], reading)
    assert len(reading.notes) == (how not in ("lost", "stamps")), "a file whose stamp is another is a new file"
    again = reading_of(path, PEOPLE[:1])
    assert look([store], PEOPLE[:1], again)[0].known == 5
    assert again.notes == []


def test_an_index_that_cannot_be_kept_is_told_and_no_error(tmp_path: Path) -> None:
    path = tmp_path / "objects.index"
    path.mkdir()
    reading = reading_of(path, PEOPLE[:1])
    assert look([filled(tmp_path)], PEOPLE[:1], reading)[0].known == 0
    assert len(reading.notes) == 1


def test_objects_in_another_store_are_known_by_their_bytes_alone(tmp_path: Path) -> None:
    path = tmp_path / "objects.index"
    store = filled(tmp_path)
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    moved = Stamped(dict(store.files), "remote", dict(store.versions))
    key = key_of(md5_of(OTHERS["json"](PEOPLE[2:4])))
    moved.put(key, f"of {PEOPLE[0]}".encode())
    report = look([moved], PEOPLE[:1], reading_of(path, PEOPLE[:1]))[0]
    assert report.known == 4
    assert report.where == (key,)
    assert set(moved.opened) == moved.files.keys()


def in_folder(root: Path, contents: Sequence[bytes]) -> FolderStore:
    for content in contents:
        path = root / key_of(md5_of(content))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return FolderStore("cache", root)


def test_a_byte_that_was_flipped_by_hand_makes_an_object_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "YOUNG", -1.0)
    contents, path = [part(PEOPLE[1:2], tmp_path), b"x" * 99], tmp_path / "objects.index"
    store = in_folder(tmp_path / "cache", contents)
    for known in (0, 2):
        assert look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))[0].known == known
    file = tmp_path / "cache" / key_of(md5_of(contents[1]))
    times = file.stat()
    file.write_bytes(f"of {PEOPLE[0]}".ljust(99).encode())
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had happened
    report = look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))[0]
    assert report.known == 1
    assert report.residue


@pytest.mark.parametrize("young", [-1.0, 1e9])
def test_an_object_whose_mode_was_set_again_stays_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, young: float) -> None:
    """DVC does so, whatever the mode is already: a stamp is another then, also if it is too young to be one."""
    monkeypatch.setattr(folder, "YOUNG", -1.0)
    contents, path = [part(PEOPLE[1:2], tmp_path), b"x" * 99], tmp_path / "objects.index"
    store = in_folder(tmp_path / "cache", contents)
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    for again in (young, -1.0, young):
        monkeypatch.setattr(folder, "YOUNG", again)
        for content in contents:
            (tmp_path / "cache" / key_of(md5_of(content))).chmod(0o444)
        report = look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))[0]
        assert (report.objects, report.known) == (0, 2)


def test_a_file_that_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    store, path = in_folder(tmp_path / "cache", [b"x" * 99]), tmp_path / "objects.index"
    for _ in range(2):
        assert look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))[0].known == 0


def test_an_object_whose_bytes_are_not_those_of_its_name_is_not_remembered(tmp_path: Path) -> None:
    store, path = Stamped(name="cache"), tmp_path / "objects.index"
    store.put(key_of("a" * 32), b"something else")
    for _ in range(2):
        assert look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))[0].known == 0


def test_two_contents_of_one_digest_do_not_hide_behind_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MD5s can be made to collide."""
    clean, hers = Stamped(name="cache"), Stamped(name="remote")
    clean.put(key_of("a" * 32), b"of nobody")
    hers.put(key_of("a" * 32), PEOPLE[0].encode())

    class Colliding:
        def update(self, _: bytes) -> None: ...

        def hexdigest(self) -> str:
            return "a" * 32

    monkeypatch.setattr(hashlib, "md5", lambda **_: Colliding())
    path = tmp_path / "objects.index"
    for stores in ([hers, clean], [clean, hers]):
        look(stores, PEOPLE[4:], reading_of(path, PEOPLE[4:]))
        assert any(report.residue for report in look(stores, PEOPLE[:1], reading_of(path, PEOPLE[:1])))


def test_the_index_names_nobody_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    store, path = filled(tmp_path), tmp_path / "objects.index"
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    raw = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    for person in PEOPLE:
        pseudonym = KEY.pseudonym(person)
        for secret in (person, person[:8], pseudonym[:8], *(record.id[:8] for record, _ in RECORDS[person])):
            assert secret.encode() not in raw
        for record, image in RECORDS[person]:
            assert not any(image[at : at + 8] in raw for at in range(0, len(image) - 8, 8))
            assert bytes.fromhex(record.sha256)[:4] not in raw
        assert bytes.fromhex(pseudonym)[:4] not in raw


def test_who_was_erased_is_in_no_entry_once_the_objects_are_gone(tmp_path: Path) -> None:
    store, path = filled(tmp_path), tmp_path / "objects.index"
    theirs = store.add(part(PEOPLE[:1], tmp_path))
    look([store], PEOPLE[4:], reading_of(path, PEOPLE[4:]))
    index = ObjectIndex(path, KEY)
    question = indexing.question_of(index.key, Finder(terms_of(PEOPLE[:1]).patterns()), [KEY.pseudonym(PEOPLE[0])])
    assert theirs not in index.clean(question)
    own = {digest for needs in question.all_of for digest in needs if holders(index, store, digest) == {theirs}}
    written = [digest.to_bytes(8, "little") for digest in own | question.any_of]
    held = [digest for digest in written if digest in path.read_bytes()]
    assert len(held) > 5
    forget_contents(path, [theirs])
    assert not any(digest in path.read_bytes() for digest in held)
    assert theirs.encode() not in path.read_bytes()


def holders(index: ObjectIndex, store: Stamped, digest: int) -> set[str]:
    """Which contents have a trace (all of these names begin alike)."""
    without = index.clean(indexing.Question(frozenset({digest}), (), 0))
    return {md5 for key in store.files if (md5 := indexing.md5_of(key)) and md5 not in without}


def test_objects_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    store, path = filled(tmp_path), tmp_path / "objects.index"
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    gone = md5_of(part(PEOPLE[3:4], tmp_path))
    del store.files[key_of(gone)]
    look([store], PEOPLE[:1], reading_of(path, PEOPLE[:1]))
    assert gone.encode() not in path.read_bytes()


def test_forgetting_from_a_damaged_index_takes_it_away(tmp_path: Path) -> None:
    path = tmp_path / "objects.index"
    forget_contents(path, ["a" * 32])
    assert not path.exists()
    path.write_bytes(b"no database at all" * 99)
    forget_contents(path, ["a" * 32])
    assert not path.exists()
