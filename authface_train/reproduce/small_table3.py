"""Table 3 at small scale: Stage I without captions, with semantic, photographic and all tags.

Photographic tags are measured. Semantic tags come from `small_semantic_tags.csv`, labelled by eye:
hair, facial hair, accessories and background. The text encoders are random, so a caption is only
a code that differs from other captions.

Two things are measured on people who are not in the training set:

* The noise loss with the own caption, with another person's caption and without a caption. The
  timesteps and the noise of a face are the same for all models.
* The recall of tags in generated pictures. The captioner `measured` describes the pictures, and the
  result is compared with the caption that they were generated from, and with other captions.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from PIL import Image

from authface_train.data.crops import load_crop
from authface_train.data.prompts import Embedding, cached_prompts, time_ids
from authface_train.data.sample_keys import torch_generator
from authface_train.evaluation.intervals import bootstrap_interval
from authface_train.reproduce import small_models
from authface_train.reproduce.paper_runs import PAPER_TABLE3
from authface_train.reproduce.small_data import LICENCE_BASIS, SETTINGS
from authface_train.reproduce.small_settings import NO_PICTURES, SIZE_PX, training_settings
from authface_train.reproduce.small_views import with_copies
from manifests.captions import caption_text
from manifests.run_folder import is_finished
from manifests.schema import CAPTIONS
from manifests.settings import SETTINGS_FILE
from manifests.store import Store
from manifests.support.console import run_command
from manifests.support.errors import UserError
from manifests.support.files import write_json
from manifests.verdicts import kept_faces
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

    from authface_train.reproduce.small_runs import Experiment

SEMANTIC_FILE = Path(__file__).with_name("small_semantic_tags.csv")
VARIANTS = {
    "none": "no captions",
    "semantic": "semantic tags",
    "photographic": "photographic tags",
    "both": "semantic and photographic tags",
}
COMPARED = (
    ("semantic", "none"),
    ("photographic", "none"),
    ("both", "none"),
    ("both", "semantic"),
    ("photographic", "semantic"),
)
RESULTS = "table3"
"""Folder of the results, inside that of the experiment."""
NOISE_LEVELS = 10
"""Timesteps per face at which the loss is measured."""
DRAWN = 40
"""Pictures that a model generates."""
DRAW_STEPS = 20
GUIDANCE = 3.0
ENLARGED_PX = 256
"""Side at which the captioner sees the pictures."""
SHARES = (0.04, 0.9)
"""A tag counts if this share of the training faces has it; others say little."""
METADATA_TAG = re.compile(r"\d|lens")
"""Tags of the camera, which no picture shows."""


def run_table3(experiment: Experiment, seeds: list[int]) -> str:
    """Train and measure all variants that the experiment does not hold yet.

    Args:
        experiment: The experiment.
        seeds: Seeds of the trainings.

    Returns:
        The table in Markdown.
    """
    results = experiment.folder / RESULTS
    for seed in seeds:
        for variant in VARIANTS:
            file = results / f"{variant}-{seed}.json"
            if not file.is_file():
                folder = _train(experiment, variant, seed)
                write_json(file, _measure(experiment, folder, variant, seed))
    return report(results)


def captioned_view(experiment: Experiment, split: str, variant: str) -> pd.DataFrame:
    """The training view of a split with the captions of a variant.

    Args:
        experiment: The experiment.
        split: "train", "val" or "test".
        variant: One of `VARIANTS`.

    Returns:
        One row per face with its `tags` and `caption`.
    """
    view = experiment.view(split, "photographic").reset_index(drop=True)
    semantic = _semantic_tags(view)
    tags: list[list[str]] = []
    for index, photographic in enumerate(view["tags"]):
        chosen = semantic[index] if variant in ("semantic", "both") else []
        if variant in ("photographic", "both"):
            chosen = [*chosen, *(tag for tag in photographic if not METADATA_TAG.search(tag))]
        tags.append(chosen)
    view["tags"] = tags
    view["caption"] = [caption_text(face_tags) for face_tags in tags]
    return view


def _semantic_tags(view: pd.DataFrame) -> list[list[str]]:
    """The semantic tags of each row; none for faces that are not labelled."""
    labels = pd.read_csv(SEMANTIC_FILE).set_index(["file", "place"])["tags"].to_dict()
    return [
        str(labels[key]).split(", ") if key in labels else []
        for key in zip(view["file"], view["place"], strict=True)
    ]


def _train(experiment: Experiment, variant: str, seed: int) -> Path:
    folder = experiment.folder / "runs" / f"prior-{variant}-{seed}"
    if not is_finished(folder):
        workspace = experiment.faces.workspace
        view = captioned_view(experiment, "train", variant)
        small_models.train_stage(
            "prior",
            workspace,
            with_copies(workspace, view),
            base=experiment.folder / "generic",
            folder=folder,
            overrides=training_settings(experiment.scale.prior, SIZE_PX)
            | {"seed": seed}
            | NO_PICTURES,
        )
    return folder


def _measure(experiment: Experiment, folder: Path, variant: str, seed: int) -> dict[str, object]:
    from authface_train.models.sdxl import load_base

    started = time.monotonic()
    pipeline = load_base(str(folder), None, 0)
    held_out = captioned_view(experiment, "test", variant)
    losses = _held_out_losses(experiment, pipeline, held_out)
    wanted = captioned_view(experiment, "test", "both").groupby("person").head(1).head(DRAWN)
    prompts = captioned_view(experiment, "test", variant).set_index("face_id")["caption"]
    pictures = _generate(pipeline, [prompts[face_id] for face_id in wanted["face_id"]], seed)
    found = _caption_pictures(experiment, pictures, f"{variant}-{seed}")
    drawn = [
        {"person": person, "wanted": tags, "found": found_tags}
        for person, tags, found_tags in zip(wanted["person"], wanted["tags"], found, strict=True)
    ]
    record = experiment.record(variant, seed, "test", started)
    informative = informative_tags(captioned_view(experiment, "train", "photographic")["tags"])
    real = [load_crop(experiment.faces.workspace, path, SIZE_PX) for path in wanted["crop_path"]]
    return record | {
        "losses": losses,
        "drawn": drawn,
        "real": _caption_pictures(experiment, real, "real"),
        "informative": informative,
    }


def informative_tags(tags_of_faces: pd.Series) -> list[str]:
    """The tags that neither nearly all nor nearly no faces have.

    Args:
        tags_of_faces: A list of tags per face.
    """
    counts = Counter(tag for tags in tags_of_faces for tag in tags)
    low, high = SHARES
    num_faces = len(tags_of_faces)
    return sorted(tag for tag, count in counts.items() if low <= count / num_faces <= high)


@torch.no_grad()
def _held_out_losses(
    experiment: Experiment, pipeline: StableDiffusionXLPipeline, view: pd.DataFrame
) -> list[dict[str, object]]:
    """The mean noise loss of each face with the own, another person's and no caption."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler

    workspace = experiment.faces.workspace
    captions = view["caption"].tolist()
    prompts = cached_prompts(
        workspace, pipeline, [*captions, ""], Accelerator(cpu=True), lambda completed, total: None
    )
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    timesteps = ((torch.arange(NOISE_LEVELS) + 0.5) * 1000 / NOISE_LEVELS).long()
    rows: list[dict[str, object]] = []
    for index in range(len(view)):
        face = view.iloc[index]
        crop = load_crop(workspace, face["crop_path"], SIZE_PX)
        vae = pipeline.vae
        latent = vae.encode(small_models.to_tensor([crop])).latent_dist.mean
        latent = latent * vae.config.scaling_factor
        generator = torch_generator(0, 0, face["face_id"], "table3")
        noise = torch.randn((NOISE_LEVELS, *latent.shape[1:]), generator=generator)
        noisy = scheduler.add_noise(latent.expand_as(noise), noise, timesteps)
        other = _other_person(view, index)
        losses = {
            name: _noise_loss(pipeline, noisy, noise, timesteps, prompt)
            for name, prompt in (
                ("own", prompts[index]),
                ("other", prompts[other]),
                ("empty", prompts[len(captions)]),
            )
        }
        rows.append({"face_id": face["face_id"], "person": face["person"], **losses})
    return rows


