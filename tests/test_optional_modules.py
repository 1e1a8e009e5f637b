import importlib
import sys
import threading
from pathlib import Path

import pytest

from ssmd.optional_modules import without


def test_a_module_is_hidden_from_one_thread_for_one_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seldom_wanted.py").write_text("HELD = 7\n")
    (tmp_path / "also_there.py").write_text("HELD = 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    found: list[int] = []
    with without("seldom_wanted"):
        with pytest.raises(ImportError, match="seldom_wanted is hidden from this import"):
            importlib.import_module("seldom_wanted")
        assert importlib.import_module("also_there").HELD == 8
        other = threading.Thread(target=lambda: found.append(importlib.import_module("seldom_wanted").HELD))
        other.start()
        other.join()
        # It is loaded now: nothing is taken away.
        assert importlib.import_module("seldom_wanted").HELD == 7
    assert found == [7]
    for name in ("seldom_wanted", "also_there"):
        monkeypatch.delitem(sys.modules, name)
    assert importlib.import_module("seldom_wanted").HELD == 7
    monkeypatch.delitem(sys.modules, "seldom_wanted")
