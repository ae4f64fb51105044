"""Connected components."""

import numpy as np
import pytest

from manifests.support.components import connected_labels


def smallest_connected(count: int, edges: list[tuple[int, int]]) -> list[int]:
    """Labels by a plain union-find."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    for first, second in edges:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return [root(node) for node in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_those_of_a_union_find(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    edges = [tuple(edge) for edge in rng.integers(0, count, (int(rng.integers(0, 60)), 2)).tolist()]
    labels = connected_labels(count, edges)
    assert labels.tolist() == smallest_connected(count, edges)
    assert labels.dtype == np.int64
    assert connected_labels(count, reversed(edges)).tolist() == labels.tolist()


def test_without_edges_every_node_is_a_component():
    assert connected_labels(3, []).tolist() == [0, 1, 2]
    assert connected_labels(0, []).tolist() == []


def test_repeated_edges_and_loops_are_allowed():
    assert connected_labels(4, [(2, 1), (1, 2), (2, 1), (3, 3)]).tolist() == [0, 1, 1, 3]
