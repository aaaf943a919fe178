"""How Sphinx makes the site of the documents and the docstrings: `hatch run docs`, which takes warnings for errors.

Its root is the repository, so that a link is the same on the site and in the files.
"""

from __future__ import annotations

import uwasp

project = "uWASP"
author = "The uWASP developers"
version = release = uwasp.__version__
root_doc = "docs/index"
include_patterns = ["docs/*.md", "packages/*/README.md", "examples/*/README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_use_ivar = True  # an attribute that has a docstring of its own is described once
html_theme = "furo"
html_title = f"uWASP {release}"
html_show_copyright = False
html_show_sourcelink = False
