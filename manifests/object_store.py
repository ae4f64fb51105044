"""Files of a workspace in an object store: Amazon S3, or a service with the same interface.

A store has no renames, links or locks, but every write of an object is atomic: readers see the old
content or the new one. A conditional write succeeds only if the object is missing (If-None-Match)
or unchanged (If-Match); the lock of the workspace is built on these.

Credentials and the address of the service come from the environment and the files of the AWS tools
(AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL ...). They are never stored or printed.
"""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from manifests.support.errors import AuthfaceError, MissingResourceError, UserError
from manifests.support.extras import describe_missing
from manifests.support.text import excerpt

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

URL = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*://")
S3_URL = re.compile(r"s3://(?P<bucket>[A-Za-z0-9._-]+)(?P<key>(?:/[^/]+)*)/*")

CONNECT_TIMEOUT_S = 10
SMALL_FILE_BYTES = 1 << 22
"""Smaller files are read with one request."""
READ_BLOCK_BYTES = 1 << 20
FAILED_CONDITIONS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
"""Error codes of a conditional write whose condition does not hold."""
EMPTY_FILE_CODES = ("InvalidRange", "416")
"""Error codes of reading the first bytes of an empty object."""
CLIENT_PACKAGES = ("aiobotocore", "aiohttp", "botocore")
"""Packages below s3fs whose errors are about the connection or the service."""
CREDENTIALS_ADVICE = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with the AWS tools"
)


def is_url(root: str) -> bool:
    """Whether the root of a workspace is a URL instead of a path."""
    return URL.match(root) is not None


