"""What is stored where nothing can be deleted holds no path, no address and no file of somebody's, whatever was quoted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.redaction import GONE, LONGEST, storable

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=4, max_size=30)


@given(NAMES, st.sampled_from(["people/{}/scan.png", "/data/{}", "{}/x", "C:\\{}\\x", "{}.png", "{}@example.org", "file:///{}"]))
def test_no_path_file_or_address_stays_in_a_line(name: str, shape: str) -> None:
    word = "kanarienvogel" + name
    line = storable(f"dvc failed: unable to open '{shape.format(word)}': no such file, retry")
    assert "kanarienvogel" not in line
    assert GONE in line
    assert line.startswith("dvc failed: ")


@pytest.mark.parametrize(
    "line",
    [
        "tune@c07 changed, and the plan did not name it (3 such stages)",
        "data/erased.json is missing; restore it from git: it keeps erased subjects out",
        "tune/03/dvc.lock is empty or damaged; run `git checkout dvc.lock && dvc repro` and retry",
        "artifacts/tune/c07.safetensors is not what the lock names; run `dvc checkout`",
        "remote backup cannot be reached (ConnectionError); the request stays open",
        "the claim is at step 3/7; params.yaml: tune.epochs is 0, service.fan_out is here",
    ],
)
def test_our_own_places_stay_readable(line: str) -> None:
    assert storable(line) == line


@given(st.text(max_size=2000))
def test_any_text_becomes_one_short_printable_line(text: str) -> None:
    line = storable(text)
    assert len(line) <= LONGEST
    assert line.isprintable()
