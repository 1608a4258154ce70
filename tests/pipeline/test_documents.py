"""README's commands, run in order as they stand there, in a small project of the same people: each does what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import preloading
import pytest
from builders import png
from commands import blocks, section
from sandbox import REPOSITORY, SMALL, Sandbox
from service import served

from flows.audit.rebuild import copy_code

pytestmark = pytest.mark.slow

README = REPOSITORY / "README.md"
NOT_RUN = {
    "git clone REPOSITORY lmeraser && cd lmeraser": "the copy stands for it",
    "make demo": "tests/pipeline/test_build.py and others run its parts; it takes minutes",
    ". .venv/bin/activate": "the tests run in their own environment",
    "dvc repro": "`lmeraser build` gives the same bytes sooner; it runs instead, and then this one has nothing to do",
    "lmeraser audit --membership": "a drill of minutes about a model of full size; tests/unit/test_membership.py has its parts",
    "lmeraser review": "it ends with 1 where a smaller network became too much worse; tests/pipeline/test_report.py runs it",
    "lmeraser manifest photos --subject-from '(person[0-9]+)_' --public 40": "the tutorial's, run by test_tutorial.py",
    "lmeraser new model --data photos": "the tutorial's, run by test_tutorial.py",
    "lmeraser doctor": "the tutorial's, run by test_tutorial.py",
    "lmeraser serve": "it never ends: tests/pipeline/test_model_server.py runs it",
    "lmeraser door": "it never ends: tests/pipeline/test_door.py runs it",
    "make serve": "it never ends: `python -m flows.service.supervisor`, which is all of it, runs beside what follows",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """The repository as it is cloned, with a smaller network and fewer epochs; its people are README's."""
    sandbox = Sandbox(tmp_path_factory.mktemp("documents") / "lmeraser")
    sandbox.root.mkdir()
    copy_code(REPOSITORY, sandbox.root)
    sandbox.set_params(**SMALL)
    (sandbox.root / "photo.png").write_bytes(png(seed=1))
    shell(sandbox, "git add --all && git commit --quiet --message lmeraser")
    shell(sandbox, "lmeraser build")
    return sandbox


def shell(project: Sandbox, line: str) -> str:
    """What a line of a document prints, typed in the project's folder. It must end with 0."""
    who = {f"GIT_{role}_{what}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    own = {"PATH": path, "PYTHONPATH": str(project.root), "DVC_NO_ANALYTICS": "1", "PAGER": "cat"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=project.root,
        env=preloading.variables(os.environ | who | own),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, (line, done.returncode, done.stderr)
    return done.stdout


def run_all(project: Sandbox, lines: list[str]) -> dict[str, str]:
    """What each line printed; a line that only sets a variable is typed before those that follow."""
    output_of, before = {}, ""
    for line in lines:
        if line in NOT_RUN:
            continue
        output_of[line] = shell(project, before + line)
        if line.replace("=", "").isalnum() and "=" in line:
            before += f"{line}; "
    return output_of


def test_every_command_of_readme_is_run_here_or_says_why_not() -> None:
    run = [line for title in ("Use it", "Run it as a service", "Requests by HTTP") for line in section(README, title)]
    left = [line for block in blocks(README) for line in block.lines if line not in run and line not in NOT_RUN]
    # What demo printed is a block as well; it is no command.
    assert all(line.split()[0] not in ("lmeraser", "dvc", "git", "make", "python", ".") for line in left), left


@pytest.mark.timeout(1800)
def test_commands_that_readme_uses_do_what_it_says(project: Sandbox) -> None:
    lines = section(README, "Use it")
    assert lines[1] == "dvc repro"
    assert "up to date" in shell(project, "dvc repro")
    output_of = run_all(project, lines)
    printed = "\n".join(output_of.values())
    for outcome in (
        "equal: a build from the retained records gives the same bytes",
        "clean: nothing of the erased people was found",
    ):
        assert outcome in printed
    assert "photo.png: " in output_of["lmeraser predict photo.png"]


@pytest.mark.campaign("a minute; a service and what is submitted to it: test_service.py")
def test_person_of_the_services_example_is_accepted(project: Sandbox) -> None:
    def requests() -> dict[str, str]:
        status = json.loads(shell(project, "lmeraser status --json"))
        return {request["request_id"]: request["state"] for request in status["requests"]}

    before = requests()
    with served(project, "--warm", "0", "--workers", "0"):
        run_all(project, section(README, "Run it as a service"))
        states = [state for request, state in requests().items() if request not in before]
    assert len(states) == 1
    assert states[0] not in ("blocked", "rejected", "failed")


def test_token_and_hook_of_the_doors_example_are_made(project: Sandbox) -> None:
    printed = run_all(project, section(README, "Requests by HTTP"))
    assert [line.split()[1] for line in printed] == ["token", "hook"]
    assert any(line.startswith("lmeraser_") for text in printed.values() for line in text.splitlines())
