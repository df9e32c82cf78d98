"""Receipts: made on the isolated side once an administrator allows it, and loaded on the connected one."""
