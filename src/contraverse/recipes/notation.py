"""Configurations as text: YAML 1.2's scalars, so that ``3e-5`` is a number and ``no`` is a word.

PyYAML follows YAML 1.1, where ``3e-5`` is text, ``no`` is false, ``1:30`` is 90 and a key given twice silently
wins over the first. Each of these has cost someone a training run.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from contraverse.errors import UserError

# A dot or an exponent: without one it is an integer, or text such as 007.
_FLOAT = re.compile(r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)\Z")
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_SCALARS = (
    ("tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), "tTfF"),
    ("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)\Z"), "~nN"),
    ("tag:yaml.org,2002:int", _WHOLE, "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+.0123456789"),
)


_LARGEST = 100_000
"""Values in one text: nine lists of nine aliases each, of one another, are some 400 million."""


def _expanded(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Values below ``node``, itself included, with every alias written out: ``known`` counts shared ones once."""
    if node not in known:
        known[node] = 1  # in case it holds itself, which is refused later
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[node] += sum(_expanded(part, known) for part in parts) if isinstance(node, yaml.CollectionNode) else 0
    return known[node]


class _Loader(yaml.SafeLoader):
    """Knows the values that a setting can have, by version 1.2's rules; dates, sets and bytes are none."""

    def construct_document(self, node: yaml.Node) -> Any:
        """The whole value, once it is known to be of a size that can be worked with and shown."""
        if _expanded(node, {}) > _LARGEST:
            reason = f"with its aliases written out it has more than {_LARGEST:,} values"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark)
        return super().construct_document(node)

    def construct_number(self, node: Any) -> bool | int | float | None:
        """The value of a scalar that is no text; its text need not be of that kind where its tag is written out."""
        kind, text = node.tag.rpartition(":")[2], self.construct_scalar(node)
        # A whole number with the tag of a float is a float.
        patterns = [pattern for tag, pattern, _ in _SCALARS if tag == node.tag] + [_WHOLE] * (kind == "float")
        if not any(pattern.match(text) for pattern in patterns):
            raise yaml.constructor.ConstructorError(None, None, f'"{text}" is no {kind}', node.start_mark)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        return int(text) if kind == "int" else float(text)

    def construct_whole(self, node: Any) -> list[Any] | dict[Any, Any]:
        """A list or a mapping with everything in it at once, so that one which holds itself is refused."""
        if node.tag.endswith("seq"):
            return self.construct_sequence(node, deep=True)
        return self.construct_mapping(node, deep=True)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set[str]()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = str(key.value)
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                reason = "a key is text: put it in quotes"
                raise yaml.constructor.ConstructorError(None, None, reason, key.start_mark)
            if name in names:
                raise yaml.constructor.ConstructorError(None, None, f'"{name}" is given twice', key.start_mark)
            names.add(name)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Knows the scalars of both versions, and so quotes text that either would take for something else."""

    def represent_list(self, data: Iterable[Any]) -> yaml.SequenceNode:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # PyYAML loses line breaks such as U+0085 in any other style.
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(list, _Dumper.represent_list)
_Dumper.add_representer(str, _Dumper.represent_str)
_Loader.yaml_implicit_resolvers = {}  # none of version 1.1's
_Loader.yaml_constructors = {
    "tag:yaml.org,2002:str": yaml.SafeLoader.construct_yaml_str,
    "tag:yaml.org,2002:seq": _Loader.construct_whole,
    "tag:yaml.org,2002:map": _Loader.construct_whole,
    **{tag: _Loader.construct_number for tag, _, _ in _SCALARS},
    None: yaml.SafeLoader.construct_undefined,
}
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, _pattern, [*_first, ""] if _tag.endswith("null") else list(_first))
    _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))


def read(text: str, where: str) -> Any:
    """The value that ``text`` writes: a scalar, list or mapping (null is ``null`` or ``~``).

    Raises:
        UserError: ``text`` is not YAML, or gives a key twice; ``where`` is named.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}, line {mark.line + 1}" if mark and "\n" in text.strip() else where
        raise UserError(f"not readable as YAML: {error.problem}", where=place) from error
    except RecursionError as error:
        raise UserError("not readable as YAML: nested too deeply", where=where) from error
    # A tag whose text is none of its kind, as `!!int x`, ends in whatever its constructor runs into.
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"not readable as YAML: {error}", where=where) from error


def read_file(file: Path) -> Any:
    """The value that ``file`` holds.

    Raises:
        UserError: it cannot be read, or is not YAML; the file is named.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError("cannot be read: not UTF-8 text", where=str(file)) from error
    # A name with a NUL in it is a ValueError.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot be read: {reason}", where=str(file)) from error
    return read(text, str(file))


def write(values: Mapping[str, Any]) -> str:
    """``values`` as YAML, in their order; `read` gives back exactly the same."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def inline(value: Any) -> str:
    """``value`` as it is written on one line."""
    written: str = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=math.inf)
    return written.strip()[1:-1]
