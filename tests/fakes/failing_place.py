"""A file system that pyarrow wraps, which can be made to fail or to keep one waiting."""

import threading
from pathlib import Path
from typing import Any

from pyarrow import fs


class Handler(fs.FileSystemHandler):
    """Delegates to a local folder.

    Attributes:
        failure: Raised by every call while it is set.
        open_gate: Writes wait until it is set.
        written: Paths in the order in which they took their final name.
    """

    def __init__(self, folder: Path):
        self._local = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
        self.failure: OSError | None = None
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.written: list[str] = []

    def get_type_name(self) -> str:
        return "fake"

    def get_file_info(self, paths: Any) -> Any:
        return self._reached().get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        return self._reached().get_file_info(selector)

    def open_input_file(self, path: str) -> Any:
        return self._reached().open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self.open_gate.wait()
        return self._reached().open_output_stream(path)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._reached().create_dir(path, recursive=recursive)

    def move(self, source: str, target: str) -> None:
        self._reached().move(source, target)
        self.written.append(target)

    def delete_dir(self, path: str) -> None:
        self._reached().delete_dir(path)

    def _reached(self) -> Any:
        if self.failure:
            raise self.failure
        return self._local

    def _absent(self, *_: Any) -> Any:
        raise NotImplementedError

    copy_file = delete_dir_contents = delete_file = delete_root_dir_contents = normalize_path = _absent
    open_append_stream = open_input_stream = _absent
