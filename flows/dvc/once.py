"""DVC's classes hash a path each time that they meet it: a folder of 50,000 images six times while `split` is recorded, and each
file of code once for each of 500 slots. In a process that has the project to itself, once will do. They also set the mode of all
objects of a folder again, of which one changed: who knows files by their stamps would have to read all of them.

DVC's classes are internal: whoever uses this goes on only with a version of DVC that the tests compare it with.
"""

from typing import Any

KNOWN = ("3.67.1",)  # of DVC: `tests/pipeline/test_record.py` compares with what it does itself


def hash_each_path_once(staging: bool) -> None:
    """From now on in this process. Args: staging: also where DVC stages what it hashes for its cache, which is not then there."""
    from dvc.output import Output

    build, known = Output._build, {}

    def remembered(self: Any, *arguments: Any, **options: Any) -> Any:
        dry = bool(options.get("dry_run"))
        if not (dry or staging):
            return build(self, *arguments, **options)
        key = dry, self.protocol, str(self.fs_path), self.hash_name
        if key not in known:
            known[key] = build(self, *arguments, **options)
        return known[key]

    Output._build = remembered


def leave_protected_objects_alone() -> None:
    """From now on in this process: the cache's objects that have their mode are not given it again."""
    from dvc_data.hashfile.db.local import LocalHashFileDB

    cache: Any = LocalHashFileDB
    protect = cache.protect

    def once(self: Any, path: str) -> None:
        if not self.is_protected(path):
            protect(self, path)

    cache.protect = once
