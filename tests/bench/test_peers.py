from __future__ import annotations

import json

import pytest

from tinyres import records
from tinyres.bench.studies import peers
from tinyres.export.artifact import Exported


@pytest.mark.slow
@pytest.mark.parametrize("backend", peers.COMPARED)
def test_the_same_file_is_measured_by_each_tool_in_turns(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(peers, "ROUNDS", 2)
    monkeypatch.setattr(peers, "BLOCK_S", 0.05)
    monkeypatch.setattr(peers, "PAIRS", 50)
    figures = peers.compare(exported.path, backend, 4, threads=1)
    names = ["tinyres bench", "a bare loop", "torch.utils.benchmark", "benchmark_app"]
    assert [figure.measured_by for figure in figures] == names[: 4 if backend == "openvino" else 3]
    for figure in figures:
        assert len(figure.blocks_ms) == 2
        assert 0 < figure.median_ms < 100
        assert (figure.ratio is None) == (figure.measured_by == "tinyres bench")
    found = peers.overhead(exported.path, backend, threads=1)
    assert found.share is not None
    assert -0.5 < found.share.low <= found.share.value <= found.share.high < 1
    assert json.loads(records.to_json({"figures": figures, "overheads": [found]}))
