"""Engines without GPUs: one model of an engine, driven by a virtual clock or served over HTTP."""
