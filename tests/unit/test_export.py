"""An exported model: what was signed is what lies there, whoever changes a file; and nobody is named in it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import CANARY_PATH, raw_params, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.release import export as exporting
from flows.release.card import card
from lmeraser.core.digest import sha256_of_file
from lmeraser.core.errors import BadInputError, ProjectError, VerificationError
from lmeraser.core.layout import EXPORT_FILE, Layout
from lmeraser.core.params import Params, load_params
from lmeraser.pipeline.whole import require_export_whole
from lmeraser.prove.certificate import sign
from lmeraser.prove.export import CARD_FILE, Exported, check_export, make_export_statement
from lmeraser.prove.verify import CertificateError
from unit.test_certificate import KEYS, NEW, OLD

EXPORTED = Exported(
    model_version="d" * 64,
    project="0123456789abcdef",
    exported_at="2026-01-01T00:00:00+00:00",
    certificates=3,
    head="a" * 64,
    audits={"stores": "2026-01-01, 1/1 of the files: clean"},
    environment={"machine": "x86_64"},
    fingerprint="0" * 16,
    code_revision="b" * 40,
)
ABOUT = {"model": "resnet18", "size": 16, "channels": "grey", "license": "apache-2.0", "accuracy": 0.987654}
CONTENT = {
    "params.yaml": b"seed: 0\n",
    "artifacts/head/head.safetensors": b"head",
    "artifacts/tune/c01.safetensors": b"a cluster",
}


def write_export(folder: Path, exported: Exported = EXPORTED) -> Path:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    files = {name: sha256_of_file(folder / name) for name in CONTENT}
    (folder / CARD_FILE).write_bytes(card("digits", exported, ABOUT))
    files[CARD_FILE] = sha256_of_file(folder / CARD_FILE)
    (folder / EXPORT_FILE).write_bytes(sign(make_export_statement(exported, files), OLD))
    return folder


def test_an_export_tells_its_version_and_its_duties(tmp_path: Path) -> None:
    checked = check_export(write_export(tmp_path), KEYS)
    assert (checked.certificates, checked.head, checked.files, checked.others) == (3, "a" * 64, 4, 0)
    assert any("newer version" in line for line in checked.holder)
    assert checked.model_version == "d" * 64


def test_a_changed_file_of_an_export_is_not_loaded(tmp_path: Path) -> None:
    layout = Layout(write_export(tmp_path))
    require_export_whole(layout)
    (tmp_path / "artifacts" / "tune" / "c01.safetensors").write_bytes(b"another")
    refused(ProjectError, lambda: require_export_whole(layout))
    (tmp_path / EXPORT_FILE).write_bytes(b"{}")
    refused(ProjectError, lambda: require_export_whole(layout))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = write_export(tmp_path_factory.mktemp("export"))
    path = folder / data.draw(st.sampled_from([*CONTENT, CARD_FILE, EXPORT_FILE]))
    content = bytearray(path.read_bytes())
    # What lies around the envelope's values is no one's word: spaces and the order of names.
    place = data.draw(st.sampled_from([at for at, byte in enumerate(content) if byte not in b" \n"]))
    content[place] ^= data.draw(st.integers(1, 127))
    path.write_bytes(bytes(content))
    with pytest.raises(CertificateError):
        check_export(folder, KEYS)


def test_what_is_missing_added_or_linked_is_refused(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    (folder / "notes.txt").write_text("of the holder's own")
    assert check_export(folder, KEYS).others == 1
    (folder / "artifacts" / "tune" / "c02.safetensors").write_bytes(b"old")
    assert "1 files that" in refused(CertificateError, lambda: check_export(folder, KEYS))
    (folder / "artifacts" / "tune" / "c02.safetensors").unlink()
    head = folder / "artifacts" / "head" / "head.safetensors"
    head.rename(tmp_path / "head")
    assert "missing" in refused(CertificateError, lambda: check_export(folder, KEYS))
    head.symlink_to(tmp_path / "head")
    assert "missing" in refused(CertificateError, lambda: check_export(folder, KEYS))
    shutil.rmtree(folder)
    folder.mkdir()
    refused(BadInputError, lambda: check_export(folder, KEYS))


def test_an_export_of_another_key_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = write_export(tmp_path)
    refused(CertificateError, lambda: check_export(folder, [NEW.public_key]))
    files = {name: sha256_of_file(folder / name) for name in CONTENT}
    changes: tuple[dict[str, Any], ...] = ({"predicateType": "urn:lmeraser:erasure:v1"}, {"predicate": {}})
    for change in changes:
        (folder / EXPORT_FILE).write_bytes(sign(make_export_statement(EXPORTED, files) | change, OLD))
        refused(CertificateError, lambda: check_export(folder, KEYS))
    with pytest.raises(VerificationError, match="environment_fingerprint"):
        make_export_statement(replace(EXPORTED, fingerprint="x"), files)


def test_the_card_is_one_that_the_hub_reads(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    made = ModelCard.load(write_export(tmp_path) / CARD_FILE)
    raw: dict[str, Any] = made.data.to_dict()
    assert raw["erasure"]["certificates"] == 3
    assert raw["erasure"]["when_a_newer_version_appears"]
    assert raw["license"] == "apache-2.0"
    assert made.data.eval_results[0].metric_value == 0.987654


def test_params_of_an_export_load_and_say_nothing_of_the_source(tmp_path: Path) -> None:
    weights = {"weights": {"file": CANARY_PATH, "sha256": "c" * 64}, "epochs": 0, "small_stem": False}
    raw = raw_params({"source": {"kind": "manifest", "path": CANARY_PATH, "erase": True}})
    params = Params.model_validate(raw | {"pretrain": raw["pretrain"] | weights})
    text = exporting._public_params(params)
    assert "CANARY" not in text
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert load_params(path).serve == params.serve
    assert yaml.safe_load(text)["source"]["path"] == "exported"


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"x")
    refused(BadInputError, lambda: exporting._require_free(tmp_path))
    refused(BadInputError, lambda: exporting._require_free(tmp_path / "photo.png"))
    refused(BadInputError, lambda: exporting._require_free(tmp_path / "no" / "folder"))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refused(BadInputError, lambda: exporting._require_free(tmp_path / "link"))
    exporting._require_free(tmp_path / "new")
    (tmp_path / "new").mkdir()
    exporting._require_free(tmp_path / "new")
    exporting._require_free(write_export(tmp_path / "older"))


def test_card_is_written_for_people(tmp_path: Path) -> None:
    text = card("digits", EXPORTED, ABOUT | {"accuracy": None}).decode()
    assert "not measured" in text
    assert json.dumps("model_version")[1:-1] in text
