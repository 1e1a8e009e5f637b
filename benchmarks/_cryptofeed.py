"""cryptofeed's own playback of its own Kraken sample, in an environment of its own: no part of this project needs it.

The environment is made once under .tools (removed by `make distclean`), from the package index that pip is set up with.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = "2.4.1"
ENVIRONMENT = ROOT / ".tools" / f"cryptofeed-{VERSION}"
SAMPLE = ROOT.parent / "shared" / "data" / "kraken" / "cryptofeed" / "v2format"
INSTALL_S = 300
PLAY_S = 120

PLAY = """
import json, logging, sys, time
logging.disable(logging.CRITICAL)
from cryptofeed.defines import L2_BOOK, TICKER, TRADES
from cryptofeed.raw_data_collection import playback
from cryptofeed.symbols import Symbols

async def take(*_): pass

rates = []
for _ in range(int(sys.argv[1])):
    Symbols.clear()
    began = time.process_time()
    done = playback("KRAKEN", sys.argv[2:], callbacks={L2_BOOK: take, TRADES: take, TICKER: take})
    rates.append(done["messages_processed"] / (time.process_time() - began))
print(json.dumps(rates))
"""


class NotHere(Exception):
    """It cannot be run; the message says why."""


def prepare() -> Path:
    """The Python that has it. Raises NotHere."""
    if not SAMPLE.is_dir():
        raise NotHere("its sample is not beside the checkout (../shared/data/kraken)")
    python = ENVIRONMENT / "bin" / "python"
    if (ENVIRONMENT / "installed").exists():
        return python
    base = str(Path(sys.base_prefix) / "bin" / "python3")
    try:
        for command in (
            [base, "-m", "venv", "--without-pip", "--clear", str(ENVIRONMENT)],
            [base, "-m", "pip", "--python", str(python), "install", "-q", f"cryptofeed=={VERSION}"],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise NotHere(f"cryptofeed {VERSION} cannot be installed: {said[-1] if said else error}") from error
    (ENVIRONMENT / "installed").touch()
    return python


def play(python: Path, times: int) -> list[float]:
    """Messages a CPU second, of each of `times` playbacks. Raises NotHere."""
    files = sorted(str(path) for path in SAMPLE.glob("KRAKEN.*"))
    try:
        done = subprocess.run(
            [str(python), "-c", PLAY, str(times), *files],
            check=True, capture_output=True, text=True, timeout=PLAY_S, cwd=ENVIRONMENT,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise NotHere(f"its playback failed: {error}") from error
    rates: list[float] = json.loads(done.stdout.splitlines()[-1])
    return rates
