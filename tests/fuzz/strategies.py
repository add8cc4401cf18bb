# ruff: noqa: RUF005 - words to draw from, many to a line
"""Odd settings, YAML, command lines and bytes, most of them one mistake away from what is right."""

import dataclasses
import inspect
from collections.abc import Callable
from enum import EnumType
from typing import Any, get_args, get_type_hints

import typer
from hypothesis import strategies as st
from pydantic import BaseModel
from transformers import TrainingArguments

from contraverse.cli.app import app
from contraverse.data import IMAGE_TASKS, TASKS
from contraverse.methods import METHODS
from contraverse.recipes import RECIPES, RunConfig
from contraverse.recipes.image_schema import ImageRunConfig
from contraverse.recipes.recipe import is_image_task

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ODD_TEXT = st.one_of(
    TEXT, st.sampled_from(["", " ", "\ud800", "\x00", "\x1b[31m", "é" * 300, "x" * 5000, "..", "/", "~"])
)

SCALARS = st.sampled_from(
    """null ~ Null true false yes no 0 -0 1 -1 7 0.5 -0.5 1e-300 1e300 1e999 -.inf .inf .nan nan inf 1e3 3.0 007 0x10
    1_000 1:30 2020-01-01 99999999999999999999 10000000000000000000000000000000000000000 .5.5 1/0 8/255 1/3 0/1 -1/2
    cls mean all hub paper auto text scal pgd linf l2 "" '' "1" '0.5' [] {} [[]] [1] [1,2,3] [null] [.nan] [a,b]
    {a:1} {name:x} {name:sgd} {name:[a]} {name:null} {name:cosine,epochs:[0]} [{}] [{a:b}] !!int !!float !!bool
    !!null !!str !!int&a !!timestamp !!binary !!set !!omap !!pairs !!seq !!map !!python/object:os.system !foo
    &a *a <<:1 ? | > - @ ` % ! & * \\ 10% 500 none None ../x / . ~/x http://x hf://x s3://x file:///""".split()
) | st.sampled_from(
    ["!!int ''", "!!float ''", "!!bool maybe", "!!timestamp soon", "!!binary '*'", "!!int x", "!!float x", "[" * 1000]
    + ["{a: " * n + "1" + "}" * n for n in (30, 100, 150, 200, 240)]
    + ["[" * n + "]" * n for n in (90, 150, 240)]
    + ["{a: " * 900, "&a [*a]", "&a {b: *a}", "{a: 1, a: 2}", "{1: 2}", "{null: 1}", "{[a]: 1}", "{? {a: b} : c}"]
    + ["{<<: [1]}", "{<<: {a: 1}, b: 2}", "!!omap [{a: 1}]", "!!set {a, b}", "!!pairs [a: 1]", "!!str [a]", "!!seq x"]
    + ["a: b: c", '"\\uD800"', '"\\x00"', '"\\e[31m"', "!!int 1_0", "!!float 1e5", "9" * 5000, "1e" + "9" * 400]
    + ["'\ud800'", "\ufeff1", "\x85", "- a\n- b", "|\n  a\n  b", "--- 1\n--- 2", "%YAML 9.9\n--- 1", "%TAG ! x\n--- 1"]
    + ["!!timestamp 2020-99-99", "!!timestamp 2020-01-01", "2020-01-01 00:00:00", "!!binary aGk=", "!!value 1", "="]
    + [
        "[{source: x, task: y}]",
        "{source: x, weight: .nan}",
        "[{source: [], weight: 1}]",
        "[[a, b], c]",
        "[1, [2, [3]]]",
    ]
)
VALUES = SCALARS | ODD_TEXT | st.integers().map(str) | st.floats().map(str)


