"""distill-data: prompts in; a versioned corpus of teacher traces with soft labels, and a student trained on it, out.

The modules in reading order, low to high; a module imports only what stands above it here (`corpus` reaches
`student` only inside `Corpus.reader`):

errors         every error that a user can meet, and its exit code
identity       canonical hashing: prompt_id, teacher_id, digests, seeds
section        what a section of the config is
license_config  licences as a hub writes them
sampling_config  the section `sampling` of a source: what is sampled otherwise
labels_config  the labels that a teacher chooses among
servers_config  the section `teacher.engine.servers`: servers that run the teacher
teacher_config  the section `teacher`: everything that decides what it says, and how it is run
compare_config  the section `compare`: the same student trained several ways
judge_config   the section `judge`: which verifier scores answers, and how
prompt_config  the sections of prompt sources
filter_config  the section `filters`: which traces are dropped by what they say
gates_config   the section `gates`: what a version must be like to be promoted
schedule_config  the section `schedule`: when a config is run by itself
keep_config    the sections `keep` and `mix`: which of a prompt's traces are kept, and how many of each source
dedup_config   the sections `deduplicate` and `decontaminate`: prompts and answers that are too much like others
evaluate_config  the section `student.evaluate`: how the student is measured, alone and beside others
publish_config  the section `publish`: where versions go
student_config  the section `student`: who learns, and what is minimised
rounds_config  the section `rounds`: how the student learns from its own answers
config         the config tree: every key, its type, default and meaning
config_problems  what is wrong with a config, in one phrase each
config_file    how YAML and `--set` become a config
reference      README's configuration reference, made from the config classes
templates      how the templates beside the code become pages and cards
records        Prompt, Trace, SoftLabels, and the Arrow schemas that they are stored in
compiled       how loops over arrays become machine code
list_loops     those over the lists of soft labels
soft_labels    select, pack and unpack a token's distribution; its tail
label_distributions  distributions over labels, length-normalised and calibrated
parquet        encodings, and files that appear whole or not at all
reasoning      thinking and answer of a completion; the short final answer in an answer
file_hash      hashes of big files, read once; the cache folder
mapped         tables in files that are mapped into memory
package_file   files in Python packages
gguf           GGUF files, also in Python packages, as folders that transformers and vLLM load
models         where a model reference points, and what a model adds to its teacher's id
teacher_identity  who a config's teacher is, and the ingredients of its id
prompts        sources -> one table of unique prompts
planning       what is missing, cut into shards
part_file      one committed part as a file; what shows that it is whole
trace_table    traces as an Arrow table; the hash of what a trace says
trace_index    one row a trace, also where it was made more than once
trace_store    committed parts of one teacher: commit, index, read
dead_letters   prompts that killed the engine, readable beside the parts
lease          one build at a time per teacher
teachers       vLLM here, on servers, or replay behind one protocol; the worker that owns it; the pool that feeds
               workers; only teachers/vllm_*.py import vllm, only teachers/ray_pool.py imports ray
verify         verifiers, each scores one answer against its prompt; the processes that they run in; their verdicts
filters        drop rules and their reasons; duplicates; benchmarks that must not leak
corpus         assemble a version, its manifest and card; open it; verify it
export         a version as files that other trainers read
page           a version's report as one HTML page
judging        what models that judge are asked: a job of their own
publish        a version or a student to a hub's repository or any fsspec URL; only publish/hub.py writes to a hub
screening      a config's prompts without those of benchmarks and those that came before
promotion      a version that passes the gates gets the tag `stable`
student        dataset, losses, training and evaluation of a student
comparison     what students learn with and without distributions, and in how many tokens
session        a teacher's lease and its workers, for one build
build          a build, step by step
judging_build  the step in which models judge
build_report   a build's figures, and whether its version is promoted
rounds         the on-policy loop: the student answers, the teacher scores, the student trains on
evaluation     teacher, student and baselines on the same held-out prompts
estimate       what a build will cost
doctor         what can be checked before an engine starts
progress       what a person sees while a job runs
interrupt      Ctrl-C: commit, then leave
report         what a finished command tells a person, as text: a module for each thing that is told
cli            the command line: commands on jobs, on corpora

The Prefect flows around these stand in the package `flows`. Public names are loaded on first use, so that
`import distill_data` stays light.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_data.config import Config
    from distill_data.config_file import load_config
    from distill_data.corpus.read import Corpus, open_corpus
    from distill_data.errors import (
        ConfigError,
        CorpusError,
        DistillDataError,
        GateError,
        InputError,
        ModelError,
        PublishError,
        StudentError,
        TeacherError,
        TraceStoreError,
    )
    from distill_data.publish import publish_version

__all__ = [
    "Config",
    "ConfigError",
    "Corpus",
    "CorpusError",
    "DistillDataError",
    "GateError",
    "InputError",
    "ModelError",
    "PublishError",
    "StudentError",
    "TeacherError",
    "TraceStoreError",
    "load_config",
    "open_corpus",
    "publish_version",
]

__version__ = version("distill-data")

_MODULES = {
    "Config": "distill_data.config",
    "load_config": "distill_data.config_file",
    "Corpus": "distill_data.corpus.read",
    "open_corpus": "distill_data.corpus.read",
    "publish_version": "distill_data.publish",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "distill_data.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
