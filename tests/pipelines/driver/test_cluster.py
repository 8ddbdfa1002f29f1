"""What a worker reserves of a machine."""

import pytest

from pipelines.driver.cluster import _cores_beside_a_gpu, rows_ahead
from tests.pipelines.quick import quick_request


@pytest.mark.parametrize(
    ("nodes", "gpus", "cores"),
    [
        ([{"CPU": 64, "GPU": 8}], 1, 8),
        ([{"CPU": 32, "GPU": 8}], 1, 4),  # so that all eight get their worker
        ([{"CPU": 0}, {"CPU": 32, "GPU": 8}], 1, 4),  # a head that works nothing
        (
            [{"CPU": 8}, *[{"CPU": 4, "GPU": 1}] * 4],
            1,
            4,
        ),  # a head without a GPU, and with more cores
        ([{"CPU": 96, "GPU": 1}], 1, 8),
        ([{"CPU": 4, "GPU": 1}], 0.5, 2),
        ([{"CPU": 16}], 1, 2),  # nodes with GPUs are still to come
        ([{"CPU": 1, "GPU": 1}], 1, 1),
    ],
)
def test_every_gpu_of_every_node_gets_its_worker(nodes, gpus, cores):
    assert _cores_beside_a_gpu(nodes, gpus) == cores


@pytest.mark.parametrize(("k", "ahead"), [(1, 8), (8, 64), (16, 128), (200, 200), (None, 32)])
def test_rows_are_read_ahead_in_multiples_of_k_within_bounds(k, ahead):
    assert rows_ahead(quick_request("m", "out", k=k).spec) == ahead
