"""Checks of a project: params, source, weights, keys, ledger, lists, git, locks. Nothing is made where something is missing."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from flows import git
from flows.doctor.checkup import Look, divided, fine, warn, wrong
from flows.doctor.stores import environment_of_artifacts, remotes, server
from flows.project import Project
from flows.report.seconds import has_ledger
from lmeraser.core.code import PACKAGES
from lmeraser.core.layout import Layout
from lmeraser.core.params import HUB

Results = Sequence[tuple[str, str, str]]


def project_checks(layout: Layout) -> list[tuple[str, Look]]:
    project = Project(layout)
    return [
        ("params", lambda: _params(project)),
        ("code", lambda: _code(layout)),
        ("source", lambda: _source(project)),
        ("model", lambda: environment_of_artifacts(layout)),
        ("subject key", lambda: _subject_key(project)),
        ("signing key", lambda: _signing_key(layout)),
        ("ledger", lambda: _ledger(project)),
        ("erased list", lambda: _erased(project)),
        ("remotes", lambda: remotes(layout)),
        ("server", lambda: server(layout)),
        ("timestamps", lambda: _timestamps(project)),
        ("git", lambda: _git(layout)),
        ("locks", lambda: _locks(layout)),
    ]


def _params(project: Project) -> Results:
    from lmeraser.pipeline.files import check_files

    params = project.params
    check_files(project.layout.root, params.slots)
    weights = params.pretrain.weights
    if weights and weights.file != HUB and not (project.layout.root / weights.file).is_file():
        return [wrong("pretrain.weights.file is not there", "put the file of weights there, or name another in params.yaml")]
    return [fine(f"{len(params.parts)} parts, {len(params.slots)} slots, {params.pretrain.model}, device {params.device}")]


def _code(layout: Layout) -> Results:
    from lmeraser.core.own_code import require_own_code

    require_own_code(layout.root)
    revision, plus, changed = git.revision(layout.root, PACKAGES).partition("+")
    return [fine(f"the project's own, {revision[:12]}{plus}{changed}")]


def _source(project: Project) -> Results:
    from lmeraser.sources import check_source

    check_source(project.params.source, project.layout.root)
    erased = "an erasure deletes from it too" if project.params.source.erase else "an erasure leaves it as it is"
    return [fine(f"{project.params.source.kind}; {erased}")]


def _subject_key(project: Project) -> Results:
    """Raises: ProjectError where a key is missing though people are known by it."""
    used = bool(project.erased.pseudonyms) or (has_ledger(project.layout) and project.ledger.head()[0] > 0)
    if not used and not project.key_file.exists():
        return [fine("none yet; the first request makes it")]
    key = project.subject_key()
    project.erased.check_key(key)
    return [fine(f"{key.id}, mode 0600; back it up")]


def _signing_key(layout: Layout) -> Results:
    """Raises: ProjectError where it cannot sign."""
    from lmeraser.prove.keys import load_signer, signing_key_path

    private = signing_key_path(layout.private_state)
    if not private.exists() and not layout.public_keys.exists():
        return [fine("none yet; the first certificate makes it, or `lmeraser keys init`")]
    signer = load_signer(private, layout.public_keys)
    return [fine(f"{signer.public_key.keyid[:16]} signs, mode 0600; back it up")]


def _ledger(project: Project) -> Results:
    """Raises: ProjectError if it cannot be opened, VerificationError if its chain is broken."""
    from datetime import UTC, datetime

    if not has_ledger(project.layout):
        return [fine("none yet; the first request makes it")]
    events = project.ledger.verify_chain()
    requests = project.ledger.all(open_only=True)
    late = sum(request.late(datetime.now(UTC)) for request in requests)
    failed = sum(request.state == "failed" for request in requests)
    text = f"{events} events, chain whole; {len(requests)} open requests, {late} late, {failed} failed"
    if late or failed:
        return [warn(text, "`lmeraser status` names them, `lmeraser resume` goes on")]
    return [warn(text, "`lmeraser resume` goes on where no server does") if requests else fine(text)]


def _timestamps(project: Project) -> Results:
    """Whether the roots can be read, and what waits. The authority is not asked. Raises: BadInputError."""
    from flows.door.timestamps import outlook
    from lmeraser.prove.timestamp import load_roots

    service = project.params.service
    if service.timestamp_url is None:
        return [fine("none; certificates are dated by this machine's clock")]
    if service.timestamp_roots:
        load_roots(project.layout.root / service.timestamp_roots, "service.timestamp_roots")
    found = outlook(project)
    if found:
        return [warn(*divided(line)) for line in found.lines]
    judged = "judged when they come" if service.timestamp_roots else "judged by `lmeraser verify --tsa-root` alone"
    return [fine(f"every certificate has one; {judged}")]


def _erased(project: Project) -> Results:
    from flows.requests.ground import missing_from_branch

    count = len(project.erased.pseudonyms)
    missing = missing_from_branch(project) if has_ledger(project.layout) else 0
    if missing:
        return [
            wrong(f"data/erased.json of this branch lacks {missing} erased people", "`lmeraser build` puts them back; commit it")
        ]
    return [fine(f"{count} people are kept out")]


def _git(layout: Layout) -> Results:
    answer = git.run(layout.root, "rev-parse", "--is-shallow-repository", "--git-path", "hooks")
    if answer.returncode:
        return [wrong("the project is in no git repository", "run `git init && git add -A && git commit`")]
    shallow, hooks = answer.stdout.decode(errors="replace").split("\n")[:2]
    results = []
    if shallow == "true":
        text = "the clone is shallow, and a purge reads all of history"
        results.append(wrong(text, f"run `{git.UNSHALLOW}`"))
    active = _hooks(layout.root / hooks)
    if active:
        results.append(
            warn(f"{active} hooks are active", "a hook that runs DVC waits for its lock; see that none changes artifacts")
        )
    changed = [line for line in git.run(layout.root, "status", "--porcelain").stdout.splitlines() if line]
    if git.run(layout.root, "rev-parse", "--verify", "HEAD").returncode:
        results.append(warn("nothing was committed", "`git add -A && git commit`: certificates name the commit"))
    elif changed:
        results.append(warn(f"{len(changed)} files differ from the commit", "`git status` shows them; commit what shall stay"))
    return results or [fine("everything is committed, history is whole")]


def _hooks(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(not path.name.endswith(".sample") and os.access(path, os.X_OK) for path in folder.iterdir() if path.is_file())


def _locks(layout: Layout) -> Results:
    """Who holds the project, and what a killed process left behind."""
    results = []
    for path, who in ((layout.workspace_lock, "a process changes this project"), (layout.stage_lock, "a stage runs")):
        if _is_held(path):
            results.append(warn(f"{who} now", "wait for it; if it hangs, `fuser -v` on its lock names the process"))
    index = layout.root / ".git" / "index.lock"
    if index.exists():
        results.append(wrong(".git/index.lock is there", "if no git command runs, delete it"))
    if layout.quarantine.exists() and not (has_ledger(layout) and Project(layout).ledger.all(open_only=True)):
        results.append(warn("a quarantine is in force though no request is open", "`lmeraser resume` lifts it"))
    return results or [fine("none held")]


def _is_held(path: Path) -> bool:
    try:
        with path.open("rb") as handle:  # not for writing: that would empty it
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
