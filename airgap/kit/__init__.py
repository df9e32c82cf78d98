"""The offline kit: this program, its packages as wheels, and what is in them, as one archive for a machine that
reaches no package index. `manage.py offline_kit` puts the signature on it."""
