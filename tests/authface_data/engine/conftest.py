"""Makes the module `stages` importable by the worker processes of these tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
