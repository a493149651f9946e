"""The section `judge` of the config: one class per verifier, told apart by `verifier:`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from distill_data.section import Options, Section
from distill_data.teacher_config import Teacher

TIMEOUT_SECONDS, CODE_TIMEOUT_SECONDS = 10.0, 300.0

MAX_DIGIT = 9
RUBRIC = """\
Grade how well the answer answers the question: whether it is correct, complete, and free of errors in its reasoning.
Where a reference is given it is right, and an answer that contradicts it gets the lowest grade.
The highest grade is for an answer without any fault, the lowest for one that is wrong, empty or beside the point."""

_FUNCTION = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


def require_schema(schema: Any) -> None:
    """Refuse what is no JSON schema.

    Raises:
        ValueError: the schema breaks the rules of its own draft (2020-12 where it names none).
    """
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"{error.json_path} is no JSON schema ({error.message[:200]}): correct it") from None


class JudgeSection(Section):
    """What every verifier has. Judging is left out where `judge:` is."""

    verifier: str
    """Which verifier scores the answers."""
    pass_score: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """A trace passes with at least this score (0 to 1)."""

    @property
    def needs_reference(self) -> bool:
        """Whether every prompt has to bring the right answer."""
        return True


class RuleJudge(JudgeSection):
    """What every verifier has that is a program: it runs in processes of its own."""

    timeout_seconds: Annotated[PositiveFloat, Field(exclude_if=lambda seconds: seconds == TIMEOUT_SECONDS)] = (
        TIMEOUT_SECONDS
    )
    """A verifier that takes longer on one answer is ended, and the row is marked with an error."""
    processes: Annotated[PositiveInt | None, Field(exclude_if=lambda processes: processes is None)] = None
    """Processes that judge at once; one per core when left out. Changes no verdict."""


class ExactJudge(RuleJudge):
    """The answer, or the final answer found in it, is the reference."""

    verifier: Literal["exact"]
    """Which verifier scores the answers."""


class ReasoningGymJudge(RuleJudge):
    """The scorer of the reasoning_gym task; prompts of other sources are compared as `exact` does."""

    verifier: Literal["reasoning_gym"]
    """Which verifier scores the answers."""


class MathJudge(RuleJudge):
    """The final answer is mathematically the reference: LaTeX, fractions, percents, units, sets, intervals."""

    verifier: Literal["math"]
    """Which verifier scores the answers."""


class ChoiceJudge(RuleJudge):
    """The answer names the letter of the right choice; naming two is wrong."""

    verifier: Literal["choice"]
    """Which verifier scores the answers. References are letters, or texts of the choices in prompt or metadata."""


class NumericJudge(RuleJudge):
    """The last number of the final answer is the reference's."""

    verifier: Literal["numeric"]
    """Which verifier scores the answers."""
    relative_tolerance: NonNegativeFloat = 1e-6
    """How far the number may be off, as a share of the larger one. Two whole numbers must be the same unless this is
    above 1e-6."""
    absolute_tolerance: NonNegativeFloat = 0.0
    """How far the number may be off, whatever its size."""


class RegexJudge(RuleJudge):
    """The answer matches a pattern."""

    verifier: Literal["regex"]
    """Which verifier scores the answers."""
    pattern: str | None = None
    """A regular expression in the syntax of Python's `regex` package; when left out, each prompt's reference is its
    own."""
    match: Literal["final", "anywhere"] = "final"
    """`final`: all of the final answer, or of the answer, matches. `anywhere`: a part of the answer does."""

    @property
    def needs_reference(self) -> bool:
        """Whether every prompt has to bring the right answer."""
        return self.pattern is None

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str | None) -> str | None:
        import regex

        try:
            regex.compile(pattern or "")
        except regex.error as error:
            raise ValueError(f"{pattern!r} is no regular expression ({error}): correct it") from None
        return pattern


class JsonSchemaJudge(RuleJudge):
    """The answer, or its last fenced block, is JSON that follows a schema."""

    verifier: Literal["json_schema"]
    """Which verifier scores the answers."""
    json_schema: Options | None = None
    """The schema; when left out, each prompt's own from its metadata `json_schema`. A `$ref` to elsewhere is not
    fetched."""

    @property
    def needs_reference(self) -> bool:
        """Whether every prompt has to bring the right answer."""
        return False

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            require_schema(schema)
        return schema


