"""Fetching memory before a run."""

from __future__ import annotations

import os

import pytest

from bench.pages import fetch_pages


class FetchPagesTests:
    def test_fetches(self) -> None:
        """As much is fetched as was asked for."""
        assert fetch_pages(1 << 20) == 1 << 20

    def test_keeps_within_the_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Never more than half of what is free, whatever a run needs: nobody else is to be pushed out."""
        free = {"SC_AVPHYS_PAGES": 600, "SC_PAGE_SIZE": 4096}
        monkeypatch.setattr(os, "sysconf", lambda name: free[name])
        assert fetch_pages(1 << 40) == 300 * 4096
