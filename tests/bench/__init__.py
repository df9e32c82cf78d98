"""`make bench`: Airgap beside the tools people use today, in one run. Plain Python; pytest collects nothing here."""
