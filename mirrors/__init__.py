"""Airgap's one application: mirrors of what Trivy needs, their age, and the bundles that carry them across."""
