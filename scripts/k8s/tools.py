"""Where the fetched tools are: kubectl, the schemas, and the two Python packages, which this module makes
importable.

`scripts/setup.py tools` puts them there, pinned by sha256.
"""

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TOOLS = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    / "baton"
    / "tools"
    / "k8s-check"
)
KUBECTL = TOOLS / "kubectl"
SCHEMAS = TOOLS / "schemas"

if not KUBECTL.is_file():
    raise ModuleNotFoundError(f"{TOOLS} is missing: run `make tools`")
sys.path.insert(0, str(TOOLS / "python"))
