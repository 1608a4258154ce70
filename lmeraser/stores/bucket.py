"""A store in an S3 bucket, through s3fs. Old versions, delete markers and unfinished uploads are copies too: they go as well."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, BinaryIO, TypeVar

from lmeraser.core.errors import StepFailedError
from lmeraser.stores.base import Entry, undeletable, unreachable

T = TypeVar("T")
PAGE = 1000  # keys that S3 deletes in one call
UNSUPPORTED = "NotImplemented"  # what services that only resemble S3 answer to calls that they lack


def client_options(settings: Mapping[str, str]) -> dict[str, Any]:
    """DVC's settings of an s3:// remote as s3fs wants them; what is not given comes from the environment, as for DVC."""
    truth = {"true": True, "false": False}
    client = {"endpoint_url": settings.get("endpointurl"), "region_name": settings.get("region")}
    if "ssl_verify" in settings:
        client["verify"] = truth.get(settings["ssl_verify"].lower(), settings["ssl_verify"])  # type: ignore[assignment]
    options = {
        "key": settings.get("access_key_id"),
        "secret": settings.get("secret_access_key"),
        "token": settings.get("session_token"),
        "profile": settings.get("profile"),
        "client_kwargs": {name: value for name, value in client.items() if value is not None},
        # s, s, tries: a remote that is down is said to be down within half a minute
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}},
        "use_ssl": truth.get(settings.get("use_ssl", "true").lower(), True),
        "anon": settings.get("allow_anonymous_login", "false").lower() == "true",
    }
    return {name: value for name, value in options.items() if value is not None}


def _stamp(entry: Mapping[str, Any]) -> str:
    """What tells a copy from others under its key. An ETag changes with the content; a delete marker has none, and no content."""
    tag = entry.get("ETag", "none" if "Size" not in entry else "")
    return f"{tag} {entry.get('VersionId', '')} {entry['LastModified'].isoformat()}" if tag and "LastModified" in entry else ""


