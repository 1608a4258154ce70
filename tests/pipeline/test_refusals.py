"""Bad input: one clear line, the documented exit status, and nothing changed."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from sandbox import Sandbox, make_project, refused

pytestmark = pytest.mark.slow


@pytest.fixture
def fresh(tmp_path: Path) -> Sandbox:
    """An unbuilt project."""
    return make_project(tmp_path / "fresh")


def test_broken_data_stop_the_build_with_one_line_and_the_documented_status(fresh: Sandbox) -> None:
    people = fresh.root / "people"
    good = (people / "manifest.csv").read_text()
    header, *rows = good.splitlines()
    first = people / rows[0].split(",")[0]
    image = first.read_bytes()
    huge = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b""))
    )
    cases: dict[str, tuple[str | None, bytes | None]] = {
        "missing": (None, None),
        "0 bytes": (None, b""),
        "decoded": (None, image[: len(image) // 2]),
        "more than image.max_pixels 50000000": (None, huge),
        "is empty": ("", None),
        "column subject": (good.replace(rows[0].split(",")[2], "", 1), None),
        "column visibility": (good.replace(",private,", ",privat,", 1), None),
        "column split": (good.replace(",train\n", ",trian\n", 1), None),
        "column path": (good + rows[0] + "\n", None),
        "leaves": (good + "../out.png,1,kanarienvogel-x,private,train\n", None),
        "no public": (good.replace(",public,", ",private,"), None),
        "one class": (header + "\n" + "".join(f"{r.split(',')[0]},1,{r.split(',', 2)[2]}\n" for r in rows), None),
    }
    before = fresh.contents()
    for expected, (manifest, content) in cases.items():
        if manifest is not None:
            (people / "manifest.csv").write_text(manifest)
        elif content is not None:
            first.write_bytes(content)
        else:
            first.unlink()
        line = refused(fresh.python("-m", "stages.split"), 2)
        assert expected in line, (expected, line)
        first.write_bytes(image)
        (people / "manifest.csv").write_text(good)
        assert fresh.contents() == before, expected
    (people / "manifest.csv").unlink()
    assert "manifest.csv" in refused(fresh.lmeraser("build"), 2)


def test_misspelt_params_and_missing_slots_stop_every_command(project: Sandbox) -> None:
    project.set_params(tune={"epoch": 3})
    for command in (("build",), ("plan", "--subject", project.people()[0]), ("forget", "--subject", project.people()[0])):
        assert "did you mean epochs?" in refused(project.lmeraser(*command), 2)
    project.set_params(skeleton={"leaves": 7})
    raw = (project.root / "params.yaml").read_text().replace("  epoch: 3\n", "")
    (project.root / "params.yaml").write_text(raw)
    assert "3 more slots (7 are needed)" in refused(project.lmeraser("build"), 2)


def test_unknown_subject_stale_pipeline_and_wrong_folder_change_nothing(project: Sandbox, tmp_path: Path) -> None:
    before = project.contents(private=False)
    assert "subject 2 of 2 is unknown" in refused(project.lmeraser("forget", "--subject", project.people()[0], "nobody"), 2)
    assert "no subject was named" in refused(project.lmeraser("plan"), 2)
    assert "UUID" in refused(project.lmeraser("forget", "--subject", project.people()[0], "--request-id", "seven"), 2)
    assert "unknown here" in refused(project.lmeraser("status", "00000000-0000-0000-0000-000000000000"), 2)
    assert "--rebuild" in refused(project.lmeraser("audit"), 2)
    elsewhere = Sandbox(tmp_path)
    done = elsewhere.python(
        "-c", "import sys; sys.path.insert(0, sys.argv.pop()); from flows.cli import main; main(['status'])", str(project.root)
    )
    assert "no project here" in refused(done, 2)
    everybody = project.people()
    assert "nothing would be left" in refused(project.lmeraser("forget", "--subject", *everybody), 2)
    assert project.contents(private=False) == before
    whole = (project.root / "dvc.lock").read_bytes()
    (project.root / "dvc.lock").write_bytes(b"")
    assert "dvc.lock" in refused(project.lmeraser("plan", "--subject", everybody[0]), 2)
    (project.root / "dvc.lock").write_bytes(whole)
    project.set_params(tune={"epochs": 9})
    assert "not up to date" in refused(project.lmeraser("forget", "--subject", everybody[0]), 2)


def test_bytes_that_are_not_those_promised_are_refused_on_read(project: Sandbox) -> None:
    part = project.root / "artifacts" / "split" / "private" / "p00.parquet"
    table = pq.read_table(part)
    images = [image[:-1] + b"\0" for image in table["image"].to_pylist()]
    place = table.schema.get_field_index("image")
    pq.write_table(table.set_column(place, "image", pa.array(images, pa.binary())), part)
    assert "sha256" in refused(project.python("-m", "stages.tune", "c00", "c01", "c02", "c03"), 2)
    assert "not up to date" in refused(project.lmeraser("forget", "--subject", project.people()[0]), 2)


def test_nan_in_features_stops_the_build_before_training(project: Sandbox) -> None:
    weights = project.root / "artifacts" / "pretrain" / "backbone.safetensors"
    from safetensors import safe_open

    with safe_open(weights, "numpy") as opened:
        note = opened.metadata()
    tensors = load_file(weights)
    tensors["conv1.weight"] = np.full_like(tensors["conv1.weight"], np.nan)
    save_file(tensors, weights, metadata=note)
    done = project.python("-m", "stages.runtime.chain", "embed@p00", "embed@p01", "cluster", "validate", "tune@c00")
    line = refused(done, 2)
    assert "features" in line
    assert "not finite (NaN or infinity)" in line
    assert "tune" not in done.stderr
