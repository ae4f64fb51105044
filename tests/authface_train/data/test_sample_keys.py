"""Counter-based randomness: order of samples and generators."""

import pytest
import torch

from authface_train.data.prompts import time_ids
from authface_train.data.sample_keys import (
    micro_batches,
    numpy_generator,
    step_keys,
    torch_generator,
)


def test_every_epoch_has_every_face_once_in_a_new_order():
    keys = [key for step in range(15) for key in step_keys(7, step, 4, 10)]
    orders = [[key.index for key in keys if key.epoch == epoch] for epoch in range(6)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(map(tuple, orders))) == 6


def test_samples_of_a_step_follow_from_the_seed():
    assert step_keys(7, 3, 4, 10) == step_keys(7, 3, 4, 10)
    assert step_keys(7, 3, 4, 10) != step_keys(8, 3, 4, 10)


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 12), (1, 3), (2, 3), (4, 1), (3, 2)])
def test_processes_and_micro_batches_divide_the_global_batch(world_size, micro_batch):
    keys = step_keys(0, 5, 12, 7)
    batches = []
    for rank in range(world_size):
        batches += micro_batches(keys, rank, world_size, micro_batch)
    assert [key for batch in batches for key in batch] == keys
    assert all(len(batch) == micro_batch for batch in batches)


def test_generators_differ_by_each_counter_and_leave_the_global_generator():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    values = torch.rand(3, generator=torch_generator(0, 0, "a", "noise"))
    assert torch.equal(values, torch.rand(3, generator=torch_generator(0, 0, "a", "noise")))
    for counters in (
        (1, 0, "a", "noise"),
        (0, 1, "a", "noise"),
        (0, 0, "b", "noise"),
        (0, 0, "a", "degrade"),
    ):
        assert not torch.equal(values, torch.rand(3, generator=torch_generator(*counters)))
    assert torch.equal(before, torch.get_rng_state())
    assert numpy_generator(0, 0, "a", "x").uniform() == numpy_generator(0, 0, "a", "x").uniform()


def test_time_ids_are_size_crop_and_target():
    assert time_ids(1024) == [1024, 1024, 0, 0, 1024, 1024]
