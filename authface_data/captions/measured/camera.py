"""Lens, aperture and ISO from EXIF, as they stand."""

from __future__ import annotations

from authface_data.captions.measured.measurement import FaceCrop, Measurement


def measure(face: FaceCrop) -> list[Measurement]:
    def value(name: str) -> float:
        return float(face.row.get(name) or 0)  # lenses without contacts write 0

    said = [
        (value("focal_length_mm"), f"{value('focal_length_mm'):.0f}mm lens"),
        (value("aperture"), f"f/{round(value('aperture'), 1):g}"),
        (value("iso"), f"ISO {value('iso'):.0f}"),
    ]
    return [Measurement("camera", tag, number, 1.0) for number, tag in said if number > 0]
