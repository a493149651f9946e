"""What happens to requests when servers are busy, break, leave, join, or are not what the teacher needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from distill_data.errors import ConfigError, ModelError, TeacherError
from distill_data.models import resolve_model
from distill_data.teacher_config import Sampling, Teacher
from distill_data.teachers.base import Completion, Request, RequestRefused
from distill_data.teachers.server_teacher import ServerTeacher
from tests.servers.conftest import free_port
from tests.servers.faulty import COUNT_TO, CountingServer

EOS = 2  # of the tiny tokenizer
WIDTH = 8
WAIT_SECONDS = 120


def teacher_of(model: Path, urls: list[str], **servers: Any) -> ServerTeacher:
    engine = {"servers": {"urls": urls, **servers}, "hang_seconds": 5.0}
    settings = {"model": str(model), "soft_labels": {"max_support": WIDTH}, "engine": engine}
    return ServerTeacher(resolve_model(str(model)), Teacher.model_validate(settings))


def count(teacher: ServerTeacher, requests: int, tokens: int = 5) -> dict[str, Completion]:
    """Ask for some tokens after 10, 11 and so on."""
    for number in range(requests):
        prompt = [EOS, 10 + number % 50]
        teacher.add(Request(f"request-{number}", prompt, number, Sampling(max_tokens=tokens, temperature=0.0)))
    found: dict[str, Completion] = {}
    deadline = time.monotonic() + WAIT_SECONDS
    while len(found) < requests and time.monotonic() < deadline:
        for completion in teacher.step():
            assert completion.request_id not in found, "a request was answered twice"
            found[completion.request_id] = completion
    assert len(found) == requests
    assert teacher.tokens_in_flight() == 0
    return found


def check_counts(found: dict[str, Completion]) -> None:
    for name, completion in found.items():
        first = 11 + int(name.removeprefix("request-")) % 50
        assert completion.token_ids.tolist() == list(range(first, first + len(completion.token_ids)))
        assert completion.top_ids[:, 0].tolist() == completion.token_ids.tolist()
        assert completion.top_logprobs.shape == (len(completion.token_ids), WIDTH)
        assert completion.finish_reason == "length" and len(completion.token_ids) == 5


@pytest.fixture
def servers(tiny_model: Path) -> Iterator[list[CountingServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(CountingServer(str(tiny_model), EOS, free_port())) for _ in range(2)]


def test_requests_are_shared_and_end_at_eos(tiny_model: Path, servers: list[CountingServer]) -> None:
    teacher = teacher_of(tiny_model, [server.url for server in servers])
    servers[0].faults = ["slow"] * 40
    check_counts(count(teacher, 60))
    assert min(len(server.asked) for server in servers) > 5
    (completion,) = count(teacher, 1, tokens=500).values()
    assert completion.finish_reason == "stop"
    assert completion.token_ids.tolist() == [*range(11, COUNT_TO + 1), EOS]


@pytest.mark.parametrize("fault", ["429", "503", "500", "told", "cut", "hang"])
def test_a_request_is_asked_again_and_answered_once(
    tiny_model: Path, servers: list[CountingServer], fault: str
) -> None:
    teacher = teacher_of(tiny_model, [server.url for server in servers])
    servers[0].faults = [fault] * 2
    check_counts(count(teacher, 12))
    assert servers[0].faults == []


def test_a_request_that_servers_refuse_is_handed_back_and_the_others_are_answered(
    tiny_model: Path, servers: list[CountingServer]
) -> None:
    teacher = teacher_of(tiny_model, [servers[0].url])
    servers[0].faults = ["400"]
    found = count(teacher, 6)
    (refused,) = [name for name, completion in found.items() if completion.finish_reason.startswith("refused")]
    assert found.pop(refused).finish_reason == "refused: 400: fault 400"
    check_counts(found)


def test_a_prompt_that_breaks_every_server_is_given_up(tiny_model: Path, servers: list[CountingServer]) -> None:
    teacher = teacher_of(tiny_model, [server.url for server in servers])
    for server in servers:
        server.faults = ["500"] * 5
    (completion,) = count(teacher, 1).values()
    assert completion.finish_reason.startswith("refused: 5 servers broke with it, at last http://127.0.0.1:")
    check_counts(count(teacher, 6))  # both are back


def test_a_server_that_leaves_and_one_that_joins(tiny_model: Path) -> None:
    ports = [free_port(), free_port()]
    urls = [f"http://127.0.0.1:{port}/v1" for port in ports]
    with CountingServer(str(tiny_model), EOS, ports[0]) as first:
        teacher = teacher_of(tiny_model, urls)
        check_counts(count(teacher, 4))
    with CountingServer(str(tiny_model), EOS, ports[1]) as second:
        check_counts(count(teacher, 8))  # the first is gone, the second was not there at the start
    assert len(first.asked) == 4 and len(second.asked) == 8


def test_no_server_at_all_is_one_line(tiny_model: Path) -> None:
    with pytest.raises(TeacherError, match=r"no server of teacher.engine.servers answers \(http://127.*ConnectError"):
        teacher_of(tiny_model, [f"http://127.0.0.1:{free_port()}/v1"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"entry": {"id": "another"}}, "has another and no .*served_model"),
        ({"entry": {"max_model_len": None}}, "set teacher.engine.max_model_len"),
        ({"choice": {"token_ids": None}}, "gives no token ids"),
        (
            {"choice": {"logprobs": {"top_logprobs": [{"a": -1.0}], "token_logprobs": [-1.0]}}},
            f"gives 1 alternatives a token .*--max-logprobs {WIDTH}",
        ),
        (
            {"choice": {"logprobs": {"top_logprobs": [{f"t{n}": -1.0 for n in range(WIDTH)}], "token_logprobs": [-1]}}},
            "names tokens by their text",
        ),
        (
            {
                "choice": {
                    "logprobs": {
                        "top_logprobs": [{f"token_id:{n}": -0.69314718 - n / 8 for n in range(WIDTH)}],
                        "token_logprobs": [-0.69314718],
                    }
                }
            },
            "head_dtype.*float32",
        ),
    ],
)
def test_a_server_that_is_not_what_is_needed_is_refused_with_what_would_help(
    tiny_model: Path, names: dict[str, Any], message: str
) -> None:
    served = CountingServer(str(tiny_model), EOS, free_port(), names=names)
    with served as server, pytest.raises(ModelError, match=message):
        teacher_of(tiny_model, [server.url])


def test_the_key_comes_from_the_environment_and_stays_out_of_messages(
    tiny_model: Path, servers: list[CountingServer], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "planted-key-1234")
    teacher = teacher_of(tiny_model, [servers[0].url], api_key_env="TEACHER_KEY")
    servers[0].faults = ["500"]
    count(teacher, 2)
    assert set(servers[0].keys) == {"Bearer planted-key-1234"}
    servers[0].faults = ["401"]
    with pytest.raises(TeacherError, match=r"answers 401: set teacher\.engine\.servers\.api_key_env"):
        count(teacher, 1)
    written = capfd.readouterr()
    assert "is left out for now" in written.err and "planted" not in written.err + written.out
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(ConfigError, match="TEACHER_KEY and the environment has no such variable"):
        teacher_of(tiny_model, [servers[0].url], api_key_env="TEACHER_KEY")


def test_ids_that_the_model_does_not_have_are_refused(tiny_model: Path, servers: list[CountingServer]) -> None:
    teacher = teacher_of(tiny_model, [servers[0].url])
    with pytest.raises(RequestRefused, match="token_out_of_vocabulary"):
        teacher.add(Request("one", [10**6], 0, Sampling()))
