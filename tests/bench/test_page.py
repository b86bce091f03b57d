"""The documentation's page of results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import page
from bench.page import BLOCKS, FAIRNESS_BLOCKS, PAGE, SCALE_BLOCKS, Measured, committed, fill
from bench.results import Results
from bench.workload import CPU, RATE
from bench.workload import Measured as MeasuredRun
from tests.bench.samples import FakeWorkload, target


def _results(rate: float) -> Results:
    results = Results({"cores": "2"}, {"rounds": 1, "warm": 1, "seconds": 2})
    ours = target("dstreams", ours=True)
    results.know(FakeWorkload(), ours)
    results.add("append", ours.key, 1, MeasuredRun({RATE.key: rate, CPU.key: 1.0}))
    return results


def _page() -> str:
    names = [*BLOCKS, *SCALE_BLOCKS, *FAIRNESS_BLOCKS]
    marks = (f"## {name}\n\n<!-- results: {name} -->\nof yore\n<!-- end -->\n" for name in names)
    return "\n".join(marks)


class FillTests:
    def test_filled(self) -> None:
        """Results stand between the marks, in place of what was there, and what isn't measured says so."""
        text = fill(_page(), Measured(_results(123), None))
        assert "| append: 256 B |" in text
        assert "- cores: 2" in text
        assert "of yore" not in text
        assert text.count("*Not measured yet.*") >= len(SCALE_BLOCKS) + len(FAIRNESS_BLOCKS)
        assert "## requests" in text

    def test_again(self) -> None:
        """Filling a page twice changes nothing more."""
        measured = Measured(_results(123), _results(5))
        text = fill(_page(), measured)
        assert fill(text, measured) == text

    def test_unknown_mark(self) -> None:
        """A mark that nothing is known of is a mistake, and so is one that is missing."""
        with pytest.raises(ValueError, match="nonsense"):
            fill(_page().replace("results: aims", "results: nonsense"), Measured(None, None))
        with pytest.raises(ValueError, match="aims"):
            fill(_page().replace("<!-- results: aims -->", ""), Measured(None, None))


class MainTests:
    def test_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """The results that the page shows are kept beside it."""
        monkeypatch.setattr(page, "PAGE", tmp_path / "performance.md")
        monkeypatch.setattr(page, "FILES", tmp_path / "performance")
        monkeypatch.setattr(page, "ROOT", tmp_path)
        (tmp_path / "performance.md").write_text(_page())
        _results(77).save(tmp_path / "given.json")
        arguments = ["page", "--comparison", str(tmp_path / "given.json"), "--scale", str(tmp_path / "given.json")]
        monkeypatch.setattr("sys.argv", arguments)
        assert page.main() == 0
        assert json.loads((tmp_path / "performance" / "results.json").read_text())["runs"]
        assert "77.0" in (tmp_path / "performance.md").read_text()
        assert "performance.md" in capsys.readouterr().out

    def test_no_results(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A file that isn't there is told in one line."""
        monkeypatch.setattr("sys.argv", ["page", "--comparison", str(tmp_path / "nothing.json")])
        assert page.main() == 1
        assert "nothing.json" in capsys.readouterr().err


class DocumentationTests:
    def test_current(self) -> None:
        """The page shows the results that lie beside it."""
        text = PAGE.read_text()
        assert fill(text, committed()) == text
