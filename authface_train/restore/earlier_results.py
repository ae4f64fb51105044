"""Results of earlier runs in an output folder: which exist, and whether they are the same.

A result that exists is not restored again. That is right only if it was made by the same model with
the same settings, which the record of the folder shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from authface_train.restore.output_folder import RECORD_FILE, OutputTarget, ResultNames
from authface_train.restore.sampling import Sampling
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.support.text import count_of, excerpt, to_storable

MODEL_STATE = "model_state"
"""Column of the record with `model_state`. Records of earlier versions lack it."""


def model_state(folder: Path) -> str:
    """Identifies the weights in a model folder, by the sizes and times of its files.

    A model that was trained again has another state; a folder that was renamed keeps it.

    Args:
        folder: A folder of diffusers, or a snapshot in the hub's cache.
    """
    if folder.parent.name == "snapshots":
        return folder.name  # the revision
    files = sorted(folder.rglob("*.safetensors"))
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return fingerprint(files=states)


def describe_settings(sampling: Sampling, *, seeds: int, upscale: int) -> dict[str, object]:
    """The settings that decide a result, by their names in the record.

    Args:
        sampling: Settings of the sampler.
        seeds: Number of seeds.
        upscale: Factor by which photographs are enlarged.
    """
    return {**asdict(sampling), "seeds": seeds, "upscale": upscale}


class EarlierResults:
    """The results that an output folder holds already.

    Args:
        target: Where results are written.
        known_aligned: Whether inputs are aligned faces; None if their landmarks decide that.
    """

    def __init__(self, target: OutputTarget, known_aligned: bool | None) -> None:
        self.target = target
        self.known_aligned = known_aligned
        self._rows = pd.DataFrame(columns=["input", "output"])
        record = target.folder / RECORD_FILE
        if target.file is None and record.is_file():
            rows = pd.read_parquet(record)
            self._rows = rows.drop_duplicates("output").set_index("output", drop=False)

    def find(self, inputs: Mapping[Path, ResultNames]) -> dict[Path, Path]:
        """Input files that have a result, and the path of the result in the folder.

        Args:
            inputs: Input files, and the names of their results.
        """
        found = {}
        for path, names in inputs.items():
            own_name = to_storable(path.name)
            for result in self.target.existing_results(path, names, self.known_aligned):
                # `a.png` may be the result of an `a.jpg` that was restored before `a.png` was there.
                key = to_storable(result.as_posix())
                is_known = key in self._rows.index and isinstance(self._rows["input"][key], str)
                if not is_known or Path(self._rows["input"][key]).name == own_name:
                    found[path] = result
                    break
        return found

    def check(
        self,
        results: Mapping[Path, Path],
        *,
        model: str,
        folder: Path | None,
        settings: Mapping[str, object],
    ) -> None:
        """Refuse results of another model or of other settings, and files of unknown origin.

        Args:
            results: Input files with a result, from `find`.
            model: The model as the user named it.
            folder: Its folder; None if it is not on this machine.
            settings: Settings of this run, from `describe_settings`.

        Raises:
            UserError: If the results cannot be taken for those of this run.
        """
        if self.target.file is not None:
            if results:
                raise UserError(f"{self.target.file} exists; --overwrite replaces it")
            return
        keys = [to_storable(result.as_posix()) for result in results.values()]
        unknown = [key for key in keys if key not in self._rows.index]
        if unknown:
            raise UserError(
                f"{self.target.folder} holds {count_of(len(unknown), 'file')} with names of "
                f"results that {RECORD_FILE} does not list (first: {excerpt(unknown[0], 80)}); "
                "use another --output, or --overwrite to replace them"
            )
        rows = self._rows.loc[keys]
        difference = self._find_difference(rows, model, folder, settings)
        if difference is not None:
            raise UserError(
                f"{self.target.folder} holds {count_of(len(rows), 'result')} of another run "
                f"({difference}); use another --output, or --overwrite to restore again"
            )

    def _find_difference(
        self,
        rows: pd.DataFrame,
        model: str,
        folder: Path | None,
        settings: Mapping[str, object],
    ) -> str | None:
        """The first difference to this run, such as "seed is 123 there and 5 now"."""
        state = None if folder is None else model_state(folder)
        for row in rows.to_dict("records"):
            earlier_state = row.get(MODEL_STATE)
            earlier_model = str(row.get("model", model))
            if isinstance(earlier_state, str) and state is not None:
                if earlier_state != state:
                    same_name = "; it has changed since" if earlier_model == model else ""
                    return f"their model is {excerpt(earlier_model, 80)}{same_name}"
            elif not _is_same_model(earlier_model, model):
                return f"their model is {excerpt(earlier_model, 80)}"
            for name, value in settings.items():
                earlier = row.get(name, value)
                # The result is that of the first seed; more seeds only measured more.
                is_enough = name == "seeds" and row.get(name, 1) >= settings[name]
                if earlier != value and not is_enough:
                    return f"{name} is {excerpt(str(earlier), 60)} there and {value} now"
        return None


def _is_same_model(earlier: str, model: str) -> bool:
    return earlier == model or Path(earlier).resolve() == Path(model).resolve()
