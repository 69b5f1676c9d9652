"""Sphinx configuration: the pages of this folder, model cards and an API reference made from the code."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import ifmmin  # noqa: E402
from ifmmin.discovery import discover_models  # noqa: E402

project, author, release = "ifmmin", "the ifmmin developers", ifmmin.__version__
copyright = "the ifmmin developers"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = "ifmmin"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
toc_object_entries = False  # the navigation of each of 350 pages would copy every function: two thirds of a build
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
doctest_global_setup = "import torch\nfrom pathlib import Path"
suppress_warnings = ["ref.python"]  # one name, re-exported by its package
myst_heading_anchors = 3
nb_execution_mode = "force"  # a notebook that fails is a documentation that does not build
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_output_stderr = "remove"

PACKAGES = ("ifmmin", "datamodules", "baselines")
OLD_PATHS = {"ifmmin.encoders", "ifmmin.imagination", "ifmmin.losses", "datamodules.batch", "datamodules.missing"}


def modules(package: str) -> list[str]:
    """All modules of a package, but those that only warn of a move."""
    found = pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
    return [module.name for module in found if module.name not in OLD_PATHS and "__main__" not in module.name]


def write_api() -> None:
    """One page per package, one section per module."""
    folder = HERE / "api"
    folder.mkdir(exist_ok=True)
    for package in PACKAGES:
        lines = [package, "=" * len(package), "", f".. automodule:: {package}", ""]
        for name in modules(package):
            lines += [name, "-" * len(name), "", f".. automodule:: {name}", "   :members:", "   :show-inheritance:"]
            lines += ["   :ignore-module-all:", ""]
        (folder / f"{package}.rst").write_text("\n".join(lines), encoding="utf-8")


def write_cards() -> None:
    """One section per model, from its card and docstring."""
    lines = ["# Model cards", "", "Made from the classes: a card's facts, then the docstring.", ""]
    for name, model in sorted(discover_models().items()):
        card = model.card
        source = f"[{card.source}]({card.url})" if card.url else card.source
        code = f"[public code]({card.code})" if card.code else "no public code"
        faithful = "follows paper and code" if card.faithful is True else str(card.faithful)
        lines += [f"## {card.title}", "", f"`--model {name}`: {card.summary}.", ""]
        lines += [f"{source} · {card.family} · {code} · {faithful} · {', '.join(model.tasks)}", ""]
        lines += ["```{eval-rst}", f".. autoclass:: {model.__module__}.{name}", "   :no-index:", "```", ""]
    (HERE / "cards.md").write_text("\n".join(lines), encoding="utf-8")


write_api()
write_cards()
