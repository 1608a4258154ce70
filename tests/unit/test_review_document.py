"""The CI jobs of docs/review.md are YAML and call the command as it is; the tolerances that it lists are those of the params."""

import re
from typing import Any

import pytest
import yaml
from builders import ROOT, make_params

from flows.cli.command_line import make_parser
from lmeraser.core.strict_yaml import strict_yaml
from lmeraser.pipeline import recipe
from unit.test_imports import HEAVY, SLOW, heavy_after

TEXT = (ROOT / "docs" / "review.md").read_text(encoding="utf-8")
JOBS = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"python -m flows\.cli (review .*)")


def lines_of(job: Any) -> list[str]:
    """Every text in a job."""
    if isinstance(job, dict):
        return [line for value in job.values() for line in lines_of(value)]
    if isinstance(job, list):
        return [line for value in job for line in lines_of(value)]
    return [str(job)]


@pytest.mark.parametrize("text", JOBS, ids=("github", "gitlab"))
def test_job_is_yaml_of_one_meaning_with_the_whole_history(text: str) -> None:
    job = strict_yaml(text, once=True)
    assert yaml.safe_load(text) is not None
    assert re.search(r"fetch-depth: 0|GIT_DEPTH: \"0\"", text)
    for number, line in enumerate(text.splitlines(), start=1):
        assert line == line.rstrip(), number
        assert "\t" not in line
        assert (len(line) - len(line.lstrip())) % 2 == 0, number
        assert len(line) <= 110
    (command,) = [match[1] for line in lines_of(job) if (match := COMMAND.match(line))]
    make_parser().parse_args(re.sub(r'"[^ ].*" HEAD', "OLD HEAD", command).split())


def test_github_job_has_what_github_asks_for() -> None:
    job = yaml.load(JOBS[0], yaml.BaseLoader)  # noqa: S506  (BaseLoader makes texts alone; YAML 1.1 takes `on` for true)
    assert job["on"] == "pull_request"
    assert job["permissions"] == {"contents": "read"}
    assert all({"run", "uses"} & step.keys() for step in job["jobs"]["review"]["steps"])


def test_every_tolerance_has_its_row() -> None:
    rows = re.findall(r"^\| `review\.([a-z_]+)` \|", TEXT, re.MULTILINE)
    assert rows == list(type(make_params().review).model_fields)


def test_no_stage_reads_the_tolerances_so_none_becomes_stale_by_them() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    read = [name for stage in stages.values() for name in stage.get("do", stage).get("params", ())]
    assert len(read) > 40
    assert [name for name in read if name.split(".")[0] in ("review", "service")] == []
    assert "review" not in recipe.PARAMS


def test_review_needs_no_more_than_the_job_installs() -> None:
    code = """
from pathlib import Path
import flows.cli.review
from flows.report.revisions import History, state_of
from flows.report.seconds import seconds_of
from lmeraser.core.layout import Layout
from lmeraser.core.params import read_params
from lmeraser.report.review import compare
from lmeraser.report.review_text import markdown
seconds_of(Layout(Path("/nowhere")), ["x"])
"""
    others = {"pydantic"}
    assert heavy_after(code, heavy=(*HEAVY, *set(SLOW) - others, "pandas", "tqdm", "jinja2", "cryptography")) == []
