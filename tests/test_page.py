"""A page of the course: its formulas are shown, and it asks for nothing that is not in it."""

import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from minialign.course.page import to_html
from minialign.course.runner import find_notebooks

PAGE_KB = 3_000


class _Page(HTMLParser):
    """What a browser fetches to show a page; its formulas, its alt texts, and its text outside of code."""

    def __init__(self, page):
        super().__init__()
        self.fetched, self.alts = [], []
        self.scripts = self.formulas = self.failed = 0
        self.prose, self._code = "", 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.scripts += tag == "script"
        self.formulas += tag == "math"
        self.failed += "math-core-error" in (attributes.get("class") or "")
        self._code += tag in ("pre", "code", "style")
        if tag == "img":
            self.alts.append(attributes["alt"])
        for name in ("src", "srcset", "data", "poster", *([] if tag == "a" else ["href"])):
            self.fetched.append(attributes.get(name) or "")
        self._look_for_urls(attributes.get("style") or "")

    def handle_endtag(self, tag):
        self._code -= tag in ("pre", "code", "style")

    def handle_data(self, text):
        self._look_for_urls(text if self._code else "")
        self.prose += "" if self._code else text

    def _look_for_urls(self, css):
        self.fetched += re.findall(r"url\(\s*['\"]?([^'\")]*)", css)
        self.fetched += re.findall(r"@import\s+['\"]?([^'\";]*)", css)

    @property
    def foreign(self):
        return [address[:80] for address in self.fetched if address and not re.match(r"data:|#", address)]


@pytest.mark.parametrize("path", find_notebooks([]), ids=lambda path: path.stem)
def test_every_stored_notebook_makes_a_page_of_its_own(path):
    notebook = nbformat.read(path, as_version=4)
    content = to_html(notebook, path.stem)
    page = _Page(content.decode("utf-8"))
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert page.foreign == [] and page.scripts == 0
    assert page.failed == 0 and page.formulas == sum(len(FORMULA.findall(source)) for source in sources)
    assert not re.search(r"\$|\\[a-z]+|\\\\", page.prose)  # no formula's source is left
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    alts = [
        output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})
    ]
    assert page.alts == alts
    figures = sum(len(output.get("data", {}).get("image/png", "")) for output in outputs)
    assert len(content) - figures < PAGE_KB * 1000


FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$]+\$", re.S)


def _page(*cells):
    return to_html(new_notebook(cells=list(cells)), "title").decode("utf-8")


def test_each_kind_of_formula_is_shown():
    text = "a $x_1$ b\n\n$$y$$\n\n- \\\\(z\\\\)\n\n\\\\[w\\\\]\n\n\\begin{align}u&=v\\end{align}\n\n`$code$`"
    latex = new_output("display_data", {"text/latex": "$\\displaystyle \\alpha$", "text/plain": "alpha"})
    page = _page(new_markdown_cell(text), new_code_cell("", outputs=[latex]))
    shown = _Page(page)
    assert shown.formulas == 6 and "$" not in shown.prose and "α" in page and "<code>$code$</code>" in page
    assert page.count('<math display="block"') == 3


def test_aligned_lines_stay_aligned_and_less_than_is_no_tag():
    page = _page(new_markdown_cell("$$\\begin{aligned}a &< b && \\text{(why)}\\\\ c &= d\\end{aligned}$$"))
    assert page.count("<mtr>") == 2 and "text-align: right" in page and "&lt;" in page and "(why)" in page


def test_a_formula_that_nobody_can_read_is_kept_as_it_was_written():
    page = _page(new_markdown_cell("before $\\nonsense{x}$ after"))
    assert _Page(page).failed == 1 and "<code>\\nonsense{x}</code>" in page and "after" in page


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://a.b/c.js"></script>',
        '<link href="https://a.b/c.css">',
        '<img src="https://a.b/c.png" alt="">',
        '<p style="background: url(https://a.b/c.png)"></p>',
        "<style>@import 'https://a.b/c.css';</style>",
        "<style>@font-face { src: url( 'c.woff' ) }</style>",
    ],
)
def test_what_is_fetched_is_seen(html):
    assert len(_Page(html).foreign) == 1
    assert _Page('<a href="https://a.b">a</a><img src="data:image/png;base64,aGk=" alt="">').foreign == []
