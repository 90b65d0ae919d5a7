"""`waypost check` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def check(*arguments: str, stdin: str = "", cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "waypost", "check", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )


def test_people_get_words_first(tmp_path: Path) -> None:
    done = check("cam@[192.168.1.20]", "user@10.0.0.5", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("cam@[192.168.1.20]: unknown\n  An address of a network this hub")
    assert "user@10.0.0.5: malformed" in done.stdout
    assert "Perhaps user@[10.0.0.5] was meant." in done.stdout
    assert "\x1b" not in done.stdout
    assert check("cam@[192.168.1.20]", cwd=tmp_path).returncode == 0


def test_the_configuration_says_what_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "waypost.toml").write_text('[networks]\ntrusted = ["loopback"]\n')
    done = check("--json", "cam@[192.168.1.20]", cwd=tmp_path)
    assert json.loads(done.stdout)["primary"] == "ip.private"


def test_controls_of_a_stranger_are_shown_not_obeyed(tmp_path: Path) -> None:
    done = check("a\x1b[31m@x.dev", cwd=tmp_path)
    assert "\x1b" not in done.stdout
    assert "a\\x1b[31m@x.dev: malformed" in done.stdout


def test_a_csv_file_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    rows = [f'"No {number}, x",user{number}@host{number % 7}.dev' for number in range(2_000)]
    (tmp_path / "in.csv").write_bytes(
        ("\ufeffname,email\r\n" + "\r\n".join(rows) + "\r\n").encode()
    )
    command = ("--file", "in.csv", "--output", "out.csv")
    done = check(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "2000 rows in out.csv" in done.stderr
    output = tmp_path / "out.csv"
    whole = output.read_bytes()
    os.truncate(output, len(whole) // 2)
    done = check(*command, cwd=tmp_path)
    assert "going on behind them" in done.stderr
    assert output.read_bytes() == whole
    assert check(*command, cwd=tmp_path).returncode == 0
    assert output.read_bytes() == whole


def test_a_pipe_of_lines(tmp_path: Path) -> None:
    done = check("--file", "-", stdin="a@x.dev\n\n b@[127.0.0.1] \n", cwd=tmp_path)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["input"] for one in found] == ["a@x.dev", "b@[127.0.0.1]"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name addresses"),
        (("a@x.dev", "--file", "-"), "name addresses"),
        (("a@x.dev", "--output", "o"), "go with --file"),
        (("--file", "-", "--column", "x"), "goes with a .csv file"),
        (("a@x.dev", "--depth", "deep"), "invalid choice"),
    ],
)
def test_usage(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = check(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    done = check("--file", "none.csv", cwd=tmp_path)
    assert (done.returncode, "none.csv: No such file" in done.stderr) == (1, True)
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    done = check("--file", "in.csv", "--column", "c", cwd=tmp_path)
    assert "there is no column 'c'; there are: a, b" in done.stderr
