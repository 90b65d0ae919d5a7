"""The configuration and the command lines of docs/how-to/post-to-mail.md do what the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

from tests.support.hub import Hub
from tests.support.ports import free_port
from waypost.config.load import load_settings

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "post-to-mail.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """What stands in the page's blocks of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def token_in(block: str) -> str:
    """The token of a block's one table."""
    [(_, tables)] = tomllib.loads(block).items()
    [table] = tables.values()
    token: str = table["token"]
    return token


def test_the_configuration_is_one(tmp_path: Path) -> None:
    file = tmp_path / "waypost.toml"
    file.write_text("\n".join(blocks("toml")), "utf-8")
    settings = load_settings(file, tmp_path, {})
    assert [hook.name for hook in settings.inbound] == ["grafana", "repo", "depot"]


def test_every_line_runs(tmp_path: Path) -> None:
    http, api, grafana, *_ = blocks("toml")
    assert "2580" in http
    port = free_port()
    lines = blocks("sh")
    assert len(lines) == 5
    (tmp_path / "scan.txt").write_text("a page\n" * 100)
    config = f'[http]\nbind = ["127.0.0.1:{port}"]\n{api}\n{grafana}'
    config = config.replace("192.168.1.5", "127.0.0.1")
    with Hub(tmp_path / "hub", config) as hub:
        for script in lines:
            token = token_in(grafana if "/hook/" in script else api)
            done = subprocess.run(
                ["sh", "-c", script.replace("curl", "curl -sS").replace("2580", str(port))],
                capture_output=True,
                env={**os.environ, "TOKEN": token},
                cwd=tmp_path,
                timeout=30,
                check=True,
            )
            answer = json.loads(done.stdout)
            assert answer.get("id") or answer.get("status") == "ok", answer
        assert len(hub.wait_for_mail("alerts", 4)) == 4