class ObjectStore:
    """The objects below one URL. Paths are relative to it.

    An instance may be pickled, and used in forked processes.

    Args:
        url: Such as "s3://bucket/name".

    Attributes:
        root: The URL without a slash at its end.

    Raises:
        UserError: If the URL is not supported.
        MissingResourceError: If the package `s3fs` is missing.
    """

    def __init__(self, url: str) -> None:
        match = S3_URL.fullmatch(url)
        if match is None:
            # The URL is not repeated in the message: it may contain a password.
            raise UserError(
                "a workspace is a folder or s3://BUCKET/NAME; other URLs are not supported, and "
                "credentials come from the environment"
            )
        self.bucket = match["bucket"]
        self.root = f"s3://{self.bucket}{match['key']}"
        self._prefix = match["key"].lstrip("/")
        # Any: s3fs has no types.
        self._fs: Any = None
        self._pid = 0
        self._connection()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_fs": None}

    def _connection(self) -> Any:
        """The file system of s3fs; its connections must not be shared with a forked process."""
        if self._fs is None or self._pid != os.getpid():
            try:
                import s3fs
            except ImportError as error:
                raise MissingResourceError(describe_missing(["s3"], "a workspace on S3")) from error
            # Listings are never cached: other processes write too.
            self._fs = s3fs.S3FileSystem(
                use_listings_cache=False,
                skip_instance_cache=True,
                config_kwargs={"connect_timeout": CONNECT_TIMEOUT_S},
            )
            self._pid = os.getpid()
        return self._fs

    def _full_path(self, path: str) -> str:
        return f"{self.bucket}/{self._key(path)}".rstrip("/")

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}".strip("/")

    # Reading

    def check_bucket(self) -> None:
        """Check that the bucket exists and can be read.

        Raises:
            UserError: If it does not exist or refuses access.
        """
        self.list_names("")

    def exists(self, path: str) -> bool:
        """Whether an object exists, or any object in a folder."""
        with self._explain_errors():
            return self._connection().exists(self._full_path(path))

    def read_bytes(self, path: str, limit: int | None = None) -> bytes:
        """Read an object, or its first `limit` bytes."""
        start = None if limit is None else 0
        with self._explain_errors():
            try:
                return self._connection().cat_file(self._full_path(path), start=start, end=limit)
            except OSError as error:
                if _error_code(error) in EMPTY_FILE_CODES:
                    return b""
                raise

    def open(self, path: str) -> BinaryIO:
        """Open an object for reading. A large one is read in blocks."""
        content = self.read_bytes(path, SMALL_FILE_BYTES)
        if len(content) < SMALL_FILE_BYTES:
            return io.BytesIO(content)
        return io.BufferedReader(_ObjectFile(self, path, self.size(path)), READ_BLOCK_BYTES)

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Read a part of an object.

        Args:
            path: The object to read.
            start: First byte.
            end: The byte after the last one.

        Returns:
            The bytes; fewer if the object ends before.
        """
        with self._explain_errors():
            return self._connection().cat_file(self._full_path(path), start=start, end=end)

    def list_names(self, folder: str) -> list[str]:
        """List the names in a folder, sorted; a missing folder gives an empty list."""
        full_path = self._full_path(folder)
        try:
            with self._explain_errors():
                paths = self._connection().ls(full_path, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        # Some tools make an empty object with the name of the folder.
        return sorted(path.rsplit("/", 1)[-1] for path in paths if path.rstrip("/") != full_path)

    def list_paths(self) -> list[str]:
        """The paths of all objects, sorted."""
        start = len(self._full_path("")) + 1
        with self._explain_errors():
            paths = self._connection().find(self._full_path(""))
        return sorted(path[start:] for path in paths)

    def size(self, path: str) -> int:
        """The size of an object in bytes."""
        with self._explain_errors():
            return self._connection().info(self._full_path(path))["size"]

    # Writing

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a whole object.

        Args:
            path: The object to write.
            data: Its content.
        """
        with self._explain_errors():
            self._connection().pipe_file(self._full_path(path), data)

    def create_exclusive(self, path: str, data: bytes) -> bool:
        """Write an object unless it exists.

        Args:
            path: The object to write.
            data: Its content; content that no other process writes.

        Returns:
            Whether it was written.
        """
        return self._write_if(path, data, {"IfNoneMatch": "*"})

    def replace_if_same(self, path: str, old: bytes, new: bytes) -> bool:
        """Replace the content of an object if it is `old`.

        Args:
            path: The object to replace.
            old: The expected content.
            new: The new content; content that no other process writes.

        Returns:
            Whether the object was replaced.
        """
        etag = self._etag_if_same(path, old)
        return etag is not None and self._write_if(path, new, {"IfMatch": etag})

    def remove(self, path: str) -> None:
        """Remove an object; a missing one is ignored."""
        with self._explain_errors():
            self._connection().rm_file(self._full_path(path))

    def remove_if_same(self, path: str, data: bytes) -> None:
        """Remove an object if its content is `data`."""
        etag = self._etag_if_same(path, data)
        if etag is None:
            return
        with self._explain_errors():
            try:
                self._connection().call_s3(
                    "delete_object", Bucket=self.bucket, Key=self._key(path), IfMatch=etag
                )
            except OSError as error:
                if not _is_failed_condition(error):
                    raise

    def copy(self, old: str, new: str) -> None:
        """Copy an object.

        Args:
            old: The object to copy.
            new: The copy; an existing object is replaced.
        """
        with self._explain_errors():
            self._connection().cp_file(self._full_path(old), self._full_path(new))

    def check_conditional_writes(self) -> None:
        """Check that the service supports the conditional writes that the lock needs.

        Raises:
            UserError: If it ignores the conditions or refuses such writes.
        """
        path = f".probe-{uuid.uuid4().hex}"
        try:
            is_supported = (
                self.create_exclusive(path, b"1")
                and not self.create_exclusive(path, b"2")
                and not self._write_if(path, b"3", {"IfMatch": '"0"'})
            )
        finally:
            self.remove(path)
        if not is_supported:
            raise UserError(
                f"the service of {self.root} ignores conditional writes (If-None-Match, If-Match), "
                "so that two commands could write at once; use a service that supports them, such "
                "as Amazon S3 or MinIO"
            )

    def _write_if(self, path: str, data: bytes, condition: dict[str, str]) -> bool:
        with self._explain_errors():
            try:
                self._connection().pipe_file(self._full_path(path), data, **condition)
                return True
            except FileNotFoundError as error:
                if _error_code(error) == "NoSuchBucket":
                    raise
                return False
            except OSError as error:
                if not _is_failed_condition(error):
                    raise
        # An answer may be lost after the object was written, and the repeated request fails.
        return self._etag_if_same(path, data) is not None

    def _etag_if_same(self, path: str, data: bytes) -> str | None:
        """The version of an object if its content is `data`, else None."""
        try:
            with self._explain_errors():
                # First the version: if the object changes in between, the version is outdated.
                etag = self._connection().info(self._full_path(path))["ETag"]
            return etag if self.read_bytes(path, limit=len(data) + 1) == data else None
        except (FileNotFoundError, KeyError):
            return None

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Turn errors of the connection into one line; FileNotFoundError of an object stays.

        Raises:
            MissingResourceError: If credentials are missing or the service cannot be reached.
            UserError: If the bucket does not exist or access is denied.
        """
        try:
            yield
        except AuthfaceError:
            raise
        except FileNotFoundError as error:
            if _error_code(error) == "NoSuchBucket":
                raise UserError(
                    f"{self.root}: the bucket {self.bucket} does not exist; create it, or check "
                    "its name and AWS_ENDPOINT_URL"
                ) from error
            raise
        except PermissionError as error:
            raise UserError(
                f"{self.root}: access denied ({_describe(error)}); check the credentials and their "
                "rights to the bucket"
            ) from error
        except Exception as error:
            if _lacks_credentials(error):
                raise MissingResourceError(
                    f"{self.root}: no credentials ({_describe(error)}); {CREDENTIALS_ADVICE}"
                ) from error
            is_of_client = type(error).__module__.partition(".")[0] in CLIENT_PACKAGES
            if is_of_client or isinstance(error, OSError | ValueError):
                raise MissingResourceError(
                    f"{self.root} cannot be accessed ({_describe(error)}); check the connection "
                    "and AWS_ENDPOINT_URL, and run the command again"
                ) from error
            raise


class _ObjectFile(io.RawIOBase):
    """Reads an object in blocks."""

    def __init__(self, store: ObjectStore, path: str, size: int) -> None:
        self.store = store
        self.path = path
        self.size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, origin: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[origin]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self.size)
        if end <= self._position:
            return 0
        data = self.store.read_range(self.path, self._position, end)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _error_code(error: BaseException) -> str:
    """The code of the service's answer that led to an error, or ""."""
    response = getattr(error.__cause__, "response", None)
    return response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""


def _is_failed_condition(error: OSError) -> bool:
    return isinstance(error, FileExistsError) or _error_code(error) in FAILED_CONDITIONS


def _lacks_credentials(error: Exception) -> bool:
    from botocore import exceptions

    return isinstance(
        error,
        exceptions.NoCredentialsError
        | exceptions.PartialCredentialsError
        | exceptions.CredentialRetrievalError
        | exceptions.ProfileNotFound
        | exceptions.SSOError
        | exceptions.TokenRetrievalError,
    )


def _describe(error: Exception) -> str:
    """The message of an error on one line, without the credentials that a URL may contain."""
    text = re.sub(r"//[^/@\s]*@", "//", str(error) or type(error).__name__)
    return excerpt(text.rstrip("."))
