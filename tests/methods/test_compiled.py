"""The step of every host is one graph: ``torch.compile`` finds nothing to break it at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import d3ssl

CODE = """
import json, sys, warnings
warnings.simplefilter("error")
import torch
from tests.methods.examples import make_learner, make_views, tiny_plan

host, network, options = sys.argv[1:]
plan = tiny_plan(host, "DC DP", **json.loads(options))
learner = make_learner(plan, network)
views = make_views(plan)
state = {name: value.clone() for name, value in learner.state_dict().items()}
expected = learner(views, 0.0)
learner.load_state_dict(state)
found = torch.compile(learner, fullgraph=True, backend="eager")(views, 0.0)
torch.testing.assert_close(found.loss, expected.loss)
found.loss.backward()
assert all(p.grad is not None for p in learner.parameters() if p.requires_grad)
"""


CASES: list[tuple[str, str, dict[str, str]]] = [
    (host, "test_resnet", {"loss": loss, **path})
    for host, path in (("soco", {"region_path": "c4"}), ("soco", {"region_path": "fpn"}), ("byol", {}))
    for loss in ("regression", "info_nce")
]
CASES += [("densecl", "test_resnet", {}), ("ibot", "test_vit", {})]


@pytest.mark.parametrize(("host", "network", "options"), CASES)
def test_the_forward_pass_is_one_graph(host: str, network: str, options: dict[str, str]) -> None:
    """In a process of its own, because the checks of shapes that the tests install are no part of the graph."""
    folder = Path(__file__).parents[2]
    search = [str(folder), str(Path(d3ssl.__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {search}\n{CODE}"
    done = subprocess.run(
        [sys.executable, "-c", code, host, network, json.dumps(options)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
