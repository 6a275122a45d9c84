"""Tercet side by side with mem0, LanceDB hybrid and plain SQLite FTS5: `python benchmarks/peers.py --help`.

The work is done by `benchmarks/peers/compare.py`.
"""

import sys
from pathlib import Path

# The folder of the same name holds the parts, so that `benchmarks.peers.driver` is found in it.
__path__ = [str(Path(__file__).with_suffix(""))]

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.peers.compare import main

    sys.exit(main())
