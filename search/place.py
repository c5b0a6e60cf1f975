"""Another place for files: a folder on another disk, or a bucket."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from search.errors import ConfigurationError
from search.whole_file import write_whole

_OBJECT_STORES = ("s3", "gcs", "abfs")  # there a file appears when it is whole, and renaming is copying


@dataclass(frozen=True)
class Place:
    """A folder on any file system that pyarrow knows. Its methods raise OSError when it can't be reached.

    Attributes:
        filesystem: A `pyarrow.fs.FileSystem`.
        folder: In the words of that file system.
        name: As a person calls it.
    """

    filesystem: Any
    folder: str
    name: str

    @classmethod
    def at(cls, address: str) -> Self:
        """The place that a path or a URI (`file://`, `s3://`, `gs://`) names.

        Raises:
            ConfigurationError: when it names none.
        """
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem, LocalFileSystem

        if "://" not in address:
            return cls(LocalFileSystem(), str(Path(address).absolute()), address)
        try:
            filesystem, folder = FileSystem.from_uri(address)
        except (ArrowException, ValueError, OSError) as error:
            raise ConfigurationError(
                f"storage_copy: must be a folder or a URI such as s3://bucket/folder, but got {address!r}: {error}"
            ) from error
        return cls(filesystem, folder, address)

    def __truediv__(self, name: str) -> "Place":
        return Place(self.filesystem, f"{self.folder.rstrip('/')}/{name}", f"{self.name.rstrip('/')}/{name}")

    def read(self) -> bytes | None:
        """Content of the file; None when there is none."""
        from pyarrow.fs import FileType

        if self.filesystem.get_file_info(self.folder).type != FileType.File:
            return None
        with self.filesystem.open_input_stream(self.folder) as stream:
            return bytes(stream.read())

    def write(self, content: bytes) -> None:
        """Put a file here, whole or not at all."""
        if self.filesystem.type_name == "local":
            path = Path(self.folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        elif self.filesystem.type_name in _OBJECT_STORES:
            self._stream(self.folder, content)
        else:
            self.filesystem.create_dir(self.folder.rpartition("/")[0], recursive=True)
            self._stream(f"{self.folder}.tmp", content)
            self.filesystem.move(f"{self.folder}.tmp", self.folder)

    def _stream(self, path: str, content: bytes) -> None:
        with self.filesystem.open_output_stream(path) as stream:
            stream.write(content)

    def files(self) -> list[str]:
        """Names of all files below, relative, sorted."""
        from pyarrow.fs import FileSelector, FileType

        found = self.filesystem.get_file_info(FileSelector(self.folder, allow_not_found=True, recursive=True))
        start = len(self.folder.rstrip("/")) + 1
        return sorted(info.path[start:] for info in found if info.type == FileType.File)

    def remove(self) -> None:
        """Remove the folder and all in it, if there is one."""
        from pyarrow.fs import FileType

        if self.filesystem.get_file_info(self.folder).type == FileType.Directory:
            self.filesystem.delete_dir(self.folder)
