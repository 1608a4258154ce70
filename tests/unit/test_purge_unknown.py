"""What no lock explains: it stays outside the project's own cache and is reported, unless it is seen to hold who is erased."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import pytest
from builders import make_record, png, refused

from flows.purge import step as purge
from lmeraser.core.errors import BlockedError, StepFailedError
from lmeraser.stores.folder import FolderStore
from unit.yard import BOBS, HER, HERS, Yard, two_states


def test_what_is_only_unknown_is_deleted_from_the_own_cache_and_nowhere_else(yard: Yard) -> None:
    _, new = two_states(yard)
    everywhere = yard.store(b"of nobody knows what")
    planned = yard.purge()
    assert yard.objects_in(yard.cache) == set(new.values())
    assert yard.objects_in(yard.remote) == {everywhere, *new.values()}
    assert planned.unknown == {"remote disk": 1}
    assert everywhere not in purge.remembered(yard.layout).objects


def test_a_cache_outside_the_project_is_shared(yard: Yard, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    with (yard.root / ".dvc" / "config").open("a") as config:
        config.write(f"[cache]\n    dir = {shared}\n")
    _, new = two_states(yard)
    for md5 in new.values():
        path = yard.cache / "files" / "md5" / md5[:2] / md5[2:]
        yard.store(path.read_bytes(), shared, folder=md5.endswith(".dir"))
    theirs = yard.store(b"another project's", shared)
    (shared / "files" / "md5" / "aa").mkdir()
    (shared / "files" / "md5" / "aa" / "readme").write_text("another program's")
    planned = yard.purge()
    assert theirs in yard.objects_in(shared)
    assert (shared / "files" / "md5" / "aa" / "readme").exists()
    assert planned.unknown == {"cache": 1}


def test_a_colleague_s_push_of_a_model_of_everybody_is_refused_and_told(yard: Yard) -> None:
    two_states(yard)
    part = yard.part(HERS, BOBS, (make_record("cem", image=png(3)), png(3)))
    pushed = [yard.store(part, yard.remote), yard.store(b"a model of everybody, tuned otherwise", yard.remote)]
    other = yard.store(yard.part(BOBS, (make_record("cem", image=png(3)), png(3))), yard.remote)
    yard.folder({"p00.parquet": pushed[0], "p01.parquet": other}, yard.remote)
    assert purge.unknown_in_remotes(yard.layout) == {"remote disk": 4}
    planned = purge.plan(yard.layout, lambda subject: subject == HER)
    assert planned.unknown == {"remote disk": 2}, "the model, and a part of others"
    message = refused(BlockedError, lambda: purge.refuse_unknown(planned.unknown, False))
    assert "remote disk: 2" in message
    assert "--accept-unknown" in message
    purge.refuse_unknown(planned.unknown, True)
    purge.refuse_unknown({}, True)
    purge.carry_out(yard.layout, planned.journal)
    assert {pushed[1], other} <= yard.objects_in(yard.remote)
    assert pushed[0] not in yard.objects_in(yard.remote), "it was seen to hold her"


@pytest.mark.parametrize("form", ["bytes", "json"])
def test_an_unknown_file_that_is_seen_to_hold_her_goes_from_a_remote(yard: Yard, form: str) -> None:
    _, new = two_states(yard)
    content = b"...." + png(1) + b"...." if form == "bytes" else json.dumps({"who": HER}).encode()
    yard.store(content, yard.remote)
    yard.purge()
    assert yard.objects_in(yard.remote) == set(new.values())


def test_a_part_is_read_once_for_what_people_are_known_by_and_once_for_what_it_holds(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts may lie in a bucket, and most hold nobody who is erased."""
    cem = yard.store(yard.part(BOBS, (make_record("cem", image=png(3)), png(3))))
    old, _ = two_states(yard)
    yard.lock("before/dvc.lock", split=({}, {"artifacts/split/private/p00.parquet": cem}))
    opened: Counter[str] = Counter()
    real = FolderStore.open

    def counting(store: FolderStore, key: str) -> BinaryIO:
        opened[key.removeprefix("files/md5/").replace("/", "")] += 1
        return real(store, key)

    monkeypatch.setattr(FolderStore, "open", counting)
    search_terms = purge.plan(yard.layout, lambda subject: subject == HER).search_terms
    assert search_terms.ids == {HERS[0].id}
    assert search_terms.images == {png(1)}
    copies = 2  # that hold nothing are each looked into
    assert opened[cem] == 1 + copies
    assert opened[old["part"]] == 2 + 1, "its images too"


def test_a_file_of_a_store_that_cannot_be_read_is_one_line(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    two_states(yard)
    md5 = yard.store(b"unknown, and closed", yard.remote)
    real = os.open

    def closed(path: object, *given: int, **more: int) -> int:  # modes do not stop root
        if str(path).endswith(md5[2:]):
            raise PermissionError(13, "Permission denied")
        return real(path, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(StepFailedError, match=r"^remote disk: a file or folder cannot be read"):
        yard.purge()
