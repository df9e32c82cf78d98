"""What Airgap knows about Trivy: its assets, their files, and how a cache is laid out. Plain Python, no network."""
