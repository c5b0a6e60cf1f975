"""Study files as YAML, read so that no file can do harm and written so that they are read back."""

import re
import stat
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from search.errors import ConfigurationError

MAX_BYTES = 1_000_000  # a study file is a page; anything larger is a mistake or an attack


class _SafeLoader(yaml.SafeLoader):
    """YAML without the parts that can hurt: no duplicate keys, no anchors (alias bombs), no tags that build objects."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                break  # refused just below, with its place
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} stands here a second time", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) >= 2**63:  # 0xfff… of 5,000 digits cannot even be printed
            raise yaml.MarkedYAMLError(problem="a whole number must fit into 64 bits", problem_mark=node.start_mark)
        return value


_SafeLoader.add_constructor("tag:yaml.org,2002:int", _SafeLoader.construct_yaml_int)


class _SafeDumper(yaml.SafeDumper):
    """Writes what `_SafeLoader` reads back: no aliases, quotes around text that it would take for a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _each in (_SafeLoader, _SafeDumper):  # YAML 1.1 takes 1e-3, without a dot, for text; people do not
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def read_yaml(path: Path) -> Any:
    """Parsed YAML of at most 1 MB.

    Raises:
        ConfigurationError: when the file is missing, too large, or not plain YAML.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # a named pipe would be waited for
            raise ConfigurationError(f"{path}: must be a study file, but is a named pipe, socket or device")
        if status.st_size > MAX_BYTES:
            raise ConfigurationError(f"{path}: must be at most {MAX_BYTES:,} bytes, but has {status.st_size:,}")
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: must be a readable study file, but {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: must be YAML, but {error}") from error


def parse_yaml(text: str) -> Any:
    """Plain values of a YAML text; raises `yaml.YAMLError` for whatever is wrong with it."""
    try:
        return yaml.load(text, Loader=_SafeLoader)
    except (ValueError, RecursionError) as error:  # a 13th month, an integer of 5,000 digits, brackets without end
        raise yaml.YAMLError(str(error)) from error


def to_yaml(document: Mapping[str, Any]) -> str:
    """Plain values as text that `read_yaml` takes back, keys in their order."""
    return yaml.dump(document, Dumper=_SafeDumper, sort_keys=False, allow_unicode=True)
