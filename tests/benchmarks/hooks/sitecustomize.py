"""Imported by Python itself when a process starts whose path holds this folder."""

import os
from importlib import import_module

import_module(os.environ["DISTILL_DATA_BENCHMARK_HOOKS"])
