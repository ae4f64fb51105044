"""Steps of a stage's trainer without the training loop."""

from collections.abc import Iterator

from authface_train.data.sample_keys import SampleKey, step_keys
from authface_train.training.loop import Sample, StepLosses, Trainer, stack_samples


def micro_batches(
    trainer: Trainer, keys: list[SampleKey], size: int | None = None
) -> Iterator[Sample]:
    """The samples of the keys in micro-batches of `size`, by default in one."""
    size = size or len(keys)
    for first in range(0, len(keys), size):
        yield stack_samples([trainer.sample(key) for key in keys[first : first + size]])


def first_batch(trainer: Trainer, batch: int = 4) -> Sample:
    """The batch of step 0."""
    return next(micro_batches(trainer, step_keys(0, 0, batch, trainer.num_faces)))


def take_step(trainer: Trainer, step: int, size: int | None = None) -> StepLosses:
    """One step in micro-batches of `size`."""
    keys = step_keys(trainer.settings.seed, step, trainer.settings.batch, trainer.num_faces)
    return trainer.step(step, keys, micro_batches(trainer, keys, size))
