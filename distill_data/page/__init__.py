"""A version as one HTML page that a browser shows without any network: where its rows came from and what they are.

Reading order: rates, histogram, scan, sampling, tokens, examples and gather find what is shown; stages, charts and
curves say where it stands; payload makes the viewer's data; render puts it into page.html.jinja, page.css and page.js;
texts finds the teacher's tokenizer.
"""

from distill_data.page.render import render_page, write_page

__all__ = ["render_page", "write_page"]