def _other_person(view: pd.DataFrame, index: int) -> int:
    """Index of the next face of another person."""
    people = view["person"].tolist()
    for step in range(1, len(people)):
        other = (index + step) % len(people)
        if people[other] != people[index]:
            return other
    return index


def _noise_loss(
    pipeline: StableDiffusionXLPipeline,
    noisy: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    prompt: Embedding,
) -> float:
    count = len(noisy)
    prediction = pipeline.unet(
        noisy,
        timesteps,
        prompt.embeds[None].expand(count, -1, -1),
        added_cond_kwargs={
            "text_embeds": prompt.pooled[None].expand(count, -1),
            "time_ids": torch.tensor(time_ids(SIZE_PX)).expand(count, -1),
        },
    ).sample
    return float((prediction - noise).square().mean())


@torch.no_grad()
def _generate(
    pipeline: StableDiffusionXLPipeline, captions: list[str], seed: int
) -> list[np.ndarray]:
    """Generate a picture per caption; picture i of every model starts from the same noise."""
    pipeline.set_progress_bar_config(disable=True)
    pictures: list[np.ndarray] = []
    for first in range(0, len(captions), 8):
        batch = captions[first : first + 8]
        numbers = range(first, first + len(batch))
        generators = [torch.Generator().manual_seed(1000 * seed + number) for number in numbers]
        images = pipeline(
            batch,
            negative_prompt=[""] * len(batch),
            num_inference_steps=DRAW_STEPS,
            guidance_scale=GUIDANCE,
            height=SIZE_PX,
            width=SIZE_PX,
            generator=generators,
        ).images
        pictures += [np.asarray(image) for image in images]
    return pictures


