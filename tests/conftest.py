"""Shapes and dtypes in d3ssl's signatures are checked by jaxtyping and beartype while the tests run."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # tests are about the CPU; a GPU would change the figures

from jaxtyping import install_import_hook

install_import_hook("d3ssl", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(0)
