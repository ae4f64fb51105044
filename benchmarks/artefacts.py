"""How well each artefact measure separates degraded faces from clean ones.

    python benchmarks/artefacts.py

The faces and degradations are those of tests/authface_data/quality/test_artefacts.py; no measure
was tuned on them. For every strength of a degradation, the median score is printed, and the AUC
against the same faces without it: clean, two stops darker, and in flat light. An AUC of 0.5 is
chance, 1.0 perfect separation.
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

from degradations import DEGRADATIONS, auc, darken, downscale, flatten_light  # noqa: E402
from public_faces import held_out_crops  # noqa: E402

from authface_data.quality import ARTEFACTS  # noqa: E402


def main() -> None:
    """Print the scores and the AUC of every measure."""
    crops = list(held_out_crops().values())
    print(f"{len(crops)} faces; {os.cpu_count()} cores")
    for name, degradations in DEGRADATIONS.items():
        score = import_module(ARTEFACTS[name]).score
        faces = [downscale(crop, 256) for crop in crops] if name == "detail" else crops

        started = time.perf_counter()
        clean = [score(crop) for crop in faces]
        seconds_per_face = (time.perf_counter() - started) / len(faces)
        hard_negatives = [
            score(change(crop)) for crop in faces for change in (darken, flatten_light)
        ]
        print(
            f"{name}: clean {np.median(clean):.2f}, lowest {min(clean):.2f}; "
            f"{1000 * seconds_per_face:.1f} ms a face"
        )

        for degrade, strengths in degradations:
            results = []
            for strength in strengths:
                degraded = [score(degrade(crop, strength)) for crop in faces]
                separation = auc(degraded, [*clean, *hard_negatives])
                results.append(f"{strength:g}: {np.median(degraded):.2f}, AUC {separation:.3f}")
            print(f"  {degrade.__name__} " + "; ".join(results))


if __name__ == "__main__":
    main()
