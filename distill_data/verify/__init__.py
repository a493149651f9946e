"""Verifiers: each scores one answer against its prompt; a `VerifierPool` runs one over many."""

from distill_data.verify.judge import Verifier, make_verifier, verifier_identity
from distill_data.verify.pool import VerifierPool

__all__ = ["Verifier", "VerifierPool", "make_verifier", "verifier_identity"]
