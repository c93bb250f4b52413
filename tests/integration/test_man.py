"""The man pages: well-formed, and with all in them that the tables list."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from harness import COORDD, REPO

MAN = Path(COORDD).resolve().parent / "man"
PAGES = ["coordctl.1", "coordd.8", "coordd.yaml.5", "coordd-protocol.7"]
LISTED = {
    "coordctl.1": [("src/ctl/options.def", r'^OPTION\(\w+, .*?, "([\w-]+)"'), ("src/ctl/verbs.def", r'^VERB\(".*?", "([\w-]+)"')],
    "coordd.8": [("src/base/log.def", r'^EVENT\(\w+, "([\w.]+)"'), ("docs/CONFIG.md", r"(?m)^\| `-.*?(--[a-z-]+)")],
    "coordd.yaml.5": [("src/config/options.def", r'^OPTION\("([\w.]+)"')],
    "coordd-protocol.7": [("src/api/methods.def", r"^METHOD\((\w+),"), ("src/base/err.def", r'^ERR\(\w+, "(\w+)"')],
}


def rendered(page):
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", MAN / page],
        capture_output=True,
        text=True,
        env={**os.environ, "MANWIDTH": "400", "MANPAGER": "cat", "LC_ALL": "C.UTF-8"},
        check=True,
    )
    assert done.stderr == ""
    return re.sub(r".\x08", "", done.stdout)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_well_formed(page):
    done = subprocess.run(["mandoc", "-Tlint", "-W", "warning", MAN / page], capture_output=True, text=True)
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_all_that_the_tables_list(page):
    text = rendered(page)
    assert text.startswith(page.partition(".")[0].upper()) and "NAME" in text and "SEE ALSO" in text
    assert "`" not in re.sub(r"(?m)^ {7,}\$.*$|^ {10,}.*$", "", text).replace("`$(", "")
    for source, pattern in LISTED[page]:
        names = re.findall(pattern, (REPO / source).read_text(), re.MULTILINE)
        missing = [each for each in names if not re.search(rf"(?<![\w.]){re.escape(each)}(?!\w)", text)]
        assert names and not missing
