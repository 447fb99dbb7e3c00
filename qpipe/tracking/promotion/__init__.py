"""Promotion on the record: who has a right to it, the ledger, and aliases and versions that follow it."""
