"""Stubs generated from proto/headworks/v1 by `make proto`. Do not edit."""
