"""`docs/settings.md`: every setting of a study file, as its schema says. `make docs` writes it."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.config import StudyConfig
from search.whole_file import write_whole
from trainable import ImageTrainable

HEAD = """# All settings

Everything that a study file may say, with what holds where it says nothing. Any of it can be set for one run:
`thawline search study.yaml --set SECTION.KEY=VALUE`. A key that is not listed here is refused. `make docs` writes this
page from the code.
"""
HIDDEN = ("record",)  # written by Thawline, never by people
SPACE = """
## space

A range for each hyperparameter that varies, under its name in [training](#training). Both ends are included.

| type | keys |
|---|---|
"""


def settings_page() -> str:
    """The page, as Markdown."""
    schema = StudyConfig.of(ImageTrainable.sections).model_json_schema()
    definitions = schema["$defs"]
    fields = {name: field for name, field in schema["properties"].items() if name not in HIDDEN}
    sections = {name: _section(field, definitions) for name, field in fields.items()}
    top = {name: field for name, field in fields.items() if sections[name] is None}
    lines = [HEAD, "## At the top", "", *_table("", top, definitions)]
    for name, section in sections.items():
        if name == "space":
            lines += [SPACE.rstrip("\n"), *_ranges(definitions)]
        elif section is not None:
            about = fields[name].get("description") or section.get("description", "")
            lines += [
                "",
                f"## {name}",
                "",
                _line(about),
                "",
                *_table(f"{name}.", section["properties"], definitions),
            ]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def _table(prefix: str, fields: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    yield "| setting | values | default | what it means |"
    yield "|---|---|---|---|"
    for name, field in fields.items():
        if name == "space":
            continue
        cells = (f"`{prefix}{name}`", _values(field, definitions), _default(field), _line(field.get("description", "")))
        yield f"| {' | '.join(cells)} |"


def _ranges(definitions: Mapping[str, Any]) -> Iterator[str]:
    for name in ("FloatRange", "IntRange", "Choice"):
        fields = definitions[name]["properties"]
        keys = "; ".join(
            f"`{key}` {_values(field, definitions)}"
            + (f": {_line(field['description']).rstrip('.')}" if "description" in field else "")
            for key, field in fields.items()
            if key != "type"
        )
        yield f"| `{fields['type']['const']}` | {keys} |"


def _section(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a section holds; None for a plain value."""
    if field.get("type") == "object" and "additionalProperties" in field and "$ref" not in field:
        return {"properties": {}}
    reference = field.get("$ref")
    found: dict[str, Any] | None = definitions[reference.rpartition("/")[2]] if reference else None
    return found


def _values(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return "{" + ", ".join(f"{key}: …" for key in definitions[name].get("properties", {})) + "}"
    for key in ("anyOf", "oneOf"):
        if key in field:
            kinds = [_values(each, definitions) for each in field[key] if each.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    return _kind(field, definitions) + _bounds(field)


def _kind(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    match field.get("type"):
        case "array":
            return f"list of {_values(field['items'], definitions)}" if field.get("items") else "list"
        case "string":
            return "path" if field.get("format") == "path" else "text"
        case kind:
            plain = {"integer": "whole number", "number": "number", "boolean": "true, false", "object": "mapping"}
            return plain.get(str(kind), "any value")


def _bounds(field: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {field[key]:,}" for key, sign in signs.items() if key in field]
    return f" {', '.join(told)}" if told else ""


def _default(field: Mapping[str, Any]) -> str:
    """As YAML has it; a path without the folder in which this page was made."""
    if "default" not in field:
        return "must be given"
    match field["default"]:
        case None:
            return "none"
        case bool(value):
            return f"`{str(value).lower()}`"
        case dict(values):
            return "`{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}`"
        case [*values]:
            return "`[" + ", ".join(map(str, values)) + "]`"
        case value:
            return f"`{value}`"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]), settings_page())
