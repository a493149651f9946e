"""Texts that may be evaluated: bare literals, and arithmetic without a way to anything else.

Scorers of some tasks call `eval` or sympy's `parse_expr` (which evaluates too) on what the teacher said. Python's own
parser decides here what a text is, before anything runs; attributes, subscripts, comprehensions, keywords, strings in
formulas and every function that is not one of FUNCTIONS are refused.
"""

from __future__ import annotations

import ast
import math

FUNCTIONS = frozenset([
    "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln",
    "sqrt", "cbrt", "Abs", "erf",
])  # fmt: skip
MAX_CHARACTERS = 2000
_MAX_DIGITS = 10_000
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)


def is_literal(text: str) -> bool:
    """Whether a text is no Python expression at all, which `eval` refuses, or only numbers, strings and lists."""
    if len(text) > MAX_CHARACTERS:
        return False
    try:
        ast.literal_eval(text)
    except SyntaxError:
        return True
    except (ValueError, TypeError, MemoryError, RecursionError):
        return False
    return True


def is_formula(text: str) -> bool:
    """Whether a text is a formula of numbers, one-word symbols, + - * / // % ** and FUNCTIONS, and no giant number."""
    if len(text) > MAX_CHARACTERS:
        return False
    try:
        formula = ast.parse(text.strip(), mode="eval").body
        return _is_formula(formula) and _digits(formula) <= _MAX_DIGITS
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
        return False


def _is_formula(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return type(value) in (int, float)
        case ast.Name(id=name):
            return name.isalnum()
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            return _is_formula(operand)
        case ast.BinOp(op=op, left=left, right=right):
            return isinstance(op, _OPERATORS) and _is_formula(left) and _is_formula(right)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            return name in FUNCTIONS and _is_formula(argument)
    return False


def _digits(node: ast.expr) -> float:
    """More digits than a formula's value can have, before or after the point; a symbol counts as a number below 10.

    Raises:
        OverflowError: too many to count.
    """
    match node:
        case ast.Constant(value=int(value) | float(value)):
            return math.log10(abs(value) + 2)
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            return _digits(left) * 10.0 ** _digits(right)
        case ast.BinOp(left=left, right=right):
            return _digits(left) + _digits(right)
        case ast.UnaryOp(operand=inner) | ast.Call(args=[inner]):
            return _digits(inner)
    return 1.0
