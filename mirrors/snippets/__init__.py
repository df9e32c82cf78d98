"""What a scanner must be told, as text to copy: written for one Instance, for the mirrors it really has.

Pure: a description of the instance goes in, snippets come out. Flags, variables and keys are those of Trivy's pkg/flag,
of trivy-operator's and Harbor's charts and of Harbor's adapter; what real Trivy makes of them is tried in
tests/snippets/test_with_trivy.py.
"""

from mirrors.snippets.audiences import AUDIENCES, Audience, snippets_for
from mirrors.snippets.command_line import curl_options
from mirrors.snippets.instance import Artifact, Instance, ReleaseFile, VexRepository
from mirrors.snippets.reach import Reach, reach_of
from mirrors.snippets.snippet import Snippet
from mirrors.snippets.traffic import Traffic, traffic

__all__ = [
    "AUDIENCES",
    "Artifact",
    "Audience",
    "Instance",
    "Reach",
    "ReleaseFile",
    "Snippet",
    "Traffic",
    "VexRepository",
    "curl_options",
    "reach_of",
    "snippets_for",
    "traffic",
]
