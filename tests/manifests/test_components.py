"""Groups of items that are connected by pairs."""

from manifests.support.components import connected_labels


def test_components_are_labelled_with_their_smallest_member():
    assert connected_labels(5, [(1, 0), (3, 1)]).tolist() == [0, 0, 2, 0, 4]
    assert connected_labels(5, [(3, 1), (0, 1)]).tolist() == [0, 0, 2, 0, 4]


def test_items_without_pairs_stay_alone():
    assert connected_labels(3, []).tolist() == [0, 1, 2]
    assert connected_labels(0, []).tolist() == []
