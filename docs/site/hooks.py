"""Build steps of the documentation site that MkDocs has no setting for: `make docs`.

Pages are written for GitHub: they link to files outside of ``docs/`` and hold ``$...$`` and ``math`` blocks. Here the
files become pages of the site, the links point to these, formulas become MathML (no script, no network), and the API
reference is made from the exports of the package. An export without a docstring ends the build.
"""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": "about.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the repository outside of ``docs/``: path in the repository -> path in the site."""

NAVIGATION = {
    "Home": ["README.md"],
    "About": ["about.md"],
    "Command line": ["command-line.md"],
    "Tutorials": ["tutorials/*.md"],
    "Methods": ["methods/README.md", "methods/*.md"],
    "Extending": ["extending.md"],
    "Results": ["results.md", "noise.md", "evasion.md", "detectors.md", "studies.md", "log.md"],
    "Design": ["design.md", "scale.md", "glossary.md"],
    "Project": ["contributing.md", "changelog.md"],
}
"""Sections of the site; pages that no pattern names follow under More."""

REFERENCE = {
    "methods": "Methods",
    "models": "Models",
    "data": "Data",
    "training": "Training",
    "attacks": "Attacks",
    "evaluation": "Evaluation",
    "functional": "Equations",
    "recipes": "Recipes",
    "pipeline": "Runs",
    "types": "Types",
}
"""Pages of the API reference, in order: the part of the package that a name is defined in -> its title."""

_LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))")
_CODE = re.compile(r"(^```.*?^```[ ]*$|`+[^`\n]+`+)", flags=re.DOTALL | re.MULTILINE)
_MATH_BLOCK = re.compile(r"^```math\n(.*?)^```[ ]*$", flags=re.DOTALL | re.MULTILINE)
_MATH = re.compile(r"(?<![\\$\w])\$([^$\n]+?)\$(?![\w$])")

_repository_path: dict[str, str] = {}  # of a generated page: path in the site -> path in the repository
_formulas: list[str] = []


def on_config(config: Any) -> Any:
    """Set the navigation: every page of ``docs/`` is in it."""
    docs = Path(config["docs_dir"])
    known = {*PAGES.values(), *(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))}
    used: set[str] = set()
    nav: list[Any] = []
    for title, patterns in NAVIGATION.items():
        pages = [page for pattern in patterns for page in sorted(known) if Path(page).match(pattern)]
        pages = [
            page for page in dict.fromkeys(pages) if page not in used and page.count("/") == patterns[0].count("/")
        ]
        used |= {*pages}
        nav.append({title: pages[0] if len(pages) == 1 else pages})
    nav.append({"API": [{title: f"reference/{part}.md"} for part, title in REFERENCE.items()]})
    if rest := sorted(known - used):
        nav.append({"More": rest})
    config["nav"] = nav
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made of other files, and the API reference."""
    for path, uri in PAGES.items():
        _add(files, config, uri, path, (ROOT / path).read_text(encoding="utf-8"))
    for path in sorted(_linked_sources(files)):
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
        else:
            name = path.relative_to(ROOT).as_posix()
            language = {".py": "python", ".yaml": "yaml", ".toml": "toml"}.get(path.suffix, "text")
            text = f"# {path.name}\n\n`{name}`\n\n````{language}\n{path.read_text(encoding='utf-8')}````\n"
        _add(files, config, _site_path(path), path.relative_to(ROOT).as_posix(), text)
    for part, text in _reference().items():
        files.append(File.generated(config, f"reference/{part}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to pages of the site, and put a mark in the place of each formula."""
    uri = page.file.src_uri
    source = ROOT / _repository_path.get(uri, f"docs/{uri}")

    def link(match: re.Match[str]) -> str:
        target, anchor = match[2], match[3] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        path = Path(os.path.normpath(source.parent / target))
        return f"{match[1]}{os.path.relpath(_site_path(path), Path(uri).parent)}{anchor}{match[4]}"

    def block(match: re.Match[str]) -> str:
        return f'\n<div class="formula">{_mark(match[1], "block")}</div>\n'

    if uri.startswith("reference/"):
        return markdown
    parts = _CODE.split(_MATH_BLOCK.sub(block, markdown))
    parts[::2] = [_LINK.sub(link, _MATH.sub(lambda m: _mark(m[1], "inline"), part)) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, **_: Any) -> str:
    """Put formulas in the place of their marks."""
    return re.sub(r"FORMULA(\d+)END", lambda match: _formulas[int(match[1])], html)


def _mark(formula: str, display: str) -> str:
    # latex2mathml knows align*, which is the same in display, and not aligned.
    _formulas.append(convert(formula.strip().replace("{aligned}", "{align*}"), display=display))
    return f"FORMULA{len(_formulas) - 1}END"


def _add(files: Files, config: Any, uri: str, path: str, text: str) -> None:
    _repository_path[uri] = path
    files.append(File.generated(config, uri, content=text))


def _site_path(path: Path) -> str:
    """Path in the site of a file of the repository."""
    name = path.relative_to(ROOT).as_posix()
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return PAGES.get(name, f"source/{name.removesuffix('.md')}.md")


def _linked_sources(files: Files) -> Iterator[Path]:
    """Files outside of ``docs/`` that a page links to, each once, but for those that are pages already."""
    pages = [ROOT / name for name in PAGES] + [ROOT / "docs" / file.src_uri for file in files.documentation_pages()]
    found: set[Path] = set()
    for page in pages:
        if not page.exists():
            continue  # another generated page
        for part in _CODE.split(page.read_text(encoding="utf-8"))[::2]:
            for match in _LINK.finditer(part):
                path = Path(os.path.normpath(page.parent / match[2])) if match[2] and "://" not in match[2] else page
                inside = path.is_relative_to(ROOT) and path.is_file()
                if inside and not path.is_relative_to(ROOT / "docs") and path.name not in PAGES:
                    found.add(path)
    yield from found


def _reference() -> dict[str, str]:
    """Pages of the API reference: every export of the package under the part that defines it.

    Raises:
        PluginError: an export has no docstring.
    """
    package = griffe.load("contraverse", search_paths=[ROOT / "src"], resolve_aliases=True)
    stub = ast.parse((ROOT / "src" / "contraverse" / "__init__.pyi").read_text(encoding="utf-8"))
    exports = {
        alias.name: node.module.removeprefix("contraverse.")
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("contraverse.")
        for alias in node.names
    }
    if not exports:
        raise PluginError("__init__.pyi exports nothing")
    pages = {part: f"# {title}\n" for part, title in REFERENCE.items()}
    undocumented = []
    for name, module in sorted(exports.items(), key=lambda item: item[0].lower()):
        member = package[f"{module}.{name}"]
        target = member.final_target if member.is_alias else member
        if target.docstring is None:
            undocumented.append(target.path)
        part = target.path.split(".")[1]
        part = part if part in pages else "types"
        pages[part] += f"\n::: {target.path}\n"
    if undocumented:
        raise PluginError(f"exports without a docstring: {', '.join(undocumented)}")
    return pages