def _caption_pictures(
    experiment: Experiment, pictures: list[np.ndarray], name: str
) -> list[list[str] | None]:
    """Describe pictures with the captioner `measured`, by the commands of a user.

    Returns:
        The tags of each picture; None for a picture without a face.
    """
    root = experiment.folder / "drawn" / name
    shutil.rmtree(root, ignore_errors=True)
    source = root / "pictures"
    source.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        enlarged = Image.fromarray(picture).resize(
            (ENLARGED_PX, ENLARGED_PX), Image.Resampling.LANCZOS
        )
        enlarged.save(source / f"{number:03d}.png")
    workspace = root / "ws"
    run_command("init", workspace, "--preset", "embedded")
    (workspace / SETTINGS_FILE).write_text(SETTINGS, "utf-8")
    run_command(
        *("collect", "-w", workspace, "--source", "folder", "--path", source),
        *("--licence-basis", LICENCE_BASIS),
    )
    run_command("filter", "-w", workspace)
    if kept_faces(Workspace(workspace)).empty:
        return [None] * len(pictures)
    run_command("caption", "-w", workspace)
    return _read_tags(Workspace(workspace), len(pictures))


def _read_tags(workspace: Workspace, count: int) -> list[list[str] | None]:
    from manifests.schema import FACES, PHOTOS

    tags: list[list[str] | None] = [None] * count
    captions = Store(workspace, CAPTIONS).read_pandas(["face_id", "photographic_tags"])
    faces = Store(workspace, FACES).read_pandas(["face_id", "photo_id", "qsize_px"])
    photos = Store(workspace, PHOTOS).read_pandas(["photo_id", "description"])
    rows = captions.merge(faces, on="face_id").merge(photos, on="photo_id")
    # The largest face of a picture comes last.
    for row in rows.sort_values("qsize_px").itertuples():
        tags[int(Path(str(row.description)).stem)] = list(row.photographic_tags)
    return tags


def report(folder: Path) -> str:
    """Format Table 3 in Markdown.

    Args:
        folder: Folder of the result files.

    Raises:
        UserError: If there are no results.
    """
    records = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    if not records:
        raise UserError(
            f"no results in {folder}; make them with `authface reproduce table3 --scale small`"
        )
    losses = pd.concat(
        [
            pd.DataFrame(record["losses"]).assign(variant=record["row"], seed=record["seed"])
            for record in records
        ],
        ignore_index=True,
    )
    recalls = pd.concat([_recalls(record) for record in records], ignore_index=True)
    sections = [
        _describe(records[0], losses),
        _means_table(losses, recalls, records),
        _differences_table(losses, recalls),
        f"{PAPER_TABLE3}. Other data, size and metrics: only the directions can be compared.",
    ]
    return "\n\n".join(sections)


