"""Reasons of verdicts in a photographer's words, such as "face too small: 174 px, 224 needed".

Verdicts store a reason as a rule, `qsize_px < 224`. The review page, the report, the review table
and `authface explain` show the words of this module; pages show the rule in a tooltip.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SEPARATOR = "; "
"""Separates the reasons of several gates in the verdict of all gates."""
MAX_EXTRA_DIGITS = 3
"""Digits that are added to a value that would look equal to its threshold."""

_RULE = re.compile(r"(?P<metric>\S+) (?P<op><=|>=|<|>|!=) (?P<threshold>[-+]?[\d.]+(?:e[-+]?\d+)?)")
_BEST = re.compile(r"not among the best (?P<count>\d+) by (?P<metric>\S+)")
_UNKNOWN = re.compile(r"no (?P<metric>\S+)")
_DETAILED = re.compile(r"(?P<kind>[^:]+):\s*(?P<detail>.*)", re.DOTALL)

REASON_LABELS = {
    "undecodable": "undecodable file",
    "too large": "picture that would take too much memory",
    "duplicate_of": "duplicate of another photograph",
    "duplicate_face_of": "duplicate of another face",
    "excluded": "on the list of --exclude-hashes",
    "bad row": "bad row",
    "too_large": "too large",
    "not_square": "not square, in a set of aligned faces",
    "too_small": "too small, in a set of aligned faces",
    "other_size": "another size than most of the set",
    "not_aligned": "landmarks not where FFHQ's alignment puts them",
    "NoTags": "the model gave no tags",
}
"""Labels of reasons that have details after a colon, such as the id of another photograph."""
WHOLE_REASONS = {"no_face": "no face found", "nothing_found": "no face found"}
"""Labels of reasons without details."""


@dataclass(frozen=True)
class Wording:
    """Words for one measurement.

    Attributes:
        noun: What is measured.
        low: What is wrong with a face below the threshold.
        high: What is wrong with a face above the threshold.
        unit: Unit of the shown values, with the blank before it.
        scale: Factor from stored to shown values.
        digits: Decimals of shown values.
    """

    noun: str
    low: str = ""
    high: str = ""
    unit: str = ""
    scale: float = 1.0
    digits: int = 2


def _percent(noun: str, *, low: str = "", high: str = "") -> Wording:
    return Wording(noun, low=low, high=high, unit=" %", scale=100, digits=0)


def _angle(noun: str, *, low: str, high: str) -> Wording:
    return Wording(noun, low=low, high=high, unit="°", digits=0)


def _flag(noun: str, wrong: str) -> Wording:
    return Wording(noun, low=wrong, high=wrong, digits=0)


_POOR = "poor overall picture quality"
_SIDEWAYS = "head turned too far to the side"
_UP_OR_DOWN = "head too far up or down"
_TILT = "head tilted too far"
_ENLARGED = "face enlarged from a small picture"

WORDINGS: Mapping[str, Wording] = {
    "qsize_px": Wording(
        "face size", low="face too small", high="face too large", unit=" px", digits=0
    ),
    "pad_fraction": _percent("area outside the photograph", high="face cut off by the edge"),
    "interocular_px": Wording(
        "distance between the eyes", low="eyes too close together in pixels", unit=" px", digits=0
    ),
    "head_pad_fraction": _percent(
        "part of the head outside the photograph", high="head cut off by the edge"
    ),
    "face_presence": Wording("certainty of a face", low="not clearly a human face"),
    "score": Wording("detector score", low="face not clearly visible"),
    "upscaled": _flag("enlargement", _ENLARGED),
    "yaw_deg": _angle("turn of the head", low=_SIDEWAYS, high=_SIDEWAYS),
    "abs_yaw_deg": _angle("turn of the head", low="head not turned enough", high=_SIDEWAYS),
    "pitch_deg": _angle("pitch of the head", low="face looks down", high="face looks up"),
    "abs_pitch_deg": _angle("pitch of the head", low="head too level", high=_UP_OR_DOWN),
    "roll_deg": _angle("tilt of the head", low=_TILT, high=_TILT),
    "abs_roll_deg": _angle("tilt of the head", low="head not tilted enough", high=_TILT),
    "left_eye_visible": _flag("left eye", "left eye hidden"),
    "right_eye_visible": _flag("right eye", "right eye hidden"),
    "mouth_visible": _flag("mouth", "mouth hidden"),
    "visible_regions": _flag("visible eyes and mouth", "an eye or the mouth hidden"),
    "faces_in_photo": Wording("faces in the photograph", high="too many faces", digits=0),
    "rank_in_photo": Wording(
        "place by size in the photograph", high="not the main face of the photograph", digits=0
    ),
    "pepper": Wording("freedom from salt-and-pepper noise", low="salt-and-pepper noise"),
    "noise": Wording("freedom from noise", low="noisy"),
    "sharpness": Wording("sharpness", low="not sharp"),
    "relative_sharpness": _percent(
        "sharpness compared with the photograph's sharpest face",
        low="less sharp than another face in the photograph",
    ),
    "skin": Wording("skin texture", low="skin smoothed by retouching"),
    "jpeg": Wording("freedom from JPEG blocks", low="JPEG blocks"),
    "banding": Wording("freedom from banding", low="banding in smooth areas"),
    "exposure": Wording("exposure", low="highlights or shadows clipped"),
    "detail": Wording("fine detail", low=_ENLARGED),
    "photographic": Wording("likeness to a photograph", low="not a photograph"),
    "lightness": Wording("lightness of the face", low="face too dark", high="face too bright"),
    "light": Wording("light from the side", low="lit from the left", high="lit from the right"),
    "skin_tone": Wording("skin tone", unit="°", digits=0),
    "musiq": Wording("overall quality by MUSIQ", low=_POOR, digits=0),
    "piqe": Wording("overall quality by PIQE (lower is better)", high=_POOR, digits=0),
    "niqe": Wording("overall quality by NIQE (lower is better)", high=_POOR, digits=1),
    "brisque": Wording("overall quality by BRISQUE (lower is better)", high=_POOR, digits=0),
}
"""Measurement -> its words. Other measurements are shown by name."""


@dataclass(frozen=True)
class Reason:
    """Why a face or photograph was dropped.

    Attributes:
        text: The reason in a photographer's words.
        rule: The gate and the stored reason, for a tooltip.
    """

    text: str
    rule: str


def wording_of(metric: str) -> Wording:
    """The words for a measurement. Those of an unknown one contain its name."""
    return WORDINGS.get(metric) or Wording(
        metric, low=f"{metric} too low", high=f"{metric} too high"
    )


def describe_verdict(row: Mapping[str, object]) -> Reason:
    """Describe why a verdict dropped or failed its subject.

    Args:
        row: Row of `verdicts`, with the columns gate, reason, value and threshold.
    """
    reason = str(row["reason"] or "")
    value, threshold = row["value"], row["threshold"]
    text = describe_reason(
        reason,
        value=value if isinstance(value, float) else None,
        threshold=threshold if isinstance(threshold, float) else None,
    )
    return Reason(text, f"{row['gate']}: {reason}" if reason else str(row["gate"]))


def describe_reason(reason: str, value: float | None = None, threshold: float | None = None) -> str:
    """Put a stored reason in a photographer's words.

    Args:
        reason: The reason of one gate, such as "qsize_px < 224".
        value: The measured value, if known.
        threshold: The value that was needed, for reasons that do not contain it.

    Returns:
        One line without a full stop. A reason that this module does not know stays as it is.
    """
    if rule := _parse_rule(reason):
        return rule.describe(value)
    if best := _BEST.fullmatch(reason):
        wording = wording_of(best["metric"])
        text = f"not among the {best['count']} best by {wording.noun}"
        if value is None or threshold is None:
            return text
        limit = f"{threshold * wording.scale:g}"
        return f"{text}: {_format_value(wording, value, float(limit))}, {limit} needed"
    if unknown := _UNKNOWN.fullmatch(reason):
        return f"{wording_of(unknown['metric']).noun} not measured"
    if detailed := _DETAILED.fullmatch(reason):
        label = REASON_LABELS.get(detailed["kind"], detailed["kind"])
        return f"{label}: {detailed['detail']}"
    return WHOLE_REASONS.get(reason, reason)


def summarise_reason(reason: str | None) -> str:
    """Remove the details of a reason that differ from row to row, so that it can be counted."""
    kind, colon, _ = str(reason).partition(":")
    return REASON_LABELS.get(kind, str(reason)) if colon else str(reason)


def describe_joined_reasons(
    reasons: pa.ChunkedArray, values_of: Callable[[str], np.ndarray]
) -> pa.Array:
    """Put the reasons of many faces in a photographer's words.

    Args:
        reasons: (n,) string, the reasons of each face joined by `SEPARATOR`; null for none.
        values_of: Measurement -> (n,) float64, NaN where the value is unknown.

    Returns:
        (n,) string; "" for a face without reasons.
    """
    lists = pc.split_pattern(pc.fill_null(reasons, ""), SEPARATOR).combine_chunks()
    rows = lists.value_parent_indices().to_numpy()
    parts = lists.flatten().dictionary_encode()
    # Faces with the same reason follow each other in this order.
    order = np.argsort(parts.indices.to_numpy(), kind="stable")
    counts = np.bincount(parts.indices.to_numpy(), minlength=len(parts.dictionary))
    texts: list[str] = []
    stops = np.cumsum(counts)
    for reason, start, stop in zip(
        parts.dictionary.to_pylist(), stops - counts, stops, strict=True
    ):
        rule = _parse_rule(reason)
        if rule is None:
            texts += [describe_reason(reason)] * (stop - start)
        else:
            texts += rule.describe_all(values_of(rule.metric)[rows[order[start:stop]]])

    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    described = pa.array(texts, pa.string()).take(pa.array(places))
    return pc.binary_join(pa.ListArray.from_arrays(lists.offsets, described), SEPARATOR)


@dataclass(frozen=True)
class _Rule:
    """A rule that dropped values satisfy, in words.

    Attributes:
        metric: The measurement.
        wording: Its words.
        problem: What is wrong.
        limit: The threshold in the unit that is shown.
        has_value: Whether the value is shown; that of a flag is not.
        needs_more: Whether values must be above the threshold, or equal it.
    """

    metric: str
    wording: Wording
    problem: str
    limit: str
    has_value: bool
    needs_more: bool

    def describe(self, value: float | None) -> str:
        """The problem, the value if it is known, and what is needed."""
        if not self.has_value:
            return self.problem
        unit = self.wording.unit
        if value is None:
            return (
                f"{self.problem}: {self.limit}{unit} {'needed' if self.needs_more else 'at most'}"
            )
        needed = f"{self.limit} needed" if self.needs_more else f"{self.limit}{unit} at most"
        return f"{self.problem}: {_format_value(self.wording, value, float(self.limit))}, {needed}"

    def describe_all(self, values: np.ndarray) -> list[str]:
        """Describe many values.

        Args:
            values: (n,) float64, NaN where the value is unknown.
        """
        shown = tuple((values * self.wording.scale).tolist())
        rounded = (" ".join([f"%.{self.wording.digits}f"] * len(shown)) % shown).split()
        # Most values are equal once they are rounded; one that equals the limit has more digits.
        described: dict[str, str] = {}
        texts = []
        for number, value in zip(rounded, values.tolist(), strict=True):
            text = described.get(number)
            if text is None:
                text = self.describe(value if math.isfinite(value) else None)
                if float(number) != float(self.limit):
                    described[number] = text
            texts.append(text)
        return texts


@functools.lru_cache(maxsize=1024)
def _parse_rule(reason: str) -> _Rule | None:
    """Parse a reason such as "qsize_px < 224"; None if it is another one."""
    match = _RULE.fullmatch(reason)
    if match is None:
        return None
    metric = match["metric"]
    wording = wording_of(metric)
    is_low = match["op"].startswith("<")
    is_other = match["op"] == "!="
    problem = wording.low if is_low else wording.high
    if is_other:
        problem = wording.low or wording.high
    return _Rule(
        metric=metric,
        wording=wording,
        problem=problem or f"{wording.noun} too {'low' if is_low else 'high'}",
        limit=f"{float(match['threshold']) * wording.scale:g}",
        # Of a flag or a count, a gate allows one value.
        has_value=not (is_other and metric in WORDINGS and not wording.digits and not wording.unit),
        needs_more=is_low or is_other,
    )


def _format_value(wording: Wording, value: float, limit: float) -> str:
    """A value with its unit, with enough digits to differ from the limit in the same unit."""
    shown = value * wording.scale
    for digits in range(wording.digits, wording.digits + MAX_EXTRA_DIGITS + 1):
        text = f"{shown:.{digits}f}"
        if float(text) != limit:
            break
    return f"{text}{wording.unit}"


def format_score(metric: str, value: float) -> str:
    """A value with its unit, such as "174 px"; three significant digits without one.

    Args:
        metric: The measurement.
        value: Its value in the unit that is stored.
    """
    wording = WORDINGS.get(metric)
    if wording is None or not wording.unit:
        return f"{value:.3g}"
    return f"{value * wording.scale:.{wording.digits}f}{wording.unit}"
