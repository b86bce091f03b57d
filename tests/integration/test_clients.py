"""The official clients against a real server."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest
from durable_streams import DurableStream, stream

from tests.conformance.suite import missing
from tests.support.servers import twistd_server

HERE = Path(__file__).resolve().parent

CLIENT_SECONDS = 90
"""How long the whole conversation may take."""


@pytest.mark.slow
def test_typescript_client(tmp_path: Path) -> None:
    """The official TypeScript client creates, appends, reads, follows by long-poll and SSE, and deletes."""
    why = missing()
    if why is not None:
        pytest.skip(f"the TypeScript client was left out: {why}")
    with twistd_server(tmp_path) as server:
        finished = subprocess.run(
            ["node", str(HERE / "official_client.mjs"), server.url],
            capture_output=True,
            check=False,
            timeout=CLIENT_SECONDS,
        )
    assert finished.returncode == 0, finished.stderr.decode()
    seen = json.loads(finished.stdout)
    expected = [{"n": n} for n in range(21)]
    assert seen == {
        "polled": expected,
        "pushed": expected,
        "read": "grüße 🌍",
        "contentType": "text/plain",
        "gone": 404,
    }


@pytest.mark.slow
@pytest.mark.parametrize("live", ["long-poll", "sse"])
def test_python_client(tmp_path: Path, live: str) -> None:
    """The Python client of the index creates, appends, reads, and follows what is appended meanwhile."""
    with twistd_server(tmp_path) as server:
        url = f"{server.url}/v1/stream/python"
        seen: list[object] = []

        def follow() -> None:
            with stream(url, offset="-1", live=live) as response:
                for item in response.iter_json():
                    seen.append(item)
                    if len(seen) == 10:
                        return

        with DurableStream.create(url, content_type="application/json") as handle:
            handle.append({"n": 0})
            follower = threading.Thread(target=follow, daemon=True)
            follower.start()
            for n in range(1, 10):
                handle.append({"n": n})
            follower.join(CLIENT_SECONDS)
            with stream(url, live=False) as response:
                assert response.read_json() == [{"n": n} for n in range(10)]
            assert handle.head().content_type == "application/json"
        assert seen == [{"n": n} for n in range(10)]
