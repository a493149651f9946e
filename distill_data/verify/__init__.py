"""Verifiers: each scores one answer against its prompt; a `VerifierPool` runs one over many."""

from distill_data.verify.judge import Verifier, make_verifier, verifier_identity
from distill_data.verify.pool import VerifierPool
from distill_data.verify.reasoning_gym import require_safe_scorer

__all__ = ["Verifier", "VerifierPool", "make_verifier", "require_safe_scorer", "verifier_identity"]
