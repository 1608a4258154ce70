"""DVC's classes hash a path each time that they meet it: a folder of 50,000 images six times while `split` is recorded, and each
file of code once for each of 500 slots. In a process that has the project to itself, once will do. They also copy a file from the
cache again that has a second name: of a request's copies, which are hard links, every file of a folder of which one changed.

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


def leave_links_of_ours_alone() -> None:
    """From now on in this process: a file that DVC is to keep as a copy is one, whoever links to it beside the cache."""
    from dvc_data.hashfile import checkout

    module: Any = checkout
    needs_relink = module._needs_relink

    def needs(path: str, cache: Any, meta: Any, cache_meta: Any, oid: str | None) -> bool:
        copies = set(cache.cache_types) <= {"reflink", "copy"} and not meta.is_link
        if copies and cache_meta is not None and meta.inode != cache_meta.inode:
            return False
        return bool(needs_relink(path, cache, meta, cache_meta, oid))

    module._needs_relink = needs
