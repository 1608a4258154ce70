"""Where a page that shows or names people may lie: outside the project, git and the source, for its owner alone."""

from pathlib import Path

from flows.project import Project
from lmeraser.core.errors import BadInputError
from lmeraser.core.files import write_atomically

NOT_HERE = "a page of people's pictures or names must lie where neither git, nor a source, nor DVC sees it: name a file elsewhere"


def check_page(project: Project, page: Path, option: str) -> None:
    """Raise BadInputError unless a page may be written there: a new file, outside project, git and source. Never names it."""
    try:
        whole = page.resolve()
        if whole.exists() or page.is_symlink():
            raise BadInputError(f"{option}: the file exists; name a new one")
        if not whole.parent.is_dir():
            raise BadInputError(f"{option}: there is no such folder; make it first, or name a file in another one")
        root = project.layout.root.resolve()
        source = (root / project.params.source.path).resolve()
        inside = any((folder / ".git").exists() for folder in whole.parents)
    except (OSError, ValueError) as error:
        raise BadInputError(f"{option}: the file cannot be made ({type(error).__name__}); name another one") from error
    if inside or whole.is_relative_to(root):
        raise BadInputError(f"{option}: the file is within the project or another git repository; {NOT_HERE}")
    if project.params.source.kind == "manifest" and whole.is_relative_to(source if source.is_dir() else source.parent):
        raise BadInputError(f"{option}: the file is within the source's folder; {NOT_HERE}")


def keep_page(project: Project, page: Path, data: bytes, option: str) -> None:
    """Write a page for its owner alone. Raises: BadInputError; then there is none."""
    check_page(project, page, option)  # it may have come meanwhile
    try:
        write_atomically(page, data, mode=0o600)
    except OSError as error:
        raise BadInputError(f"{option}: the file cannot be written ({type(error).__name__}); name another one") from error
