"""The registry client: oras-py's Registry made safe, and plain HTTP fetches under the same rules. See README.md."""
