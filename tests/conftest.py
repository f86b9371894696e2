"""Shapes and dtypes in d3ssl's signatures are checked by jaxtyping and beartype while the tests run."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # tests are about the CPU; a GPU would change the figures

from jaxtyping import install_import_hook

install_import_hook("d3ssl", "beartype.beartype")

import multiprocessing  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

_SLOW = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("busy machine", deadline=None, suppress_health_check=_SLOW)
hypothesis.settings.load_profile("busy machine")


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_process_is_left_over() -> Iterator[None]:
    """A process that outlives its test would be waited for when the tests are done, forever if it ignores signals."""
    yield
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
        process.join()
    assert not left
