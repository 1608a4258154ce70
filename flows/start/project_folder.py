"""A new project's folder: made whole in a draft beside its place, checked, committed, and then moved there."""

import errno
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flows import git
from flows.dvc.params_file import with_values
from flows.start.presets import Wish, choose, filled
from flows.start.template import Template
from lmeraser.core.errors import BadInputError, ProjectError
from lmeraser.core.files import DRAFT
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.core.progress import say
from lmeraser.erase.erased import ErasedList

# Records times labels up to which the yardstick is fitted, some twenty times an evaluation: 2,000 records of 10 labels take it a
# minute over 3,328 features on two slow cores, and 4,840 of 242 more than ten.
MOST_FITTED = 100_000
NOBODY = ("lmeraser new", "new@localhost")  # who commits where git knows no name
README = """\
# A model that can forget

A project of lmeraser ({revision}). The code is here, because certificates name the commit of what made the model. Run `lmeraser`
anywhere below this folder, or `python -m flows.cli` in it.

    lmeraser doctor                      # what is wrong, and how to mend it
    lmeraser build                       # the model
    lmeraser plan --subject NAME         # what an erasure would touch; changes nothing
    lmeraser forget --subject NAME       # erase somebody, to the signed certificate
    lmeraser verify certificates/*.json  # check the certificates

Settings are in params.yaml, each with a comment. Never commit `.lmeraser/`, and back it up: it holds the keys and the requests.
"""


@dataclass(frozen=True)
class Counts:
    """What the source's table holds. Attributes: subjects: people."""

    records: int
    subjects: int
    labels: int


@dataclass(frozen=True)
class Made:
    """Attributes: preset: its name; data: None for digits."""

    preset: str
    params: Params
    revision: str
    files: int
    data: Counts | None


def make(target: Path, wish: Wish) -> Made:
    """Make a project of a folder that is absent or empty; nothing is left there if anything fails.

    Raises: BadInputError for a folder that holds something, a source or weights that a build would refuse; StepFailedError.
    """
    target = _free(target)
    template = Template.own()
    name = choose(wish, template.files)
    text = filled(name, wish, template.files)
    data = _check_data(text, target)
    if data and data.records * data.labels > MOST_FITTED:
        text = with_values(text, {("evaluate", "linear_head"): False})
    try:
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=target.parent))
    except OSError as error:
        raise BadInputError(f"DIR cannot be made ({error.strerror}); choose a folder where you may write") from error
    try:
        files = _fill(draft, template, text)
        params = load_params(draft / "params.yaml")
        if wish.weights:
            _check_weights(params, draft)
        _commit(draft, template.revision)
        draft.chmod(0o755)
        draft.rename(target)  # also onto an empty folder
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BadInputError("the disk is full; free some space and retry: nothing was left behind") from error
        raise BadInputError(f"DIR cannot be made ({error.strerror}); choose another folder: nothing was left behind") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Made(name, params, template.revision, files, data)


def _free(target: Path) -> Path:
    """The place of the project. Raises: BadInputError."""
    if os.path.lexists(target) and not target.is_dir():
        raise BadInputError("DIR is there and is no folder; name another")
    if target.is_dir() and any(target.iterdir()):
        raise BadInputError("DIR is there and holds something; name a new folder, or an empty one")
    place = target.resolve()
    if not place.parent.is_dir():
        raise BadInputError("the folder above DIR is not there; make it, or name another place")
    try:
        Layout.find(place.parent)
    except ProjectError:
        return place
    raise BadInputError("DIR lies in another project; name a place outside of it")


def _check_data(text: str, target: Path) -> Counts | None:
    """Read a manifest as a build would. Raises: BadInputError."""
    import yaml

    from lmeraser.core.params import Params
    from lmeraser.sources.opening import check_source
    from lmeraser.sources.splitting import check_shares, check_table

    params = Params.model_validate(yaml.safe_load(text))
    if params.source.kind != "manifest":
        return None
    _require_manifest(Path(params.source.path))
    source = check_source(params.source, target)
    table = source.table()
    check_table(table, source.name, source.unit)
    check_shares(table, source.name)
    return Counts(len(table), int(table["subject"].nunique()), int(table["label"].nunique()))


def _require_manifest(data: Path) -> None:
    """Raises: BadInputError where there is none yet, with the command that makes it."""
    from lmeraser.sources.manifest import MANIFESTS

    if not data.exists():
        raise BadInputError("--data is not there; give the folder of your images, with its manifest (`lmeraser manifest`)")
    if data.is_dir() and not any((data / name).is_file() for name in MANIFESTS):
        raise BadInputError("--data holds no manifest.csv or manifest.parquet; `lmeraser manifest FOLDER` makes one")


def _fill(draft: Path, template: Template, params: str) -> int:
    count = 0
    for name, source in template.contents():
        copy = draft / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        count += 1
    (draft / "params.yaml").write_text(params, encoding="utf-8")
    (draft / "README.md").write_text(README.format(revision=template.revision), encoding="utf-8")
    ErasedList(None, frozenset()).write(Layout(draft).erased)
    return count


def _check_weights(params: Params, root: Path) -> None:
    """Raises: ParamsError where the file is not of the preset's network."""
    from lmeraser.learn.weights import take_weights

    say("new: checking the weights against the network")
    take_weights(params, root)


def _commit(draft: Path, revision: str) -> None:
    git.init(draft)
    name, address = (git.run(draft, "config", f"user.{key}").stdout.decode(errors="replace").strip() for key in ("name", "email"))
    who = (name, address) if name and address else NOBODY
    git.commit_all(draft, *who, f"A new project ({revision})")
