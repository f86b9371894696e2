"""How much features of regions depend on what they should not: surroundings, and place.

The package can be called: ``d3ssl.diagnose(backbone, probe)`` is ``d3ssl.diagnose.diagnose(backbone, probe)``, so that
the function and the package share the public name ``d3ssl.diagnose``.
"""

import sys
from types import ModuleType
from typing import Any

from d3ssl.diagnose.config import DiagnoseConfig
from d3ssl.diagnose.diagnosis import Diagnosis
from d3ssl.diagnose.estimates import Estimate
from d3ssl.diagnose.measure import Measured
from d3ssl.diagnose.monitor import Monitor
from d3ssl.diagnose.probes import build_probes
from d3ssl.diagnose.run import diagnose, diagnose_backbone
from d3ssl.diagnose.sensitivity import sensitivity
from d3ssl.diagnose.sets import NeighbourProbe, Probe, ProbeSet, SizedProbe
from d3ssl.diagnose.stored import ProbeFile, save_probes

__all__ = [
    "DiagnoseConfig",
    "Diagnosis",
    "Estimate",
    "Measured",
    "Monitor",
    "NeighbourProbe",
    "Probe",
    "ProbeFile",
    "ProbeSet",
    "SizedProbe",
    "build_probes",
    "diagnose",
    "diagnose_backbone",
    "save_probes",
    "sensitivity",
]


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Diagnosis:
        return diagnose(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage
