"""How well each artefact measure tells spoilt faces from clean ones, on photographs that none was tuned on.

    python benchmarks/artefacts.py

The faces and degradations are those of tests/authface_data/quality/test_artefacts.py. For every degree: the median score, and
the AUC against the same faces clean, two stops darker, and in flat light (.5 is a guess, 1.0 tells all apart).
"""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from authface_data.weights import cache_dir  # noqa: E402

os.environ["AUTHFACE_CACHE"] = str(cache_dir())

from degradations import SPOILS, at_night, in_soft_light, reduced, separation  # noqa: E402
from public_faces import held_out_crops  # noqa: E402

from authface_data.quality import ARTEFACTS  # noqa: E402


def main() -> None:
    crops = list(held_out_crops().values())
    print(f"{len(crops)} faces; {os.cpu_count()} cores")
    for name, kinds in SPOILS.items():
        score = import_module(ARTEFACTS[name]).score
        faces = [reduced(crop, 256) for crop in crops] if name == "detail" else crops
        started = time.perf_counter()
        clean = [score(crop) for crop in faces]
        each = (time.perf_counter() - started) / len(faces)
        hard = [score(kind(crop)) for crop in faces for kind in (at_night, in_soft_light)]
        print(
            f"{name}: clean {np.median(clean):.2f}, lowest {min(clean):.2f}; {1000 * each:.1f} ms a face"
        )
        for spoil, degrees in kinds:
            told = []
            for degree in degrees:
                spoilt = [score(spoil(crop, degree)) for crop in faces]
                told.append(
                    f"{degree:g}: {np.median(spoilt):.2f}, AUC {separation(spoilt, [*clean, *hard]):.3f}"
                )
            print(f"  {spoil.__name__} " + "; ".join(told))


if __name__ == "__main__":
    main()
