"""A purge where parts are folders of shards: what was made of a folder goes with her shard, and other people's shards stay."""

from collections.abc import Mapping

from builders import make_record, png

from flows.purge.marks import retained_files, retained_values
from lmeraser.data.records import shard_file, write_records
from lmeraser.pipeline.locks import digest_of_folder
from unit.yard import BOB, BOBS, HER, HERS, Yard

CEMS = (make_record("cem", image=png(5)), png(5))
PRIVATE = "artifacts/split/private"


def state(yard: Yard, *shards: tuple[object, ...], model: bytes) -> dict[str, str]:
    """Write, store and lock one state: a part of several shards, and a model made of its folder."""
    folder, made = yard.layout.part("p00"), dict[str, str]()
    for file in folder.glob("*"):
        file.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for number, records in enumerate(shards):
        write_records(shard_file(folder, number), records, number, len(shards))  # type: ignore[arg-type]
        made[f"{number:04d}.parquet"] = yard.store(shard_file(folder, number).read_bytes())
    private = yard.folder({f"p00.parquet/{name}": md5 for name, md5 in made.items()})
    made |= {"private": private, "model": yard.store(model)}
    yard.lock("dvc.lock", split=({"people": "1" * 32}, {PRIVATE: private}), embed=embedded(made))
    return made


def embedded(made: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """A stage that depends on the part's folder, whose digest is no object."""
    inside = digest_of_folder({name: md5 for name, md5 in made.items() if name.endswith(".parquet")})
    return {f"{PRIVATE}/p00.parquet": inside}, {"artifacts/tune/c00.safetensors": made["model"]}


def test_what_was_made_of_a_folder_of_shards_goes_with_her_shard_and_other_shards_stay(yard: Yard) -> None:
    old = state(yard, (HERS,), (BOBS,), model=b"a model of everybody")
    yard.commit()
    new = state(yard, (), (BOBS,), model=b"a model without her")
    assert old["0001.parquet"] == new["0001.parquet"]
    planned = yard.purge()
    for store in (yard.cache, yard.remote):
        assert yard.objects_in(store) == set(new.values())
    assert old["model"] in planned.journal.objects, "it was made of her shard"
    assert planned.unknown == {}


def test_what_a_clone_pushed_of_a_folder_of_shards_after_the_plan_goes_too(yard: Yard) -> None:
    from flows.purge import step as purge

    old = state(yard, (HERS,), (BOBS,), model=b"a model of everybody")
    yard.commit()
    new = state(yard, (), (BOBS,), model=b"a model without her")
    planned = purge.plan(yard.layout, lambda subject: subject == HER)
    shards = {"0000.parquet": old["0000.parquet"], "0001.parquet": yard.store(b"a shard of cem's", yard.remote)}
    yard.folder({f"p00.parquet/{name}": md5 for name, md5 in shards.items()}, yard.remote)
    entry = f"{'a' * 64}/{'b' * 64}"
    run = yard.remote / "runs" / "aa" / entry
    run.parent.mkdir(parents=True)
    run.write_text(f"cmd: x\ndeps:\n- path: {PRIVATE}/p00.parquet\n  md5: {digest_of_folder(shards)}\nouts: []\n")
    purge.carry_out(yard.layout, planned.journal)
    assert not run.exists(), "it would bring back what was made of her"
    assert set(new.values()) <= yard.objects_in(yard.remote)


def test_retained_people_of_every_shard_are_known(yard: Yard) -> None:
    """Else an image that somebody else has too would be taken for a sign of who is erased."""
    state(yard, (HERS,), (BOBS, CEMS), model=b"a model")
    assert retained_files(yard.layout) == [yard.layout.part("p00")]
    assert retained_values(yard.layout, "subject") == {HER, BOB, "cem"}
