"""What a real browser makes of a page: script errors, pictures that do not load, and whether it fits a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = 390
"""Width of a common phone's screen, CSS px."""
_FRAME = """<!doctype html><meta charset="utf-8"><iframe id="page" src="{name}" width="{width}" height="844"></iframe>
<pre id="found"></pre><script>
const frame = document.getElementById("page"), errors = [];
frame.addEventListener("load", () => {{
  frame.contentWindow.addEventListener("error", event => errors.push(event.message));
  const page = frame.contentDocument, wide = [...page.querySelectorAll("body *")].filter(node =>
    node.getBoundingClientRect().right > {width} && !node.closest(".wide"));
  document.getElementById("found").textContent = JSON.stringify({{
    images: [...page.images].map(image => image.complete ? image.naturalWidth : 0),
    width: page.documentElement.scrollWidth,
    wide: wide.slice(0, 5).map(node => node.tagName),
    headings: [...page.querySelectorAll("h1, h2")].map(node => node.textContent),
    text: page.body.innerText.length, errors}});
}});
</script>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A page in a frame as wide as a phone."""

    images: list[int]
    """Natural width of every picture, px; 0: it did not load."""
    width: int
    """Of the whole page, px: above ``PHONE`` a reader has to scroll sideways."""
    wide: list[str]
    """Tags of elements that reach beyond the screen, other than in a part that scrolls by itself."""
    headings: list[str]
    text: int
    """Number of visible characters."""
    errors: list[str]
    """Of scripts."""


def show(page: Path, folder: Path) -> Shown:
    """Load a self-contained page from a folder of the test's own, without network access."""
    shutil.copy(page, folder / "page.html")
    frame = folder / "frame.html"
    frame.write_text(_FRAME.format(name="page.html", width=PHONE), encoding="utf-8")
    assert CHROMIUM is not None
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        "--window-size=1200,1000",
        "--dump-dom",
    ]
    run = subprocess.run([CHROMIUM, *options, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', run.stdout, re.DOTALL)
    assert found is not None and found[1], run.stderr
    values = json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    values["errors"] += re.findall(r"CONSOLE.*?(?:Error|Refused).*", run.stderr)
    return Shown(**values)
