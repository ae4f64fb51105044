"""Counters, latents and prompts."""

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
    flat = [d for step in range(15) for d in step_keys(7, step, 4, 10)]
    by_epoch = [[d.index for d in flat if d.epoch == epoch] for epoch in range(6)]
    assert all(sorted(order) == list(range(10)) for order in by_epoch)
    assert len({tuple(order) for order in by_epoch}) == 6
    assert step_keys(7, 3, 4, 10) == step_keys(7, 3, 4, 10) != step_keys(8, 3, 4, 10)


@pytest.mark.parametrize(("world", "size"), [(1, 12), (1, 3), (2, 3), (4, 1), (3, 2)])
def test_processes_and_micro_batches_divide_the_global_batch(world, size):
    draws = step_keys(0, 5, 12, 7)
    parts = [piece for rank in range(world) for piece in micro_batches(draws, rank, world, size)]
    assert [draw for piece in parts for draw in piece] == draws
    assert all(len(piece) == size for piece in parts)


def test_generators_differ_by_each_counter_and_leave_the_global_one():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    base = torch.rand(3, generator=torch_generator(0, 0, "a", "noise"))
    assert torch.equal(base, torch.rand(3, generator=torch_generator(0, 0, "a", "noise")))
    for other in (
        (1, 0, "a", "noise"),
        (0, 1, "a", "noise"),
        (0, 0, "b", "noise"),
        (0, 0, "a", "degrade"),
    ):
        assert not torch.equal(base, torch.rand(3, generator=torch_generator(*other)))
    assert torch.equal(before, torch.get_rng_state())
    assert numpy_generator(0, 0, "a", "x").uniform() == numpy_generator(0, 0, "a", "x").uniform()


def test_time_ids():
    assert time_ids(1024) == [1024, 1024, 0, 0, 1024, 1024]
