"""HTML pages of one look: a shared style for light, dark, narrow and printed pages.

A page extends the template `html_page.html.jinja` of this folder. It is one file that loads nothing
from outside. Pages of `authface serve` may also load from their own server.
"""

from __future__ import annotations

import json
from importlib import resources

from jinja2 import ChoiceLoader, Environment, PackageLoader

PACKAGE = "manifests.support"
FILE_POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
"""Content-Security-Policy of a page that is a file."""
SERVED_POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; connect-src 'self'; form-action 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
"""Content-Security-Policy of a page that belongs to a server."""


def render_page(package: str, template: str, *, is_served: bool = False, **values: object) -> str:
    """Render a page.

    Args:
        package: Package that holds the template.
        template: File name of the template, which extends `html_page.html.jinja`.
        is_served: Whether the page may load from the server that it comes from.
        values: Values of the template.

    Returns:
        An HTML document.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader(PACKAGE, ".")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        shared_style=read_asset(PACKAGE, "html_page.css"),
        content_policy=SERVED_POLICY if is_served else FILE_POLICY,
        is_served=is_served,
        **values,
    )


def read_asset(package: str, name: str) -> str:
    """Read a style or script.

    Args:
        package: Package that holds the file.
        name: Name of the file.
    """
    return (resources.files(package) / name).read_text("utf-8")


def json_for_script(value: object) -> str:
    """Encode data for a script element. A literal `<` could end the element."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
