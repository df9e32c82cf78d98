"""How Airgap is started and kept running: what must hold first, which processes there are, who restarts them.

Nothing of the domain lives here. `manage.py up` and the systemd units start the same programs from programs.py.
"""
