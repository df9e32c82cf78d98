"""The doctor: asks a registry or a VEX repository what Trivy would ask, in its order and by its rules, and names what a
Trivy there would trip over.

    reach.py      which scheme, whose certificate, what /v2/ says
    login.py      the token, and who may see a password
    artifact.py   the manifest, and what happens when something is not there
    layer.py      the layer, where it comes from, how old it is
    vex.py        the same for a VEX repository
    rules.py      Trivy's and go-containerregistry's rules, without a network
    asking.py     one bounded request
    findings.py   what comes out

Where the rules stand: Trivy pkg/oci/artifact.go, pkg/remote/remote.go, pkg/downloader, pkg/vex/repo;
go-containerregistry pkg/name, pkg/v1/remote and its transport.
"""

from mirrors.doctor.addresses import AddressError, Target, targets_of
from mirrors.doctor.asking import DOCTOR
from mirrors.doctor.examining import EVERYTHING, Options, examine
from mirrors.doctor.findings import Finding, Level, Report, worst_of

__all__ = [
    "DOCTOR",
    "EVERYTHING",
    "AddressError",
    "Finding",
    "Level",
    "Options",
    "Report",
    "Target",
    "examine",
    "targets_of",
    "worst_of",
]