def _names(model: type[BaseModel], before: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        inside = [kind for kind in (field.annotation, *getattr(field.annotation, "__args__", ())) if _is_model(kind)]
        found.append(before + name)
        for kind in inside:
            found += _names(kind, f"{before}{name}.")
    return found


def _is_model(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, BaseModel)


_METHODS = {name: list(inspect.signature(build.__init__).parameters)[1:] for name, build in METHODS.items()}
KNOWN = sorted(
    {*_names(RunConfig), *_names(ImageRunConfig)}
    | {f"train.{field.name}" for field in dataclasses.fields(TrainingArguments)}
    | {f"method.{name}" for names in _METHODS.values() for name in names}
)
STAGES = st.sampled_from(
    ["stages", "stages.a", "stages.itpt", "stages.a.method", "stages.itpt.train", "stages.itpt.method.name"]
)
STRANGE = st.sampled_from(
    [
        "a." * 3000 + "a",
        "method." + "a." * 150 + "a",
        "",
        ".",
        "a",
        "a.b",
        "train.",
        ".train",
        "train..x",
        "method.name.x",
        "train.schedule.name.x",
        "recipe",
    ]
)
NAMES = st.one_of(st.sampled_from(KNOWN), STAGES, STRANGE, ODD_TEXT)
RECIPE = st.sampled_from(sorted(RECIPES))


_TEXTS = sorted(name for name, recipe in RECIPES.items() if not is_image_task(recipe.task))


@st.composite
def settings(draw: Callable[..., Any], rows: str) -> list[str]:
    """A recipe and ``--set`` words, odd in values or, seldom, in names; of texts often with rows that are there."""
    recipe = draw(RECIPE)
    kind = draw(st.integers(0, 9))
    own = [name for name in KNOWN if not name.startswith("method.")]
    own += 30 * [f"method.{name}" for name in _METHODS.get(recipe, [])]
    names = draw(st.lists(st.sampled_from(own) if kind else NAMES, min_size=1, max_size=1 + kind % 3))
    words = [word for name in names for word in ("--set", f"{name}={draw(VALUES)}")]
    there = recipe in _TEXTS and draw(st.booleans())
    return [recipe, *words, *(["--data", rows, "--task", "text"] if there and recipe in CLASSIFIERS else [])]


CLASSIFIERS = [name for name in _TEXTS if name in METHODS and METHODS[name].requires in ("labels", "inputs")]


def _written(name: str, value: str) -> str:
    section, _, rest = name.partition(".")
    return f"{section}: {{{rest}: {value}}}\n" if rest else f"{section}: {value}\n"


LINES = st.one_of(
    st.builds(_written, NAMES, VALUES),
    st.builds(lambda a, b: f"{a}: {b}\n", VALUES, VALUES),
    st.builds(lambda a, b: f"stages: {{{a}: {b}}}\n", VALUES, VALUES),
    st.builds(lambda a, b: f"stages: {{a: {{method: {{name: scal}}, {a}: {b}}}}}\n", NAMES, VALUES),
    VALUES,
    st.builds(lambda name: f"recipe: {name}\n", RECIPE | VALUES),
    st.builds(lambda name: f"task: {name}\n", st.sampled_from([*TASKS, *IMAGE_TASKS]) | VALUES),
    st.builds(lambda a: f"method:\n  name: {a}\n", st.sampled_from([*METHODS]) | VALUES),
)
YAML = st.builds(
    lambda head, lines: (head + "".join(lines)).encode("utf-8", "surrogatepass"),
    st.sampled_from(["recipe: scal\ntask: text\n", "recipe: trades\n", "recipe: itpt\n", "", "\ufeff"]),
    st.lists(LINES, max_size=4),
)
STUDY = b"""name: small
question: Does it run?
text: A table.
tasks: {text: {data.source: ROWS}}
methods: {ce: {recipe: ce}, scal: {recipe: scal}}
baseline: ce
seeds: [1, 2]
"""


@st.composite
def mutated(draw: Callable[..., Any], data: bytes) -> bytes:
    """``data`` with one to four pieces cut out, put in, written over, doubled, or moved to the end."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 2, 4, 8, 40, 10**9])))
        piece = draw(st.binary(max_size=6) | st.sampled_from(PIECES))
        data = draw(
            st.sampled_from(
                [data[:start] + data[end:], data[:start] + piece + data[end:], data[:start] + piece + data[start:]]
                + [data[:end] + data[start:end] + data[end:], data[:start], data[:start] + data[end:] + data[start:end]]
            )
        )
    return data


PIECES = [
    b"",
    b"\x00",
    b'"',
    b"'",
    b",",
    b"\n",
    b"\r",
    b"\t",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"{}",
    b"[",
    b"null",
]
PIECES += [
    b"NaN",
    b"9" * 400,
    b'"\\ud800"',
    b"\xed\xa0\x80",
    b"-1",
    b"1e999",
    b"{",
    b"}",
    b":",
    b"[" * 3000,
    b"text",
    b"label",
]

JSON: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 7, 0.5, 1e300, float("nan"), float("inf"), 2**63, 2**70, -(2**45)]),
    st.sampled_from(["", "x", "mean", "bert", "cls", "\ud800", "../x", "resnet18", "gelu", "float32", "\x00"]),
    st.sampled_from([[], {}, [1], [[]], {"a": 1}, [None], {"0": "a"}, ["a", "a"], [1, 2, 3], {"": {}}, {"x": [1]}]),
)


def commands() -> dict[str, Any]:
    """The commands by name, but for the one that always trains."""
    group: Any = typer.main.get_command(app)
    return {name: command for name, command in group.commands.items() if name != "quickstart"}


ALWAYS = {"train": ["--dry-run"], "search": ["--timeout", "0"], "study": ["--dry-run"]}
"""Words without which a command would train."""

_LONG = ("steps", "restarts", "queries", "epochs", "candidates", "substitutions", "rows", "trials", "jobs", "max_edits")
_NEVER = ("--debug", "--module", "--trust-remote-code", "--dry-run", "--timeout", "--unforeseen", "--corruptions")


@st.composite
def command_lines(draw: Callable[..., Any], paths: list[str]) -> list[str]:
    """A command with some of its options, right and wrong, its arguments mostly right."""
    name = draw(st.sampled_from(sorted(commands())))
    words = [name]
    for parameter in commands()[name].params:
        options = [option for option in parameter.opts if option.startswith("-")]
        if not options:
            if draw(st.integers(0, 9)):
                words.append(draw(_value(name, parameter, paths)))
            continue
        if options[0] in _NEVER or draw(st.integers(0, 3 if parameter.required else 7)) > (
            2 if parameter.required else 0
        ):
            continue
        words.append(draw(st.sampled_from([*options, *parameter.secondary_opts])))
        if not getattr(parameter, "is_flag", False):
            words.append(draw(_value(name, parameter, paths)))
    if draw(st.integers(0, 19)) == 0:
        words.append(draw(ODD_TEXT | st.sampled_from(["--nothing", "-x", "--", "--set", "--data"])))
    return words[:1] + ALWAYS.get(name, []) + words[1:]


def _value(command: str, parameter: Any, paths: list[str]) -> st.SearchStrategy[str]:
    name = str(parameter.name)
    kinds = _kinds(get_type_hints(commands()[command].callback)[name])
    path = st.sampled_from([*paths, *paths, "nothing", ".", "x" * 300, "a/b/c", "/dev/null", "minilm"]) | ODD_TEXT
    choices = [str(kind) for kind in kinds if isinstance(kind, str)]
    choices += [member.value for kind in kinds if isinstance(kind, EnumType) for member in kind]
    if choices:
        return st.sampled_from([*choices, *choices, "nothing", ""])
    if int in kinds:
        large = [] if name in _LONG else ["2147483648", str(2**63), "9" * 40]
        return st.sampled_from(["1", "2", "3", "8", "16", "1", "8", "0", "-1", "x", "1.5", "", *large])
    if float in kinds:
        return st.sampled_from(["0", "0.5", "1", "0.5", "-1", "nan", "inf", "-inf", "1e308", "x", ""])
    if name == "set_":
        return st.builds(lambda a, b: f"{a}={b}", NAMES, VALUES)
    if name == "output":
        written = ["o.npy", "o.parquet", "o.csv", "o.jsonl", "o.json", "o.onnx", "o.safetensors", "o", "a/o.csv", "."]
        return st.sampled_from(written) | ODD_TEXT
    if name in ("recipe", "what"):
        return RECIPE | path
    if name == "task":
        return st.sampled_from([*TASKS, *IMAGE_TASKS]) | ODD_TEXT
    if name == "space":
        return st.builds(
            lambda a, b: f"{a}={b}", NAMES, VALUES | st.sampled_from([".1:1:log", "2:4", "1:0", "0:1:log"])
        )
    if name in ("eps", "step_size"):
        return (
            st.sampled_from([".1,.3", "8/255", "none", "1/0", "nan", "inf", "-1", "", ",", "1e999", "1,1", "0"]) | TEXT
        )
    if name in ("text", "label", "image"):
        return st.sampled_from(["text", "label", "nothing"]) | ODD_TEXT
    if name in ("attacks", "labels", "unforeseen_attacks", "pooling", "device", "model_arch", "normalise"):
        return (
            st.sampled_from(["apgd-ce", "10%", "500", "mean", "last-two", "cpu", "cuda", "meta", "imagenet", "a,b"])
            | ODD_TEXT
        )
    return path


def _kinds(hint: Any) -> list[Any]:
    """The classes and the choices that ``hint`` allows."""
    return [inside for part in get_args(hint) for inside in _kinds(part)] if get_args(hint) else [hint]
