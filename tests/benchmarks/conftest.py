"""Puts the repository on the path, so that `benchmarks` imports as it does for its scripts."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
