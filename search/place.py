"""Another place for files: a folder on another disk, or a bucket."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Self

from search.addresses import check_no_secrets
from search.errors import ConfigurationError
from search.object_stores import PART, Bucket, no_such_bucket, open_s3, patient_uri, sentence
from search.whole_file import whole_file

_OBJECT_STORES = ("s3", "gcs", "abfs")  # there a file appears when it is whole, and renaming is copying
_SMALL = PART // 2  # bytes; up to this a file in a bucket is a single request
_PROBE = ".can-be-written"


@dataclass(frozen=True)
class Place:
    """A folder on any file system that pyarrow knows. Its methods raise OSError, with a sentence, when it can't be
    reached.

    Attributes:
        filesystem: A `pyarrow.fs.FileSystem`.
        folder: In the words of that file system.
        name: As a person calls it.
        bucket: When it is one whose errors are understood.
    """

    filesystem: Any
    folder: str
    name: str
    bucket: Bucket | None = None

    @classmethod
    def at(cls, address: str) -> Self:
        """The place that a path or a URI (`file://`, `s3://`, `gs://`) names.

        Raises:
            ConfigurationError: when it names none, or holds credentials.
        """
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem, LocalFileSystem

        if "://" not in address:
            return cls(LocalFileSystem(), str(Path(address).absolute()), address)
        check_no_secrets("storage_copy", address)
        try:
            if address.lower().startswith("s3://"):
                bucket = open_s3(address)
                return cls(bucket.filesystem, bucket.folder, bucket.name, bucket)
            filesystem, folder = FileSystem.from_uri(patient_uri(address))
        except (ArrowException, ValueError, OSError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(
                f"storage_copy: must be a folder or a URI such as s3://bucket/folder, but got {address!r}: {error}"
            ) from error
        return cls(filesystem, folder, address.partition("?")[0])

    def __truediv__(self, name: str) -> "Place":
        return replace(self, folder=f"{self.folder.rstrip('/')}/{name}", name=f"{self.name.rstrip('/')}/{name}")

    def read(self) -> bytes | None:
        """Content of the file; None when there is none."""
        return b"".join(content) if (content := self._chunks()) is not None else None

    def fetch(self, path: Path) -> bool:
        """Bring the file to a path, whole or not at all; whether there is one."""
        chunks = self._chunks()
        if chunks is None:
            return False
        with whole_file(path) as stream:
            for chunk in chunks:
                stream.write(chunk)
        return True

    def _chunks(self) -> Iterator[bytes] | None:
        """The file's content, `PART` by `PART`, each one request; an answer that is cut short is an OSError."""
        try:
            with self._sentences():
                stream = self.filesystem.open_input_file(self.folder)
        except FileNotFoundError:
            return None
        return self._rest(stream)

    def _rest(self, stream: Any) -> Iterator[bytes]:
        with self._sentences(), stream:
            missing = stream.size()
            while missing:
                chunk = stream.read(min(missing, PART))
                if not chunk:
                    raise OSError(f"{self.name} was cut short: {missing} of {stream.size()} bytes did not come")
                missing -= len(chunk)
                yield chunk

    def write(self, content: bytes) -> None:
        """Put a file here, whole or not at all."""
        self.send(BytesIO(content), len(content))

    def send(self, source: IO[bytes], size: int, between: Callable[[], None] = lambda: None) -> None:
        """Put what is read from an open file here, whole or not at all; a part of it at a time is in memory.

        Args:
            source: At its start; it must not change.
            size: Its bytes.
            between: Called after each part.

        Raises:
            OSError: when the place can't be reached, or the file can't be read; in a bucket, what was read of it may
                then stand under its name.
        """
        if self.filesystem.type_name == "local":
            with whole_file(Path(self.folder)) as target:
                while chunk := source.read(PART):
                    target.write(chunk)
                    between()
            return
        with self._sentences(), self._written(size) as stream:
            while chunk := source.read(PART):
                stream.write(chunk)
                self._flush(stream, size)
                between()

    def _flush(self, stream: Any, size: int) -> None:
        """Wait for what was sent of a large file; else parts queue in memory, and a lost one shows at the end only."""
        if size > _SMALL:
            stream.flush()

    @contextmanager
    def _written(self, size: int) -> Iterator[Any]:
        """A stream to a file that appears when the block ends.

        A bucket's stream commits what it got even when the block fails. Small files are safe from that, being sent when
        all is there; of large ones a lost part keeps the stream from ending well.
        """
        if self.filesystem.type_name in _OBJECT_STORES:
            in_parts = self.bucket.in_parts if self.bucket else self.filesystem
            with (self.filesystem if size <= _SMALL else in_parts).open_output_stream(self.folder) as stream:
                yield stream
        else:
            self.filesystem.create_dir(self.folder.rpartition("/")[0], recursive=True)
            with self.filesystem.open_output_stream(f"{self.folder}.tmp") as stream:
                yield stream
            self.filesystem.move(f"{self.folder}.tmp", self.folder)

    def files(self) -> list[str]:
        """Names of all files below, relative, sorted."""
        from pyarrow.fs import FileSelector, FileType

        with self._sentences():
            found = self.filesystem.get_file_info(FileSelector(self.folder, allow_not_found=True, recursive=True))
        start = len(self.folder.rstrip("/")) + 1
        return sorted(info.path[start:] for info in found if info.type == FileType.File)

    def remove(self) -> None:
        """Remove the folder and all in it, if there is one."""
        try:
            with self._sentences():
                self.filesystem.delete_dir(self.folder)
        except FileNotFoundError:
            return

    def check_usable(self) -> None:
        """That files can be put here and removed again, found out by doing so.

        Raises:
            OSError: when they can't.
        """
        from pyarrow.fs import FileType

        with self._sentences():
            if self.bucket:
                name = self.folder.partition("/")[0]
                if self.filesystem.get_file_info(name).type == FileType.NotFound:
                    raise OSError(no_such_bucket(self.bucket))
            probe = self / f"{_PROBE}/yes"
            probe.write(b"yes")
            (self / _PROBE).remove()

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Errors of a bucket's client in words that say what to do."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if not self.bucket or "AWS Error" not in str(error):
                raise
            raise OSError(sentence(error, self.bucket)) from error
