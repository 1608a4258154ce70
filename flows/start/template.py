"""What a project is made of: the code at its revision, the pipeline, params, and the lists that it starts with.

The code that runs here is what a new project gets, from a clone or from an installed package. A package holds the files beside
the code below `share/lmeraser` (data-files in pyproject.toml; a test compares the lists).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from flows import git
from lmeraser.core.code import PACKAGES
from lmeraser.core.errors import ProjectError

NAME = "lmeraser"
CODE = Path(__file__).resolve().parents[2]  # where the packages lie whose code runs
SHARE = f"share/{NAME}/dvc.yaml"  # the end of a path in the package's own list of files
FILES = (
    *(".gitignore", ".dvc/.gitignore", ".dvc/config", "dvc.yaml", "params.yaml", "prefect.yaml"),
    *("Makefile", "pyproject.toml", "constraints.txt", "LICENSE", "data/README.md", "data/digits.csv"),
)


@dataclass(frozen=True)
class Template:
    """Attributes: code: the folder that holds the packages; files: the one that holds FILES and params/; revision: for people."""

    code: Path
    files: Path
    revision: str

    @classmethod
    def own(cls) -> "Template":
        """Of the code that runs. Raises: ProjectError if the package was installed without the files beside the code."""
        code = CODE
        if (code / "dvc.yaml").is_file():
            return cls(code, code, git.revision(code, PACKAGES))
        try:
            listed = distribution(NAME).files or []
        except PackageNotFoundError:
            listed = []
        place = next((Path(str(file.locate())).resolve() for file in listed if file.as_posix().endswith(SHARE)), None)
        if place is None or not place.is_file():
            raise ProjectError(
                "this installation holds the code alone, not the files of a project; install the wheel, or run this in a clone"
            )
        return cls(code, place.parent, f"{NAME} {version(NAME)}")

    def contents(self) -> Iterator[tuple[str, Path]]:
        """Where each file comes to lie in a project, and where it is now. Raises: ProjectError if one is missing."""
        for name in FILES:
            if not (self.files / name).is_file():
                raise ProjectError(f"{name} is missing beside the code; install lmeraser again, or restore it from git")
            yield name, self.files / name
        for path in sorted((self.files / "params").glob("*.yaml")):
            yield f"params/{path.name}", path
        for package in PACKAGES:
            for path in sorted(
                path for path in (self.code / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts
            ):
                yield path.relative_to(self.code).as_posix(), path
