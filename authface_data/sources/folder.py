"""A folder of photographs, such as studio portraits, with optional sidecar files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

from authface_data.sources.file_source import FileSource, SourceFile
from authface_data.sources.protocol import PhotoInput
from authface_data.sources.sidecars import Sidecars
from manifests.support.fingerprint import fingerprint

PREFIX = "fs_"
ID_DIGITS = 20

EARLIER_ID = re.compile(rf"{PREFIX}[0-9a-f]{{16}}")
"""Ids of earlier versions of authface, which hashed the two ends of a file."""
EARLIER_BYTES = 65536
"""How many bytes of each end of a file went into them."""


class FolderSource(FileSource):
    """Every image file below a folder, described by its sidecar files."""

    name: ClassVar[str] = "folder"
    requires_licence_basis: ClassVar[bool] = True

    def table_reader(self) -> Sidecars:
        """The sidecar files of the folder."""
        return self._sidecars

    def describe_photos(self) -> Iterator[PhotoInput]:
        """Describe each image file; what is wrong with sidecar files goes to `skipped`."""
        assigned: set[str] = set()
        for file in self.files:
            sidecar = self._sidecars.columns_for(file.path)
            photo_id = self._photo_id(file, assigned)
            assigned.add(photo_id)
            yield PhotoInput(
                photo_id=photo_id,
                name=os.fsencode(file.relative_path).decode("utf-8", "replace"),
                file=str(file.path),
                # The content is part of the id.
                fingerprint=fingerprint(sidecar=sidecar),
                earlier_fingerprint=fingerprint(
                    size=file.size, time=file.mtime_ns, sidecar=sidecar
                ),
                columns=sidecar,
            )
        self.skipped.extend(self._sidecars.messages())
        self.notes.extend(self._sidecars.notes())

    @cached_property
    def _sidecars(self) -> Sidecars:
        return Sidecars(store_place=self.workspace.settings.collect.store_place)

    def _photo_id(self, file: SourceFile, assigned: set[str]) -> str:
        """The id of a file's photograph: the one that it has in the workspace, or a new one.

        A new id hashes the path within the folder, the size and the content, so it stays the same
        when the folder is moved. A file that cannot be read gets an id too, so that its failure can
        be recorded.
        """
        if file.sha256 is None:
            return _unreadable_id(file)
        if _unreadable_id(file) in self.stored:
            self.superseded_ids.add(_unreadable_id(file))

        new_id = _hash_id(file, f"{file.size}\0{file.sha256}")
        if new_id in self.stored:
            return new_id
        earlier_id = _earlier_id(file) if self._has_earlier_ids else None
        for candidate in (self.stored.linked_id(file.path), earlier_id):
            if candidate is None or candidate in assigned:
                continue
            if self.stored.has_content(candidate, file.path):
                return candidate
        return new_id

    @cached_property
    def _has_earlier_ids(self) -> bool:
        return any(map(EARLIER_ID.fullmatch, self.stored.results))


def _hash_id(file: SourceFile, content: str) -> str:
    raw_name = os.fsencode(file.relative_path)  # a file name may be invalid UTF-8
    return PREFIX + hashlib.sha256(raw_name + f"\0{content}".encode()).hexdigest()[:ID_DIGITS]


def _unreadable_id(file: SourceFile) -> str:
    return _hash_id(file, "unreadable")


def _earlier_id(file: SourceFile) -> str | None:
    """The id that earlier versions of authface gave to a file; None if it cannot be read now."""
    raw_name = os.fsencode(file.relative_path)
    digest = hashlib.sha256(raw_name + f"\0{file.size}\0".encode())
    try:
        with file.path.open("rb") as opened:
            digest.update(opened.read(EARLIER_BYTES))
            opened.seek(max(file.size - EARLIER_BYTES, 0))
            digest.update(opened.read(EARLIER_BYTES))
    except OSError:
        return None
    return PREFIX + digest.hexdigest()[:16]
