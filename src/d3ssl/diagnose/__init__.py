"""How much features of regions depend on what they should not: surroundings, and place.

The package can be called: ``d3ssl.diagnose(backbone, probe)`` is ``d3ssl.diagnose.diagnose(backbone, probe)``, so that
the function and the package share the public name ``d3ssl.diagnose``.
"""

import sys
from types import ModuleType
from typing import Any

from d3ssl.diagnose.config import DiagnoseConfig
from d3ssl.diagnose.probes import Probe, ProbeSet, build_probes
from d3ssl.diagnose.run import Diagnosis, diagnose, diagnose_backbone
from d3ssl.diagnose.sensitivity import Estimate, sensitivity

__all__ = [
    "DiagnoseConfig",
    "Diagnosis",
    "Estimate",
    "Probe",
    "ProbeSet",
    "build_probes",
    "diagnose",
    "diagnose_backbone",
    "sensitivity",
]


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Diagnosis:
        return diagnose(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage
