"""A notebook as one HTML page that needs nothing else: no script, no other file, no network.

Formulas become MathML, which browsers show by themselves, in a font that the page brings along.
"""

import base64
from pathlib import Path

from jinja2 import DictLoader, pass_context
from math_core import LatexToMathML
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

# STIX Two Math (SIL Open Font License 1.1, as its own name table says), cut down to the letters, operators
# and arrows of mathematics: pyftsubset --flavor=woff2 --no-hinting --name-IDs='*' --layout-features=ssty,kern
FONT = Path(__file__).with_name("stix_two_math.woff2")

# JupyterLab's page, with the figures' alt texts, which nbconvert leaves out, and without its scripts, which
# come from other hosts.
TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block extra_css -%}
<style>
@font-face { font-family: "STIX Two Math"; src: url(data:font/woff2;base64,{{ resources.font }}); }
math { font-family: "STIX Two Math", math; font-size: 1.15em; }
.jp-RenderedHTMLCommon math[display="block"] { margin: 1em 0; overflow-x: auto; }
</style>
{%- endblock -%}
{%- block data_latex -%}{{ output.data['text/latex'] | markdown2html }}{%- endblock -%}
{%- block data_png scoped -%}
{%- set alt = (output | get_metadata('alt', 'image/png') or '') | escape_html -%}
{{ super() | replace('<img', '<img alt="' ~ alt ~ '"', 1) }}
{%- endblock -%}"""


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown, with formulas as MathML; one that cannot be converted stays LaTeX, as code."""

    _math = LatexToMathML(continue_on_error=True, fancy_error=False)

    def block_math(self, body: str) -> str:
        return self._math.convert_with_local_state(body, displaystyle=True)

    def inline_math(self, body: str) -> str:
        return self._math.convert_with_local_state(body, displaystyle=False)

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        return MarkdownWithMath(_Renderer(escape=False, attachments=attachments)).render(source)


def to_html(notebook: NotebookNode, title: str) -> bytes:
    """The notebook as one HTML page."""
    exporter = _Exporter(
        extra_loaders=[DictLoader({"course.html.j2": TEMPLATE})], template_file="course.html.j2"
    )
    resources = {"metadata": {"name": title}, "font": base64.b64encode(FONT.read_bytes()).decode("ascii")}
    page, _ = exporter.from_notebook_node(notebook, resources)
    return page.encode("utf-8")
