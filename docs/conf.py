"""Sphinx's settings: `make docs` builds the pages into build/site. Nothing on them is fetched from a network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

from dydiff_env import __version__

project, author, version = "dydiff-env", "dydiff-env developers", __version__
copyright = "dydiff-env developers, MIT licence"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme, html_title = "furo", f"dydiff-env {__version__}"
html_math_renderer = "mathml"
html_show_sphinx = html_copy_source = html_show_sourcelink = False
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links to the repository's own files; tests/test_docs.py follows every one

default_role = "literal"  # docstrings write `names` as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True}
napoleon_google_docstring, napoleon_numpy_docstring = True, False


def inline(translator: Any, node: nodes.Element) -> None:
    """A formula in a line, as MathML, which browsers draw by themselves."""
    translator.body.append(convert(node.astext(), display="inline"))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.Element) -> None:
    """A formula of its own; a wide one scrolls."""
    translator.body.append(f"<div style='overflow-x:auto'>{convert(node.astext(), display='block')}</div>")
    raise nodes.SkipNode


def outside(app: Any, page: str, source: list[str]) -> None:
    """Links to Markdown files that are no pages: else they would be taken for unknown pages, and shown as plain text."""
    source[0] = re.sub(r"\]\((\.\./[^)#]*\.md)(#[^)]*)?\)", r"](path:\1)", source[0])


def setup(app: Any) -> None:
    """Register the renderer and the links."""
    app.connect("source-read", outside)
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