class PythonJudge(RuleJudge):
    """A function of your own scores the answer, with this job's rights."""

    verifier: Literal["python"]
    """Which verifier scores the answers."""
    function: str
    """`package.module:function`, called as `function(answer, prompt)`; it returns a score from 0 to 1, or True or
    False."""

    @property
    def needs_reference(self) -> bool:
        """Whether every prompt has to bring the right answer."""
        return False

    @field_validator("function")
    @classmethod
    def _names_a_function(cls, function: str) -> str:
        if not _FUNCTION.fullmatch(function):
            raise ValueError(f"{function!r} names no function: write it as package.module:function")
        return function


class CodeJudge(RuleJudge):
    """The program in the answer passes the prompt's tests, run in a sandbox."""

    verifier: Literal["code"]
    """Which verifier scores the answers."""
    timeout_seconds: Annotated[PositiveFloat, Field(exclude_if=lambda seconds: seconds == CODE_TIMEOUT_SECONDS)] = (
        CODE_TIMEOUT_SECONDS
    )
    """An answer whose tests take longer together is ended, and the row is marked with an error."""
    language: Literal["python"] = "python"
    """What the program is written in."""
    cpu_seconds: PositiveInt = 10
    """CPU time that one program may take."""
    memory_mib: PositiveInt = 1024
    """Memory that one program may take, in MiB."""
    output_kib: PositiveInt = 64
    """How much of what one program prints is read, in KiB."""

    @property
    def needs_reference(self) -> bool:
        """Whether every prompt has to bring the right answer."""
        return False


class LlmJudge(JudgeSection):
    """A second teacher grades the answer by a rubric."""

    verifier: Literal["llm_judge"]
    """Which verifier scores the answers."""
    pass_score: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    """A trace passes with at least this score: 0 is the lowest grade, 1 the highest."""
    teacher: Teacher
    """Who judges: a section like the config's own `teacher`, with a trace store of its own. With `samples` above 1 an
    answer's score is the mean of so many verdicts."""
    rubric: str = RUBRIC
    """What makes an answer good, and what the grades mean. The question, the reference where there is one, the answer
    and how to write the verdict are put around it."""
    lowest: NonNegativeInt = 1
    """The worst grade."""
    highest: Annotated[int, Field(ge=1, le=100)] = 5
    """The best grade."""
    read: Literal["verdict", "expected"] = "verdict"
    """`verdict`: the grade that the judge wrote. `expected`: the mean of the grades that it might have written, by the
    probabilities of that token; for grades of one digit."""

    @property
    def needs_reference(self) -> bool:
        """Whether every prompt has to bring the right answer."""
        return False

    @model_validator(mode="after")
    def _grades_ascend(self) -> LlmJudge:
        if self.highest <= self.lowest:
            raise ValueError(f"lowest is {self.lowest} and highest {self.highest}: make highest the larger one")
        return self

    @model_validator(mode="after")
    def _its_teacher_writes(self) -> LlmJudge:
        if self.teacher.mode != "generate":
            raise ValueError("the judge's teacher has mode: score, and a judge writes: leave mode out")
        return self

    @model_validator(mode="after")
    def _expected_grades_are_tokens(self) -> LlmJudge:
        if self.read == "expected" and self.highest > MAX_DIGIT:
            raise ValueError(
                f"read is expected and highest {self.highest}, which is more than one token: set highest: {MAX_DIGIT} "
                "or less, or read: verdict"
            )
        if self.read == "expected" and self.teacher.soft_labels.kind != "support":
            raise ValueError("read is expected, which needs the judge's teacher.soft_labels.kind: support")
        return self


Rule = (
    ExactJudge
    | ReasoningGymJudge
    | MathJudge
    | ChoiceJudge
    | NumericJudge
    | RegexJudge
    | JsonSchemaJudge
    | PythonJudge
    | CodeJudge
)
Judge = Annotated[Rule | LlmJudge, Field(discriminator="verifier")]
