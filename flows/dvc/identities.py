"""What files and folders are by inode, size and time of modification: each looked at once, and nothing read.

DVC's own memory of digests believes the same three. Whatever it would look at otherwise than by them (links, devices) is refused.
"""

import hashlib
import os
import stat

APART = (".git", ".hg", ".dvc")  # DVC never looks for stages in them
NESTED, ENVIRONMENT = ".dvc", "pyvenv.cfg"  # in another project's folder, in a virtual environment
IGNORE_FILE = ".dvcignore"


class UndecidedError(Exception):
    """It cannot be told from here what DVC would say. It names nothing: nobody is told of it."""


def _identity(facts: os.stat_result) -> str:
    if not stat.S_ISREG(facts.st_mode):
        raise UndecidedError
    return f"{facts.st_dev} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns}"


class Identities:
    """The files of a project as they are at this moment.

    Args: root: the project's folder; private: a folder in it where nobody keeps stages nor what they read.
    Raises (each method, too): OSError, UndecidedError.
    """

    def __init__(self, root: str, private: str) -> None:
        self.root = root
        self.ignore_files: list[str] = []  # of DVC, with their whole paths
        self.stage_files: list[str] = []
        self._private = private
        self._listed: dict[str, dict[str, os.DirEntry[str]]] = {}  # by folder
        self._known: dict[str, str | None] = {}
        self._walk(root)

    def _walk(self, folder: str) -> None:
        with os.scandir(folder) as entries:
            names = {entry.name: entry for entry in entries}
        if folder != self.root and (ENVIRONMENT in names or (NESTED in names and names[NESTED].is_dir())):
            return
        self._listed[folder] = names
        for name, entry in names.items():
            if entry.is_dir(follow_symlinks=False):
                if name not in APART and entry.path != self._private:
                    self._walk(entry.path)
            elif name == IGNORE_FILE:
                self.ignore_files.append(entry.path)
            elif name == "dvc.yaml" or name.endswith(".dvc"):
                self.stage_files.append(entry.path)

    def of(self, path: str) -> str | None:
        """A file's identity; a folder's, as a digest of the names and identities in it; None where nothing is.

        Args: path: whole and normal; anywhere.
        """
        if path not in self._known:
            self._known[path] = self._within(path) if path.startswith(f"{self.root}/") else self._outside(path)
        return self._known[path]

    def _within(self, path: str) -> str | None:
        """Of a path in the project. A link on the way to it may be another folder tomorrow."""
        folder, _, name = path.rpartition("/")
        if folder not in self._listed:
            above = folder[len(self.root) + 1 :].split("/")
            place = self.root
            for part in above:
                if place not in self._listed:
                    raise UndecidedError  # in a folder where DVC looks for no stages
                entry = self._listed[place].get(part)
                if entry is None:
                    return None
                if not entry.is_dir(follow_symlinks=False):
                    raise UndecidedError
                place = entry.path
            raise UndecidedError
        entry = self._listed[folder].get(name)
        return None if entry is None else self._of_entry(entry, inside=True)

    def _outside(self, path: str) -> str | None:
        try:
            facts = os.lstat(path)
        except FileNotFoundError:
            return None
        return self._of_folder(path, inside=False) if stat.S_ISDIR(facts.st_mode) else _identity(facts)

    def _of_entry(self, entry: os.DirEntry[str], inside: bool) -> str:
        if entry.is_dir(follow_symlinks=False):
            return self._of_folder(entry.path, inside)
        return _identity(entry.stat(follow_symlinks=False))

    def _of_folder(self, folder: str, inside: bool) -> str:
        known = self._known.get(folder)
        if known is not None:
            return known
        if folder not in self._listed:
            if inside:
                raise UndecidedError
            with os.scandir(folder) as entries:
                self._listed[folder] = {entry.name: entry for entry in entries}
        lines = [f"{name}\0{self._of_entry(entry, inside)}\0" for name, entry in sorted(self._listed[folder].items())]
        digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
        self._known[folder] = digest
        return digest