def _recalls(record: dict[str, object]) -> pd.DataFrame:
    """Per generated picture: recall of its caption's tags, and of other captions' tags."""
    drawn = pd.DataFrame(record["drawn"])
    informative = set(record["informative"])  # type: ignore[call-overload]
    wanted = [informative & set(tags) for tags in drawn["wanted"]]
    found = [set(tags) if tags is not None else set() for tags in drawn["found"]]
    has_face = [tags is not None for tags in drawn["found"]]
    rows = []
    for index, tags in enumerate(wanted):
        if not tags:
            continue
        others = [other for number, other in enumerate(wanted) if number != index and other]
        rows.append(
            {
                "variant": record["row"],
                "seed": record["seed"],
                "person": drawn["person"][index],
                "has_face": has_face[index],
                "recall": len(tags & found[index]) / len(tags),
                "chance": float(np.mean([len(o & found[index]) / len(o) for o in others])),
            }
        )
    return pd.DataFrame(rows)


def _describe(record: dict[str, object], losses: pd.DataFrame) -> str:
    faces, people = record["faces"], record["people"]
    assert isinstance(faces, dict)
    assert isinstance(people, dict)
    scale, drawn = record["scale"], record["drawn"]
    assert isinstance(scale, dict)
    assert isinstance(drawn, list)
    return (
        f"Stage I, {scale['prior']} steps on {faces['train']} faces of {people['train']} people, "
        f"measured on {losses['face_id'].nunique()} faces of {losses['person'].nunique()} other "
        f"people; {len(drawn)} generated pictures per model; {record['machine']}; commit "
        f"{record['commit']}."
    )


def _means_table(
    losses: pd.DataFrame, recalls: pd.DataFrame, records: list[dict[str, object]]
) -> str:
    lines = [
        "| Stage I | seeds | loss, own caption | loss, another's caption | loss, no caption "
        "| faces found | tag recall | recall of other captions |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, description in VARIANTS.items():
        rows = losses[losses["variant"] == variant]
        if rows.empty:
            continue
        loss = rows[["own", "other", "empty"]].mean()
        drawn = recalls[recalls["variant"] == variant]
        lines.append(
            f"| {description} | {rows['seed'].nunique()} | {loss['own']:.4f} "
            f"| {loss['other']:.4f} | {loss['empty']:.4f} | {drawn['has_face'].mean():.0%} "
            f"| {drawn['recall'].mean():.3f} | {drawn['chance'].mean():.3f} |"
        )
    real = _recalls({**records[0], "drawn": _with_real(records[0]), "row": "real"})
    lines.append(
        f"| the photographs themselves at {SIZE_PX} px | | | | | {real['has_face'].mean():.0%} "
        f"| {real['recall'].mean():.3f} | {real['chance'].mean():.3f} |"
    )
    return "\n".join(lines)


def _with_real(record: dict[str, object]) -> list[dict[str, object]]:
    drawn, real = record["drawn"], record["real"]
    assert isinstance(drawn, list)
    assert isinstance(real, list)
    return [{**row, "found": tags} for row, tags in zip(drawn, real, strict=True)]


def _differences_table(losses: pd.DataFrame, recalls: pd.DataFrame) -> str:
    lines = ["| question | mean | 95 % over people | result |", "|---|---|---|---|"]

    def add(question: str, difference: pd.Series, *, higher_is_better: bool) -> None:
        by_person = difference.groupby(level="person").mean()
        low, high = bootstrap_interval(by_person.to_numpy())
        result = "no difference resolved"
        if not low <= 0 <= high:
            result = "better" if (low > 0) == higher_is_better else "worse"
        lines.append(
            f"| {question} | {by_person.mean():+.4f} | {low:+.4f} to {high:+.4f} | {result} |"
        )

    keys = ["person", "face_id", "seed"]
    own = losses.set_index([*keys, "variant"])["own"].unstack("variant")
    for variant, other in COMPARED:
        if variant in own and other in own:
            question = f"loss: {VARIANTS[variant]} - {VARIANTS[other]}"
            add(question, (own[variant] - own[other]).dropna(), higher_is_better=False)
    for variant in VARIANTS:
        rows = losses[losses["variant"] == variant].set_index(keys)
        if variant != "none" and len(rows):
            question = f"loss, {VARIANTS[variant]}: own caption - another's"
            add(question, rows["own"] - rows["other"], higher_is_better=False)
    for variant in VARIANTS:
        rows = recalls[recalls["variant"] == variant].set_index("person")
        if len(rows):
            question = f"recall, {VARIANTS[variant]}: own caption - other captions"
            add(question, rows["recall"] - rows["chance"], higher_is_better=True)
    return "\n".join(lines)
