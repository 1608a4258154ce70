"""Near copies: what is nearer than usual between strangers is found, by features or by hash; nothing else, and nobody named."""

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from builders import Lab, Row, encoded, png, write_json, write_manifest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from staged import STOCK, Project

from lmeraser.core.digest import sha256
from lmeraser.data.records import read_records
from lmeraser.learn import near as learn_near
from lmeraser.learn.environment import network_environment
from lmeraser.learn.near import BITS, Looks, Match, Strangers, Usual, near_ones, perceptual_hash, usual
from lmeraser.serve import remembered
from lmeraser.serve.remembered import PLAIN, Rows, key_of
from stages import near as stage

NOBODY = Usual(0.0, 0, 0)
Crowd = tuple[Looks, NDArray[np.int64], NDArray[np.int64]]


def looks(features: NDArray[np.float64], hashes: Sequence[int] | None = None) -> Looks:
    bits = np.array(hashes if hashes is not None else [0] * len(features), dtype=np.uint64)
    return Looks(features.astype(np.float32), bits)


@st.composite
def crowds(draw: st.DrawFn) -> Crowd:
    """Looks of records, whose each is, and which distinct image."""
    n = draw(st.integers(2, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    image = rng.integers(0, n, n)
    features, hashes = rng.integers(-40, 40, (n, 3)).astype(np.float64), rng.integers(0, 2**10, n)
    return looks(features[image], hashes[image].tolist()), rng.integers(0, draw(st.integers(1, 6)), n), image


def nearest_stranger(crowd: Crowd, row: int) -> tuple[float, int] | None:
    """The plain words of it: one after the other."""
    (features, hashes), whose, image = crowd
    strangers = [other for other in range(len(whose)) if whose[other] != whose[row] and image[other] != image[row]]
    if not strangers:
        return None
    wide = features.astype(np.float64)
    distances = [float(((wide[row] - wide[other]) ** 2).sum()) for other in strangers]
    bits = [bin(int(hashes[row]) ^ int(hashes[other])).count("1") for other in strangers]
    return min(distances), min(bits)


@given(crowds(), st.sampled_from([0.0, 0.05, 0.3, 0.9]))
def test_usual_is_what_the_share_of_the_sample_shows_or_a_quarter_of_the_median(crowd: Crowd, share: float) -> None:
    seen, whose, image = crowd
    with pytest.MonkeyPatch.context() as patch:  # blocks decide nothing
        patch.setattr(learn_near, "ASKED", 3)
        patch.setattr(learn_near, "OTHERS", 5)
        limits = usual([seen], whose, image, Strangers(seen, whose, image), share)
    assert limits == usual([seen], whose, image, Strangers(seen, whose, image), share)
    nearest = [found for row in range(len(whose)) if (found := nearest_stranger(crowd, row))]
    assert limits.sampled == len(nearest)
    for limit, sizes, quarter in (
        (limits.features, sorted(distance for distance, _ in nearest), 1 / 16),
        (limits.bits, sorted(bits for _, bits in nearest), 1 / 4),
    ):
        below, upto = sum(size < limit for size in sizes), sum(size <= limit for size in sizes)
        least = sizes[len(sizes) // 2] * quarter if sizes else 0
        assert below <= share * len(sizes) or int(limit) == int(least)
        assert upto > share * len(sizes) or not sizes
        assert int(limit) >= int(least)


@given(crowds(), st.integers(1, 5), st.integers(0, 4000), st.integers(0, 8))
def test_near_are_just_those_nearer_than_usual_to_a_leaving_image(crowd: Crowd, count: int, distance: int, bits: int) -> None:
    seen, limits = crowd[0], Usual(float(distance), bits, 9)
    leaving, others = seen.take(slice(0, count)), seen.take(slice(count, None))
    views = [leaving, looks(leaving.features[:, ::-1].astype(np.float64), leaving.hashes.tolist())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn_near, "ASKED", 2)
        patch.setattr(learn_near, "OTHERS", 3)
        found = near_ones(views, others, limits)
    assert found == near_ones(views, others, limits)
    expected = {}
    for row in range(len(others.hashes)):
        pairs = []
        for place in range(len(leaving.hashes)):
            gaps = [((view.features[place].astype(float) - others.features[row].astype(float)) ** 2).sum() for view in views]
            differing = min(bin(int(view.hashes[place]) ^ int(others.hashes[row])).count("1") for view in views)
            pairs.append((float(min(gaps)), differing))
        least = min(distance for distance, _ in pairs)
        if least == 0 or least < limits.features or min(bits for _, bits in pairs) < limits.bits:
            expected[row] = pairs
    assert {match.other for match in found} == expected.keys()
    for match in found:
        assert expected[match.other][match.leaving] == (match.distance, match.bits)
        assert match.distance == 0 or match.distance < limits.features or match.bits < limits.bits


def test_who_looks_the_same_is_near_though_nobody_tells_what_is_usual() -> None:
    leaving, others = looks(np.ones((1, 2))), looks(np.array([[5.0, 5.0], [1.0, 1.0]]), [2**BITS - 1, 2**BITS - 1])
    assert near_ones([leaving], others, NOBODY) == [Match(1, 0, 0.0, BITS)]
    whose = np.zeros(2, dtype=np.int64)
    assert usual([others], whose, np.arange(2), Strangers(others, whose, np.arange(2)), 0.05) == NOBODY


def test_copies_among_strangers_do_not_tell_that_copies_are_usual() -> None:
    features = np.array([[100.0 * number] for number in range(10)])
    copied = looks(np.concatenate([features, features[:2] + 1]), [0] * 12)  # two of ten were copied under other names
    whose, image = np.arange(12), np.arange(12)
    limits = usual([copied], whose, image, Strangers(copied, whose, image), 0.05)
    assert limits.features == 100.0**2 / 16  # and not 1, as the nearest strangers say


def photograph(seed: int, side: int = 48) -> Image.Image:
    """Blobs of a few pixels: something that re-encoding keeps."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def test_hash_stays_nearly_the_same_where_an_image_is_encoded_again_and_resized_and_another_one_has_another() -> None:
    def bits(one: Image.Image, other: Image.Image) -> int:
        return bin(perceptual_hash(one) ^ perceptual_hash(other)).count("1")

    image = photograph(1)
    again = Image.open(io.BytesIO(encoded(image, "JPEG", quality=50)))
    assert bits(image, image) == 0
    assert bits(image, again) <= 6
    assert bits(image, image.resize((30, 30))) <= 6
    assert bits(image, photograph(2)) > 16
    assert 0 <= perceptual_hash(image) < 2**BITS


# the stage


def give(project: Project, extra: dict[tuple[str, str, str], bytes]) -> None:
    """Photographs of nine people, two each, and more under (subject, visibility, split)."""
    rows = [Row(f"anna-{number}", ("one", "two")[place], seed=2 * number + place) for number in range(9) for place in range(2)]
    folder = project.layout.root / "people"
    folder.mkdir()
    table = []
    for row in rows:
        (folder / f"{row.seed}.png").write_bytes(encoded(photograph(row.seed)))
        table.append((f"{row.seed}.png", row.label, row.subject, row.visibility, row.split))
    for row in STOCK:
        (folder / f"{row.subject}.png").write_bytes(png(row.seed))
        table.append((f"{row.subject}.png", row.label, row.subject, row.visibility, row.split))
    for number, ((subject, visibility, split), data) in enumerate(extra.items()):
        (folder / f"extra-{number}.png").write_bytes(data)
        table.append((f"extra-{number}.png", "one", subject, visibility, split))
    write_manifest(folder, table)


COPIES: dict[tuple[str, str, str], bytes] = {
    ("ben", "private", "train"): encoded(photograph(0), "JPEG", quality=60),
    ("cem", "private", "test"): encoded(ImageOps.mirror(photograph(1))),
    ("stock-9", "public", "train"): encoded(photograph(0).resize((40, 40))),
    ("eve", "private", "train"): encoded(photograph(1).crop((3, 3, 45, 45))),
    ("dora", "private", "train"): encoded(photograph(0)),  # the very bytes
}


@pytest.fixture(scope="module")
def project(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Near copies of anna-0's two images under other names."""
    made = Project.make(tmp_path_factory.mktemp("near") / "project", lab, {"cluster.method": "random", "evaluate.remember": True})
    give(made, COPIES)
    made.run_whole()
    return made


def records_of(project: Project) -> dict[str, Any]:
    layout = project.layout
    paths = [*map(layout.part, project.params.parts), layout.public]
    return {record.id: record for path in paths for record in read_records(path)}


def ask(project: Project, leaving: Sequence[str], left_out: Sequence[str] = (), share: float = 0.05) -> dict[str, Any]:
    """Args: leaving, left_out: subjects."""
    records = records_of(project)
    path = project.layout.near("x")
    path.parent.mkdir(exist_ok=True)
    gone, out = ([one.id for one in records.values() if one.subject in names] for names in (leaving, left_out))
    write_json(path, {"folder": None, "leaving": gone, "left_out": out, "share": share, "most": 500})
    stage.near(project.layout, project.params, ["x"])
    assert path.stat().st_mode & 0o777 == 0o600
    answer: dict[str, Any] = json.loads(path.read_bytes())
    path.unlink()
    return answer


def people(project: Project, answer: dict[str, Any]) -> list[str]:
    records = records_of(project)
    return sorted(records[match["other"]].subject for match in answer["matches"])


def test_copies_under_other_names_are_found_encoded_again_mirrored_cropped_resized_private_and_public(project: Project) -> None:
    answer = ask(project, ["anna-0"])
    assert people(project, answer) == ["ben", "cem", "dora", "eve", "stock-9"]
    assert answer["found"] == 5
    assert answer["matches"][0]["distance"] == 0
    assert answer["sampled"] == 20  # the private records of those who stay
    records = records_of(project)
    for match in answer["matches"]:
        like = {"ben": 0, "dora": 0, "stock-9": 0, "cem": 1, "eve": 1}[records[match["other"]].subject]
        assert records[match["leaving"]].sha256 == sha256(encoded(photograph(like)))


def test_who_is_left_out_is_no_candidate_and_the_answer_has_neither_feature_nor_hash_nor_name(project: Project) -> None:
    answer = ask(project, ["anna-0"], ["ben", "cem", "eve"])
    assert people(project, answer) == ["dora", "stock-9"]
    assert set(answer) == {"usual_distance", "usual_bits", "sampled", "compared", "found", "matches"}
    assert set(answer["matches"][0]) == {"other", "leaving", "distance", "bits", "by_features", "by_hash"}
    assert not any(record.subject in json.dumps(answer) for record in records_of(project).values())


def test_remembered_features_are_taken_where_they_are_of_this_model(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ask(project, ["anna-0"])
    layout, params = project.layout, project.params
    (test,) = [record for record in records_of(project).values() if record.subject == "cem"]
    strange = np.full((1, project.lab.backbone.dim), 7.5, dtype=np.float32)
    ours = key_of(layout, params, network_environment(params.device))
    remembered.write(layout, PLAIN, ours, Rows([test.sha256], strange))
    told = ask(project, ["anna-0"])  # what lies there is believed: no second pass
    (was,), (now,) = ([match for match in answer["matches"] if match["other"] == test.id] for answer in (plain, told))
    assert (was["by_features"], now["by_features"]) == (True, False)
    other = key_of(layout, params, {"torch": "another"})
    remembered.write(layout, PLAIN, other, Rows([test.sha256], strange))
    assert ask(project, ["anna-0"]) == plain
    remembered.keep_only(layout, [])


def test_alone_with_one_other_person_only_what_looks_the_same_is_listed(project: Project) -> None:
    everybody = {record.subject for record in records_of(project).values()}
    answer = ask(project, ["anna-0"], sorted(everybody - {"anna-0", "anna-1"}))
    assert (answer["sampled"], answer["usual_bits"], answer["usual_distance"], answer["found"]) == (0, 0, 0.0, 0)
    answer = ask(project, ["anna-0"], sorted(everybody - {"anna-0"}))
    assert (answer["compared"], answer["found"]) == (0, 0)