class BucketStore:
    """Args: url: s3://bucket/prefix; settings: as in DVC's config."""

    def __init__(self, name: str, url: str, settings: Mapping[str, str]) -> None:
        self.name = name
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._settings = dict(settings)

    @cached_property
    def _s3(self) -> Any:
        import s3fs  # type: ignore[import-untyped]

        return s3fs.S3FileSystem(
            **client_options(self._settings), use_listings_cache=False, skip_instance_cache=True, version_aware=False
        )

    def _ask(self, act: Callable[[], T]) -> T:
        """Do something there; whatever goes wrong on the way is one line that names the store, and no key."""
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

        try:
            return act()
        except (StepFailedError, NotImplementedError):
            raise
        except ClientError as error:
            raise unreachable(self.name, str(error.response.get("Error", {}).get("Code", "refused"))) from error
        except PermissionError as error:
            raise unreachable(self.name, "access denied; check its credentials and rights, also to list versions") from error
        except FileNotFoundError as error:
            raise unreachable(self.name, "no such bucket") from error
        except (OSError, BotoCoreError, TimeoutError, ValueError) as error:
            raise unreachable(self.name, type(error).__name__) from error

    def _pages(self, method: str, markers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """All pages of a listing. Args: markers: name of the next call's argument to the field that tells it."""
        more: dict[str, str] = {}
        while True:
            page = self._ask(lambda: self._s3.call_s3(method, Bucket=self.bucket, Prefix=self.prefix, **more))  # noqa: B023
            yield page
            if not page.get("IsTruncated"):
                return
            more = {argument: page[field] for argument, field in markers.items() if page.get(field)}

    @cached_property
    def _has_versions(self) -> bool:
        """Whether this service can list versions; every real S3 can."""
        try:
            self._ask(lambda: self._s3.call_s3("list_object_versions", Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1))
        except (NotImplementedError, StepFailedError) as error:
            if isinstance(error, NotImplementedError) or UNSUPPORTED in str(error):
                return False
            raise
        return True

    @property
    def place(self) -> str:
        return f"s3://{self.bucket}/{self.prefix} {self._settings.get('endpointurl', '')}"

    def _copies(self) -> Iterator[tuple[str, str | None, int, str]]:
        """Every copy: key below the prefix, version (None where there are none), size in bytes, and what tells it from others."""
        if self._has_versions:
            for page in self._pages(
                "list_object_versions", {"KeyMarker": "NextKeyMarker", "VersionIdMarker": "NextVersionIdMarker"}
            ):
                for entry in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    yield entry["Key"].removeprefix(self.prefix), entry["VersionId"], entry.get("Size", 0), _stamp(entry)
        else:
            for page in self._pages("list_objects_v2", {"ContinuationToken": "NextContinuationToken"}):
                for entry in page.get("Contents", ()):
                    yield entry["Key"].removeprefix(self.prefix), None, entry["Size"], _stamp(entry)

    def entries(self) -> Iterator[Entry]:
        """Each key once, with the size of all its versions together."""
        sizes: dict[str, int] = defaultdict(int)
        stamps: dict[str, list[str]] = defaultdict(list)
        for key, _, size, stamp in self._copies():
            sizes[key] += size
            stamps[key].append(stamp)
        for key, size in sorted(sizes.items()):
            yield Entry(key, size, stamp="; ".join(sorted(stamps[key])) if all(stamps[key]) else "")

    def list(self) -> Iterator[tuple[str, int]]:
        for entry in self.entries():
            yield entry.key, entry.size

    def _path(self, key: str) -> str:
        return f"{self.bucket}/{self.prefix}{key}"

    def open(self, key: str) -> BinaryIO:
        try:
            stream: BinaryIO = self._s3.open(self._path(key), "rb")
        except FileNotFoundError:
            raise
        except Exception as error:  # one line, whatever the network did
            raise unreachable(self.name, type(error).__name__) from error
        return stream

    def read(self, keys: Iterable[str]) -> dict[str, bytes]:
        wanted = list(keys)
        if not wanted:
            return {}
        paths = [self._path(key) for key in wanted]
        # Not `cat`, which takes a key with `[`, `*` or `?` for a pattern.
        answers = self._ask(lambda: self._s3.cat_ranges(paths, None, None, on_error="return"))
        contents = {}
        for key, content in zip(wanted, answers, strict=True):
            if isinstance(content, FileNotFoundError):
                continue
            if isinstance(content, Exception):
                raise unreachable(self.name, type(content).__name__) from content
            contents[key] = content
        return contents

    def write(self, key: str, content: bytes) -> None:
        self._ask(lambda: self._s3.pipe_file(self._path(key), content))

    def delete(self, keys: Iterable[str]) -> int:
        wanted = set(keys)
        if not wanted:
            return 0
        self._abort_uploads(wanted)
        copies = [(key, version) for key, version, *_ in self._copies() if key in wanted]
        failed, reason = 0, ""
        for start in range(0, len(copies), PAGE):
            names = [
                {"Key": self.prefix + key} | ({"VersionId": version} if version else {})
                for key, version in copies[start : start + PAGE]
            ]
            answer = self._ask(
                lambda: self._s3.call_s3("delete_objects", Bucket=self.bucket, Delete={"Objects": names, "Quiet": True})  # noqa: B023
            )
            for error in answer.get("Errors", ()):
                failed, reason = failed + 1, str(error.get("Code", "no reason given"))
        if failed:
            raise undeletable(self.name, failed, reason)
        return len({key for key, _ in copies})

    def _abort_uploads(self, keys: set[str]) -> None:
        """Unfinished uploads hold content that no listing of objects shows."""
        try:
            markers = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
            pages = list(self._pages("list_multipart_uploads", markers))
        except (NotImplementedError, StepFailedError) as error:
            if isinstance(error, NotImplementedError) or UNSUPPORTED in str(error):
                return
            raise
        for upload in (upload for page in pages for upload in page.get("Uploads", ())):
            if upload["Key"].removeprefix(self.prefix) in keys:
                names = {"Bucket": self.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                self._ask(lambda: self._s3.call_s3("abort_multipart_upload", **names))  # noqa: B023
