"""Groups of items that are connected by pairs, such as photographs of one person or one scene."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def connected_labels(count: int, edges: Iterable[tuple[int, int]] | np.ndarray) -> np.ndarray:
    """Label the connected components of an undirected graph.

    Args:
        count: Number of nodes.
        edges: Pairs of node indices in [0, count), also as an array of the shape (m, 2).

    Returns:
        (count,) int64: for each node the smallest node index of its component. Labels do not depend
        on the order of the edges.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = edges if isinstance(edges, np.ndarray) else np.asarray(list(edges), np.int64)
    pairs = pairs.reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    _, component = connected_components(graph, directed=False)
    smallest = np.full(count, count, np.int64)
    np.minimum.at(smallest, component, np.arange(count))
    return smallest[component]
