"""An export of a real project answers as the project does, where there is neither project nor DVC nor Prefect."""

import json
from pathlib import Path

import pytest
from sandbox import CANARY, Sandbox

pytestmark = pytest.mark.slow

ALONE = """
import json, sys
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("dvc", "prefect", "flows", "stages"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import lmeraser
with lmeraser.load(sys.argv[1]) as model:
    answer = model.predict([Path(name).read_bytes() for name in sys.argv[2:]])
print(json.dumps([answer.labels, answer.probabilities.max(1).tolist(), answer.parts.model_version]))
"""


def test_an_export_answers_as_the_project_does_without_it(project: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "released"
    images = [str(path) for path in sorted((project.root / "people" / "images").iterdir())[:9]]
    made = project.json("export", str(folder))
    checked = project.json("verify", str(folder), "--key", "data/certificate-keys.pem")
    assert checked["model_version"] == made["model_version"]
    alone = project.python("-c", ALONE, str(folder), *images)
    assert alone.returncode == 0, alone.stderr
    labels, probabilities, version = json.loads(alone.stdout)
    assert version == made["model_version"]
    predictions = project.json("predict", *images)["predictions"]
    assert labels == [prediction["label"] for prediction in predictions]
    assert probabilities == pytest.approx([prediction["probability"] for prediction in predictions], abs=1e-5)
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert CANARY.encode() not in written


def test_nothing_is_exported_while_a_request_is_open_and_status_tells_of_what_was(project: Sandbox, tmp_path: Path) -> None:
    project.json("export", str(tmp_path / "released"))
    project.json("submit", "--subject", project.people()[0])
    refusal = project.lmeraser("export", str(tmp_path / "again"))
    assert refusal.returncode == 2
    assert "1 requests are open" in refusal.stderr
    assert not (tmp_path / "again").exists()
    project.json("resume")
    assert project.json("status")["outdated_exports"] == 1
    project.json("export", str(tmp_path / "released"))
    assert project.json("verify", str(tmp_path / "released"), "--key", "data/certificate-keys.pem")["certificates"] == 1
