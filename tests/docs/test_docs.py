"""The documentation is as the code is: generated pages, links, configuration, command lines."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from waypost.cli import build_parser
from waypost.config.load import load_settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_SHELL = {"sh", "console"}
# What ends one command of a line.
_BETWEEN = re.compile(r"[|;&<>()]+")
_RUNNERS = {"sudo", "-u", "authbind", "--deep", "exec"}


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of each fenced block."""
    for indent, language, content in _FENCE.findall(text):
        lines = content.splitlines()
        yield language, "\n".join(line.removeprefix(indent) for line in lines) + "\n"


def anchors(page: Path) -> set[str]:
    """What may stand behind # in a link to this page."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in _HEADING.findall(text)
    }


def commands(content: str) -> Iterator[list[str]]:
    """The arguments of each waypost command in a shell block."""
    prompts = content.startswith("$ ")
    for line in content.replace("\\\n", " ").splitlines():
        if prompts and not line.startswith("$ "):
            continue  # output
        if not re.search(r"(?:^|/|\s)waypost(?:\s|$)", line):
            continue
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if _BETWEEN.fullmatch(word) is None:
                words.append(word)
                continue
            yield from _of_waypost(words)
            words = []


def _of_waypost(words: list[str]) -> Iterator[list[str]]:
    """What stands behind the program's name, if it is what these words run."""
    while words and (words[0] in _RUNNERS or "=" in words[0]):
        # "-u" takes the name of a user, which may be waypost too.
        words = words[2:] if words[0] == "-u" else words[1:]
    if words and (words[0] == "waypost" or words[0].endswith("/bin/waypost")):
        yield words[1:]


def test_generated_pages_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    text = _CODE.sub("", _FENCE.sub("", page.read_text("utf-8")))
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_configuration_loads(page: Path, tmp_path: Path) -> None:
    for number, (language, content) in enumerate(blocks(page.read_text("utf-8"))):
        if language == "toml":
            file = tmp_path / f"{number}.toml"
            file.write_text(content, "utf-8")
            load_settings(file, tmp_path / "data", {})


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_command_lines_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = build_parser()
    for language, content in blocks(page.read_text("utf-8")):
        if language not in _SHELL:
            continue
        for arguments in commands(content):
            status: object = 0
            try:
                parser.parse_args(arguments)
            except SystemExit as end:
                status = end.code
            said = capsys.readouterr().err
            assert status == 0, f"{page.name}: waypost {shlex.join(arguments)}: {said}"


def test_blocks_and_commands_are_found() -> None:
    text = "$ sudo -u waypost A=1 /opt/bin/waypost queue list\n$ df | waypost send --body 'a b'\n"
    found = list(commands(text))
    assert found == [["queue", "list"], ["send", "--body", "a b"]]
    all_blocks = [block for page in PAGES for block in blocks(page.read_text("utf-8"))]
    assert sum(language == "toml" for language, _ in all_blocks) > 15
    assert (
        sum(1 for language, content in all_blocks if language in _SHELL for _ in commands(content))
        > 50
    )


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text("utf-8")
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in _LINK.findall(index)}
    missing = [
        name
        for page, name in zip(PAGES, NAMES, strict=True)
        if page not in linked
        and page.is_relative_to(DOCS)
        and page.name != "index.md"
        and page.parent.name != "decisions"
    ]
    assert not missing
