"""Taking bundles in. `finding` which files are one, `verifying` the pass over them, `planning` what would become of
each snapshot, `switching` the one transaction, `asking` when, `perform` how, `here` for the command line, `staging`
what browsers upload. Reading a bundle's bytes is mirrors/bundle/reader.py."""
