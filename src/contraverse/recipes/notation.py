"""Configurations as text: YAML 1.2's scalars, so that ``3e-5`` is a number and ``no`` is a word.

PyYAML follows YAML 1.1, where ``3e-5`` is text, ``no`` is false, ``1:30`` is 90 and a key given twice silently
wins over the first. Each of these has cost someone a training run.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from contraverse.errors import UserError

# A dot or an exponent: without one it is an integer, or text such as 007.
_FLOAT = re.compile(r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)\Z")
_SCALARS = (
    ("tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), "tTfF"),
    ("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)\Z"), "~nN"),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)\Z"), "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+.0123456789"),
)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            name = str(key.value)
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                reason = "a key is text: put it in quotes"
                raise yaml.constructor.ConstructorError(None, None, reason, key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f'"{name}" is given twice', key.start_mark)
            seen.add(name)
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


def write(values: Mapping[str, Any]) -> str:
    """``values`` as YAML, in their order; `read` gives back exactly the same."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def inline(value: Any) -> str:
    """``value`` as it is written on one line."""
    written: str = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=math.inf)
    return written.strip()[1:-1]
