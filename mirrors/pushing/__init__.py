"""Bringing destinations what mirrors serve. `targets` where to, `plan` what, `asking` when, `perform` how, `here` for
the command line. Rows of destinations and rules are changed by mirrors/destinations.py."""
