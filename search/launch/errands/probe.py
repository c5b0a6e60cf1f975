"""What there is on the head: versions, packages, paths, and what the cluster may grow to. Prints one line of JSON."""

import importlib.util
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

LAUNCHER_FILE = Path("~/ray_bootstrap_config.yaml")  # `ray up` leaves it


def probe(asked: dict[str, Any]) -> dict[str, Any]:
    """Answers to `{"paths": […], "modules": […]}`."""
    return {
        "python": platform.python_version(),
        "thawline": _version("thawline"),
        "paths": [path for path in asked["paths"] if os.path.exists(Path(path).expanduser())],  # noqa: PTH110
        "modules": [name for name in asked["modules"] if importlib.util.find_spec(name)],
        "launcher": _launcher_description(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _launcher_description() -> dict[str, Any]:
    """Only what says how far the cluster may grow; the rest of the file is nobody's business."""
    import yaml

    path = LAUNCHER_FILE.expanduser()
    description = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kinds = {
        name: {key: kind[key] for key in ("resources", "max_workers") if key in kind}
        for name, kind in description.get("available_node_types", {}).items()
    }
    return {
        **{key: description[key] for key in ("head_node_type", "max_workers") if key in description},
        "available_node_types": kinds,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(json.loads(sys.argv[1]))) + "\n")
