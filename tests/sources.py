"""The source files of the package and of its tests: each is read, parsed and walked once for all rules about them."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
GAUGES = runpy.run_path(str(ROOT / "tools" / "gauges.py"))
text_of, tree_of, nodes_of = (GAUGES[name] for name in ("text_of", "tree_of", "nodes_of"))
